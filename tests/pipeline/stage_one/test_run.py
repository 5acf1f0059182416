"""Stage one end to end on real, small media: what it writes, resumes and refuses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from spread_samples import digest
from stage_samples import refusal, rewrite, run, tiny_settings

from mvemo.cache import open_cache, verify_cache
from mvemo.cache.writer import CacheWriter
from mvemo.extract.media.request import MediaProblem
from mvemo.extract.nets import build_net
from mvemo.extract.store import contents
from mvemo.extract.store.folders import write_problems
from mvemo.extract.training import trainer
from mvemo.manifests import Clip, read_folds, read_manifest
from mvemo.pipeline.stage_one import steps
from mvemo.pipeline.stage_one.summary import FINISHED

# A run of one net and one epoch.
ONE_NET = tiny_settings('extract.nets="music1d"', "nets.music1d.epochs=1")
BAD = {
    "empty": b"",
    "text": b"this is no video, whatever its name says\n" * 20,
    "bytes": bytes(range(256)) * 40,
}


def wav_set(folder, name, ending="wav"):
    """A manifest of four clips of noise."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    lines = ["clip_id,path,label,group"]
    for i in range(4):
        sound = 0.1 * rng.normal(size=8000)
        soundfile.write(folder / f"{i}.{ending}", sound, 8000, format="WAV")
        lines.append(f"{name}{i},{i}.{ending},{'calm' if i % 2 else 'tense'},{i}")
    (folder / "m.csv").write_text("\n".join(lines))
    return folder / "m.csv"


def extract(manifest, work, *options):
    return run("mvemo", "extract", manifest, "--work", work, *options)


def test_every_net_of_a_fold_saw_neither_its_clips_nor_their_groups(made):
    assert verify_cache(made / "features.h5") == []
    with open_cache(made / "features.h5") as cache:
        table = cache.table
        assert (table.synthetic, table.k) == (True, 2)
        for name, modality in (("music1d", "audio"), ("c3d", "video")):
            variants = cache.variants(name)
            assert [spec.fold for spec in variants] == [0, 1]
            for spec in variants:
                assert (spec.protocol, spec.modality) == ("crossfit", modality)
                groups = {table.groups[table.clip_ids.index(c)] for c in spec.trained_on}
                tested = [i for i in range(12) if table.folds[i] == spec.fold]
                assert spec.trained_on
                assert not groups & {table.groups[i] for i in tested}
                values, present = cache.vectors(name, spec.fold)
                assert present.all()
                # Embeddings tell clips apart.
                assert len(np.unique(values.round(5), axis=0)) == 12
            assert variants[0].weights != variants[1].weights
            for fold in range(2):
                curve = cache.curves[f"{name}@fold{fold}"]
                assert curve["epoch"] == [1.0, 2.0]
                assert np.isfinite(curve["train_loss"]).all()
        assert cache.provenance["settings"]["nets"]["c3d"]["train"]["epochs"] == 2


def test_the_same_command_again_trains_and_writes_nothing_new(made, demo, capsys, monkeypatch):
    (made / FINISHED).unlink()
    before = digest(made / "features.h5")
    weights = sorted(made.glob("nets/*/weights.pt"))
    times = [path.stat().st_mtime_ns for path in weights]
    assert len(weights) == 4
    assert extract(demo / "manifest.csv", made, *tiny_settings()) == 0
    assert [path.stat().st_mtime_ns for path in weights] == times
    assert digest(made / "features.h5") == before
    # Then nothing is even looked for, and the same is said.
    shown = capsys.readouterr()
    monkeypatch.delattr("mvemo.pipeline.stage_one.run.run_extract")
    assert extract(demo / "manifest.csv", made, *tiny_settings()) == 0
    again = capsys.readouterr()
    assert again.out == shown.out
    notes = [line for line in shown.err.splitlines() if line.startswith("note: ")]
    assert notes
    assert again.err.splitlines()[:-1] == notes
    assert again.err.splitlines()[-1].startswith("nothing to do: ")


def test_a_killed_run_goes_on_and_ends_as_one_that_was_not(made, demo, tmp_path, monkeypatch):
    command = (demo / "manifest.csv", tmp_path, *tiny_settings())
    write = steps.FeatureWriter.write_embeddings

    def killed(features, net):
        if net.name == "c3d":
            raise KeyboardInterrupt
        write(features, net)

    with monkeypatch.context() as patch:
        # As kill -9 leaves it once the first net is trained: shards, and no cache.
        patch.setattr(CacheWriter, "__exit__", lambda writer, *error: writer._lock.close())
        patch.setattr(steps.FeatureWriter, "write_embeddings", killed)
        assert extract(*command) == 130
    assert not (tmp_path / "features.h5").exists()
    first = sorted(tmp_path.glob("nets/*/weights.pt"))
    assert len(first) == 2
    kept = first[0].stat().st_mtime_ns
    assert extract(*command) == 0
    assert first[0].stat().st_mtime_ns == kept
    assert verify_cache(tmp_path / "features.h5") == []
    assert digest(made / "features.h5") == digest(tmp_path / "features.h5")


def test_bad_files_are_told_and_all_others_done(demo, tmp_path, capsys):
    manifest = read_manifest(demo / "manifest.csv")
    media = tmp_path / "media"
    shutil.copytree(demo / "media", media)
    clips = list(manifest.clips)
    for name, content in BAD.items():
        (media / f"{name} [bad].mp4").write_bytes(content)
        clips.append(Clip(f"{name} clip", f"media/{name} [bad].mp4", ("Fear",), name))
    whole = (media / "Sad").glob("*.mp4").__next__().read_bytes()
    (media / "half.mp4").write_bytes(whole[: len(whole) // 2])
    clips.append(Clip("half clip", "media/half.mp4", ("Sad",), "half"))
    path = rewrite(replace(manifest, clips=tuple(clips), root=tmp_path), tmp_path / "m.csv")
    work = tmp_path / "work"
    # Failures of some clips do not keep `make` from going on to the report.
    assert extract(path, work, *tiny_settings()) == 0
    out = capsys.readouterr()
    assert "Traceback" not in out.out + out.err
    with open_cache(work / "features.h5") as cache:
        failed = {(f.clip_id, f.stage): f.reason for f in cache.failures}
        bad = {"empty clip", "text clip", "bytes clip", "half clip"}
        assert {clip for clip, _ in failed} == bad
        assert "empty" in failed["empty clip", "decode:audio"]
        for name, fold in (("music1d", 0), ("c3d", 1)):
            values, present = cache.vectors(name, fold)
            assert {c for c, p in zip(cache.table.clip_ids, present, strict=True) if not p} == bad
            # Missing is missing, not zeros.
            assert np.isnan(values[~present]).all()
    for clip in bad:
        assert clip in out.out
    # Told again, and not decoded again, by a second run.
    assert extract(path, work, "--strict", *tiny_settings()) == 1
    shown = capsys.readouterr().out
    assert all(clip in shown for clip in bad)
    # Those that are gone from the manifest are forgotten.
    rewrite(replace(manifest, root=tmp_path), path)
    assert extract(path, work, "--strict", *tiny_settings()) == 0
    assert "failures" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ending", "why"), [("wav", "all files are audio files"), ("mkv", "no clip has usable video")]
)
def test_a_set_without_pictures_leaves_the_video_net_out(ending, why, tmp_path, capsys):
    manifest, work = wav_set(tmp_path / "set", "clip", ending), tmp_path / "work"
    assert extract(manifest, work, *tiny_settings()) == 0
    assert f"c3d left out: {why}" in capsys.readouterr().err
    with open_cache(work / "features.h5") as cache:
        assert "c3d" not in cache.names()
        assert cache.failures == ()


def test_a_cache_of_other_clips_is_not_replaced_unasked(tmp_path, capsys):
    one, two = wav_set(tmp_path / "one", "one"), wav_set(tmp_path / "two", "two")
    settings = [*tiny_settings(), "--nets", "music1d"]
    work = tmp_path / "work"
    assert extract(one, work, *settings) == 0
    assert extract(two, work, *settings) == 2
    assert "holds features of other clips ('m', 4 clips)" in capsys.readouterr().err
    with open_cache(work / "features.h5") as cache:
        assert cache.table.clip_ids[0] == "one0"
    assert extract(two, work, *settings, "--force") == 0
    with open_cache(work / "features.h5") as cache:
        assert cache.table.clip_ids[0] == "two0"


def test_files_that_are_missing_or_locked_are_failures_of_their_clips(
    demo, tmp_path, capsys, monkeypatch
):
    listed = read_manifest(demo / "manifest.csv")
    locked, real = listed.clips[3], contents.stamp_of

    def stamp_of(path):
        if path.name == Path(locked.path).name:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(contents, "stamp_of", stamp_of)
    lost = replace(listed.clips[0], clip_id="lost", path="lost.mp4", group="lost")
    rewrite(replace(listed, clips=(*listed.clips, lost)), tmp_path / "m.csv")
    assert extract(tmp_path / "m.csv", tmp_path / "w", *ONE_NET) == 0
    shown = capsys.readouterr()
    assert "note: 1 of 13 media files are not in" in shown.err
    assert "(lost)" in shown.out
    assert "lost.mp4: file not found" in shown.out
    assert f"{Path(locked.path).name}: cannot be read: Permission denied" in shown.out
    with open_cache(tmp_path / "w" / "features.h5") as cache:
        assert {failure.clip_id for failure in cache.failures} == {"lost", locked.clip_id}
        assert cache.present("music1d", 0).sum() == len(listed) - 1
    # They are looked for again by every run.
    assert not (tmp_path / "w" / FINISHED).exists()
    assert extract(tmp_path / "m.csv", tmp_path / "w", *ONE_NET, "--strict") == 1


def test_a_missing_file_does_not_repeat_a_run(demo, tmp_path, capsys, monkeypatch):
    listed = read_manifest(demo / "manifest.csv")
    lost = replace(listed.clips[0], clip_id="lost", path="lost.mp4", group="lost")
    rewrite(replace(listed, clips=(*listed.clips, lost)), tmp_path / "m.csv")
    arguments = (tmp_path / "m.csv", tmp_path / "w", *ONE_NET)
    assert extract(*arguments) == 0
    shown = capsys.readouterr().out
    assert "lost.mp4: file not found" in shown
    monkeypatch.delattr("mvemo.pipeline.stage_one.run.run_extract")
    assert extract(*arguments) == 0
    assert capsys.readouterr().out == shown


def test_folds_of_a_file_are_those_of_the_features(demo, tmp_path, capsys):
    folds, listed = tmp_path / "folds.csv", read_manifest(demo / "manifest.csv")
    # They replace a split, too.
    clips = tuple(replace(clip, split="train") for clip in listed.clips)
    manifest = rewrite(replace(listed, clips=clips), tmp_path / "m.csv")
    options = ("--folds", 3, "--seed", 5, "--out", folds)
    assert run("mvemo", "manifest", "folds", manifest, *options) == 0
    arguments = (manifest, tmp_path / "w", *ONE_NET, "--folds", folds)
    assert extract(*arguments) == 0
    expected = read_folds(folds, read_manifest(manifest))
    with open_cache(tmp_path / "w" / "features.h5") as cache:
        assert cache.table.folds.tolist() == expected.assignment.tolist()
        assert (cache.table.k, cache.table.fold_seed, cache.table.splits) == (3, -1, None)
        assert cache.table.digest == read_manifest(manifest).digest
        assert cache.provenance["manifest"]["digest"] == read_manifest(manifest).digest
        assert [spec.fold for spec in cache.variants("music1d")] == [0, 1, 2]
        assert cache.provenance["settings"]["extract"]["folds"] == 3
    capsys.readouterr()
    assert extract(*arguments, "--protocol", "holdout") == 2
    assert "the holdout protocol has no folds" in capsys.readouterr().err
    folds.write_text(folds.read_text().rsplit("\n", 2)[0] + "\n")
    assert extract(*arguments) == 2
    assert "use the fold file of these clips" in capsys.readouterr().err
    assert extract(*arguments, "--folds", "none.csv") == 2
    assert "expected a number of folds or a fold file" in capsys.readouterr().err


def test_imported_features_of_clips_that_would_go_are_not_dropped_unasked(demo, tmp_path, capsys):
    listed = read_manifest(demo / "manifest.csv")
    values = np.ones((len(listed), 3), np.float32)
    np.save(tmp_path / "v.npy", values)
    out = tmp_path / "f.h5"
    imported = ["--feature", "theirs", "--modality", "audio", "--manifest", demo / "manifest.csv"]
    assert run("mvemo", "cache", "import", out, tmp_path / "v.npy", *imported) == 0
    part = tuple(clip for clip in listed.clips if clip.label[0] in ("Sad", "Fear"))
    rewrite(replace(listed, classes=("Fear", "Sad"), clips=part), tmp_path / "m.csv")
    assert extract(tmp_path / "m.csv", tmp_path / "w", "--out", out, *ONE_NET) == 2
    removed = len(listed) - len(part)
    assert f"holds imported features of {removed} clips" in refusal(capsys)
    with open_cache(out) as cache:
        assert cache.present("theirs").all()


def test_half_of_the_weights_are_enough_for_a_net_that_is_trained(demo, tmp_path, capsys):
    net = build_net("c3d", 6, width=0.05, size=32, n_frames=4, scale="unit")
    whole = [(name, value.numpy()) for name, value in net.state_dict().items()]
    np.savez(tmp_path / "half.npz", **dict(whole[: len(whole) // 2]))
    options = ("--nets", "c3d", "--weights", f"c3d={tmp_path}/half.npz")
    command = (demo / "manifest.csv", tmp_path / "w", *tiny_settings("nets.c3d.epochs=1"), *options)
    assert extract(*command, "--protocol", "frozen") == 2
    assert "which the frozen protocol" in refusal(capsys)
    # Before anything is decoded.
    assert not (tmp_path / "w" / "decoded").exists()
    assert extract(*command, "--protocol", "crossfit") == 0


def test_a_net_that_diverges_costs_no_feature_of_the_others(demo, tmp_path, monkeypatch, capsys):
    score = trainer.Trainer.score

    def diverge(trainer, rows):
        if trainer.job.label == "music1d@fold1":
            torch.nn.init.constant_(trainer.net.classifier.weight, float("nan"))
        return score(trainer, rows)

    monkeypatch.setattr(trainer.Trainer, "score", diverge)
    settings = tiny_settings("nets.music1d.epochs=1", "nets.c3d.epochs=1")
    features = tmp_path / "features.h5"
    command = (demo / "manifest.csv", tmp_path, *settings)
    assert extract(*command) == 2
    error = refusal(capsys)
    assert error.startswith("mvemo: music1d@fold1: training diverged: no finite loss by epoch 1")
    assert "lower the learning rate with --set nets.music1d.lr=" in error
    assert error.endswith(
        f"leave out these nets with --nets c3d; {features} has the features of c3d, which are "
        "not trained again"
    )
    # The net of fold 0 was finished, but alone it is no feature.
    with open_cache(features) as cache:
        assert "music1d" not in cache.names()
        assert [spec.fold for spec in cache.variants("c3d")] == [0, 1]
        assert "music1d@fold0" not in cache.curves
    assert run("mvemo-cv", features, "--out", tmp_path / "out") == 0

    weights = sorted(tmp_path.glob("nets/c3d-*/weights.pt"))
    times = [path.stat().st_mtime_ns for path in weights]
    assert len(weights) == 2
    assert extract(*command, "--nets", "c3d") == 0
    monkeypatch.undo()
    assert extract(*command) == 0
    assert [path.stat().st_mtime_ns for path in weights] == times
    with open_cache(features) as cache:
        assert [spec.fold for spec in cache.variants("music1d")] == [0, 1]
    assert verify_cache(features) == []


def test_where_every_net_diverges_all_are_named(demo, tmp_path, monkeypatch, capsys):
    def diverge(trainer, rows):
        torch.nn.init.constant_(trainer.net.classifier.weight, float("nan"))
        return float("nan"), 0.0

    monkeypatch.setattr(trainer.Trainer, "score", diverge)
    assert extract(demo / "manifest.csv", tmp_path, *tiny_settings()) == 2
    error = refusal(capsys)
    assert "music1d@fold0: training diverged" in error
    assert "c3d@fold0: training diverged" in error
    assert "--nets" not in error
    # Nothing of it is kept as if it were trained.
    assert not list(tmp_path.glob("nets/*/weights.pt"))


def test_rows_of_an_unfinished_run_are_not_dropped_without_a_word(tmp_path, capsys, monkeypatch):
    one, two = wav_set(tmp_path / "one", "one"), wav_set(tmp_path / "two", "two")

    def cut_off(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # Descriptors are committed by then.
        patch.setattr("mvemo.pipeline.stage_one.steps.write_nets", cut_off)
        assert extract(one, tmp_path, *ONE_NET) == 130
    out = tmp_path / "features.h5"
    assert not out.exists()
    shards = sorted((tmp_path / "features.h5.parts").glob("*.h5"))
    assert shards
    assert extract(two, tmp_path, *ONE_NET) == 2
    line = refusal(capsys)
    assert "an interrupted run of other clips ('m') left features of 4 clips there" in line
    assert sorted((tmp_path / "features.h5.parts").glob("*.h5")) == shards
    lines = one.read_text().splitlines()
    one.write_text("\n".join([*lines[:-1], "other,3.wav,calm,3"]))
    assert extract(one, tmp_path, *ONE_NET) == 0
    assert "features of 1 clips of the interrupted run are dropped" in capsys.readouterr().err


def test_clips_that_failed_are_tried_again_where_that_is_asked_for(tmp_path, capsys, monkeypatch):
    arguments = (wav_set(tmp_path / "set", "clip"), tmp_path, *ONE_NET, "--strict")
    monkeypatch.setattr("mvemo.pipeline.stage_one.steps.write_nets", lambda *_: [])
    assert extract(*arguments) == 0
    # As a decoder leaves it that crashed on the first clip.
    capsys.readouterr()
    folder = next((tmp_path / "decoded").rglob("16000-23.npy")).parent
    for array in folder.glob("*.npy"):
        array.unlink()
    write_problems(folder, {"audio": MediaProblem("it crashes its decoder (SIGSEGV)")})
    (tmp_path / FINISHED).unlink()
    assert "time" in json.loads((folder / "problems.json").read_text())["audio"]
    assert extract(*arguments) == 1
    assert "decode:audio: it crashes its decoder (SIGSEGV)" in capsys.readouterr().out
    assert extract(*arguments, "--retry-failed") == 0
    assert extract(*arguments) == 0


def test_another_level_of_sound_is_told_and_read_again(tmp_path, capsys):
    arguments = (wav_set(tmp_path / "set", "clip"), tmp_path, *ONE_NET)
    assert extract(*arguments, "--set", "extract.level=0") == 0
    capsys.readouterr()
    assert extract(*arguments) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "extract.level" in line]
    assert line.endswith("run again with -23 LUFS")
    with open_cache(tmp_path / "features.h5") as cache:
        assert {spec.params["level"] for spec in cache.specs if "level" in spec.params} == {-23.0}
    assert extract(*arguments) == 0
    assert "extract.level" not in capsys.readouterr().err

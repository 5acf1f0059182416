"""J22's way end to end: songs cut to segments, one split, whole songs decided."""

import csv
import json

import numpy as np
import pytest
import soundfile
from stage_samples import run, set_options

from mvemo.cache import open_cache, verify_cache
from mvemo.fuse.songs import RULES
from mvemo.manifests import read_manifest, song_of
from mvemo.pipeline.commands.fuse import SONG_RULES

SONGS = 20
SETTINGS = set_options(
    *('extract.nets="music1d"', "extract.workers=1", "extract.descriptors=[]"),
    "extract.level=0",  # classes differ in loudness
    *("nets.music1d.width=0.2", "nets.music1d.iterations=60", "nets.music1d.patience=0"),
    *("nets.music1d.batch_size=8", "nets.music1d.lr=0.01"),
    "nets.music1d.options={seconds=0.5}",
)


@pytest.fixture(scope="module")
def segmented(tmp_path_factory):
    """Manifest of segments of twenty songs: noise of two loudnesses."""
    folder = tmp_path_factory.mktemp("songs")
    rng = np.random.default_rng(0)
    lines = ["path,label,group"]
    for i in range(SONGS):
        label, loudness = ("anger", 0.3) if i % 2 else ("calm", 0.02)
        y = loudness * rng.normal(size=24000).clip(-3, 3)
        soundfile.write(folder / f"{i}.wav", y, 16000)
        lines.append(f"{i}.wav,{label},song {i}")
    (folder / "m.csv").write_text("\n".join(lines))
    command = ["manifest", "segment", folder / "m.csv", "--seconds", "0.5"]
    assert run("mvemo", *command, "--out", folder / "s.csv") == 0
    return folder / "s.csv"


@pytest.fixture(scope="module")
def features(segmented, tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    command = ["extract", segmented, "--work", work, "--protocol", "holdout"]
    assert run("mvemo", *command, *SETTINGS) == 0
    return work / "features.h5"


def test_one_net_is_trained_on_training_clips_alone(features, segmented):
    assert verify_cache(features) == []
    with open_cache(features) as cache:
        table, (spec,) = cache.table, cache.variants("music1d")
        assert (spec.protocol, spec.fold, table.k) == ("holdout", None, 0)
        assert table.splits is not None
        assert np.bincount(table.splits, minlength=3).tolist() == [42, 12, 6]
        seen = {c for c, s in zip(table.clip_ids, table.splits, strict=True) if s < 2}
        assert set(spec.trained_on) == seen
        # Each song is on one side.
        sides = set(zip(map(song_of, table.clip_ids), table.splits.tolist(), strict=True))
        assert len(sides) == len({song for song, _ in sides}) == SONGS
        assert cache.vectors("music1d")[1].all()
        curve = cache.curves["music1d@holdout"]
        assert curve["iteration"][-1] == 60.0
        assert np.isfinite(curve["val_loss"]).all()
    assert len(read_manifest(segmented)) == 60


def test_segments_and_songs_are_scored_on_the_test_clips(features, tmp_path, capsys):
    assert run("mvemo-cv", features, "--out", tmp_path / "a", "--protocol", "holdout") == 0
    assert "nets trained on other clips" in " ".join(capsys.readouterr().out.split())
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert (metrics["protocol"], metrics["folds"], metrics["leaky"]) == ("holdout", 1, False)
    model = metrics["models"]["music1d"]
    assert np.sum(model["confusion"]) == 6
    assert model["accuracy"]["per_fold"] == [model["accuracy"]["mean"]]
    assert model["accuracy"]["mean"] == 1.0
    for rule in SONG_RULES:
        out = tmp_path / rule
        command = ["fuse", features, "--out", out, "--song-level", "--song-rule", rule]
        assert run("mvemo", *command) == 0
        songs = json.loads((out / "metrics.json").read_text())
        assert songs["clips"] == SONGS
        assert np.sum(songs["models"]["music1d"]["confusion"]) == 2
        assert songs["models"]["music1d"]["accuracy"]["mean"] == 1.0
        assert songs["provenance"]["songs"]["rule"] == rule
        with (out / "predictions.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert all("@" not in row["clip_id"] for row in rows)
        assert (out / "heads.npz").exists()
    assert SONG_RULES == RULES


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--folds", "3"], "trained for one split of the clips (holdout), not for folds"),
        (["--protocol", "crossfit"], "expected features of protocol crossfit, got holdout"),
        (["--repeats", "2"], "its clips have one fixed split"),
        (
            ["--song-level", "--learning-curve"],
            "--learning-curve scores segments, --song-level songs",
        ),
    ],
)
def test_what_one_split_cannot_give_is_one_line(features, tmp_path, options, said, program):
    error = program("mvemo-cv", features, "--out", tmp_path, *options, ends=2).err.strip()
    assert said in error
    assert len(error.splitlines()) == 1

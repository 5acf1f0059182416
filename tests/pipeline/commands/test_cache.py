"""The commands of `mvemo cache`, run in process."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from stage_samples import invoke

from mvemo.cache import BadCache, CacheWriter, ClipTable, FeatureSpec, open_cache
from mvemo.manifests.errors import BadOption, MissingFile
from mvemo.pipeline.commands.cache import cache

CLIPS = ClipTable(
    name="sample",
    task="multiclass",
    classes=("calm", "tense"),
    clip_ids=tuple("abcd"),
    groups=tuple("gghh"),
    labels=np.array([0, 1, 0, 1]),
    folds=np.array([0, 0, 1, 1]),
    k=2,
    fold_seed=7,
    digest="d" * 64,
    synthetic=True,
)
MEL = FeatureSpec("mel", "audio", "sequence", 2, "mel", 3, {"n_mels": 2})
NET = FeatureSpec("c3d", "video", "vector", 2, "net:c3d", 1, {}, "w", "crossfit", 0, ("c", "d"))
NETS = [NET, replace(NET, fold=1, weights="v", trained_on=("a", "b"))]


run = partial(invoke, cache)


def refused(*arguments):
    """The message, of one line, of a command that is refused."""
    error = run(*arguments, ends=1).exception
    assert isinstance(error, (BadCache, BadOption, MissingFile))
    assert "\n" not in str(error)
    return str(error)


def write(path, clips="abc"):
    facts = {"command": "mvemo extract x.csv", "versions": {"python": "3.11"}}
    with CacheWriter(path, CLIPS, provenance=facts) as writer:
        for clip in clips:
            writer.put(MEL, clip, MEL.key(clip), np.full((2, 2), ord(clip), np.float32))
            for spec in NETS:
                writer.put(spec, clip, spec.key(clip), np.full(2, ord(clip), np.float32))
        writer.fail("d", "decode:video", "no video stream")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "features.h5"
    write(path)
    return path


def test_a_folder_of_shards(path, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    write(folder / "0.h5", "ab")
    write(folder / "1.h5", "c")
    one, other = (run("info", source).stdout.splitlines() for source in (path, folder))
    assert one[1:] == other[1:]
    assert one[0].split()[-1] == other[0].split()[-1]
    assert run("verify", folder).stdout == f"{folder}: no problems\n"
    run("diff", path, folder)
    run("export", folder, "--feature", "mel", "--out", tmp_path / "x.csv")
    run("merge", folder, "--out", tmp_path / "merged.h5")
    assert "cannot be changed" in refused("remove", folder, "mel")


def test_info(path):
    shown = run("info", path, "--provenance", "--failures").stdout
    with open_cache(path) as held:
        assert shown.startswith(f"{path}: schema 2, ")
        assert shown.splitlines()[0].endswith(held.digest()[:16])
        (failure,) = held.failures
    assert failure.time.endswith("+00:00")
    cells = ["d   ", "decode:video", failure.time, failure.version, "no video stream"]
    for line in (
        "sample: 4 synthetic clips in 2 groups, 2 folds (seed 7)",
        "c3d      video vector    2    net:c3d 1  crossfit  0,1    3 of 4",
        "  1 x decode:video: no video stream (d)",
        "command: mvemo extract x.csv",
        "versions: python 3.11",
        "  ".join(cells),
    ):
        assert line in shown.splitlines()
    assert '"python": "3.11"' in shown


def test_verify_and_repair(path):
    assert run("verify", path).stdout == f"{path}: no problems\n"
    assert run("repair", path).stdout == f"{path}: nothing to repair\n"
    data = bytearray(path.read_bytes())
    data[data.index(np.full((2, 2), ord("b"), np.float32).tobytes())] ^= 1
    path.write_bytes(data)
    message = f"{path}: mel of clip 'b': the values do not match their checksum\n"
    assert run("verify", path, ends=1).stderr == message
    assert "mel of clip 'b' is corrupt" in run("repair", path).stdout
    run("verify", path)
    assert "1 x cache:mel: " in run("info", path).stdout


def test_merge(path, tmp_path):
    write(tmp_path / "other.h5", clips="bd")
    out = tmp_path / "merged.h5"
    assert "4 of 4" in run("merge", path, tmp_path / "other.h5", "--out", out).stdout
    assert open_cache(out).present("c3d", 1).all()
    assert "--force" in refused("merge", path, "--out", out)
    run("merge", path, "--out", out, "--force")


def test_export(path, tmp_path):
    out = tmp_path / "c3d.csv"
    run("export", path, "--feature", "c3d", "--fold", 1, "--out", out)
    assert out.read_text().splitlines()[1:] == ["a,97,97", "b,98,98", "c,99,99", "d,,"]
    refused("export", path, "--feature", "c3d", "--fold", 1, "--out", out)


def test_import_without_media(tmp_path):
    listed = tmp_path / "clips.csv"
    listed.write_text("clip_id,path,label,group\na,a.mp4,x,g\nb,b.mp4,y,g\nc,c.mp4,x,h\n")
    np.save(tmp_path / "train.npy", [[1.0, 2.0], [3.0, 4.0]])
    np.save(tmp_path / "val.npy", [[9.0, 9.0], [5.0, np.nan]])
    (tmp_path / "train.csv").write_text("folder/,b\nfolder/,a\n")
    (tmp_path / "val.csv").write_text("folder/,a_PAIR_b\nfolder/,c\n")
    features = tmp_path / "features.h5"
    done = run(
        *("import", features, "--manifest", listed, "--feature", "vggish", "--modality", "audio"),
        *(tmp_path / "train.npy", tmp_path / "val.npy", "--skip-unknown", "--id-column", 2),
        *("--rows", tmp_path / "train.csv", "--rows", tmp_path / "val.csv"),
    )
    assert done.stdout == (
        "vggish: 2 of 3 clips, 2 numbers each; 1 rows with missing numbers were left out; "
        f"1 rows of other clips were left out: {features}\n"
    )
    more = tmp_path / "slow.csv"
    more.write_text("clip_id,p,q,r\nc,1,2,3\n")
    done = run("import", features, more, "--feature", "slow", "--modality", "video")
    with open_cache(features) as held:
        np.testing.assert_array_equal(held.vectors("vggish")[0][:2], [[3, 4], [1, 2]])
        assert held.present("vggish").tolist() == [True, True, False]
        assert held.present("slow").tolist() == [False, False, True]
        assert held.table.groups == ("g", "g", "h")
        assert held.provenance["imported"] == "slow"
        assert held.provenance["history"][0]["imported"] == "vggish"
    for arguments, message in [
        ((tmp_path / "train.npy", "--feature", "x"), "2 rows for 3 clips"),
        ((more, "--feature", "vggish"), "--force"),
        ((tmp_path / "none.npy", "--feature", "x"), "no such file"),
    ]:
        assert message in refused("import", features, *arguments, "--modality", "audio")


def test_upkeep(path, tmp_path):
    slim = tmp_path / "slim.h5"
    assert run("export", path, "--feature", "mel", "--out", slim).stdout == f"mel: {slim}\n"
    done = run("diff", path, slim, ends=1)
    assert done.stdout.splitlines()[0] == "feature c3d@fold0 is only in the first"
    assert run("diff", slim, slim).stdout == "both have the same clips and features\n"

    settings = {"extract": {"nets": [], "descriptors": ["mel"]}}
    with CacheWriter(path, CLIPS, provenance={"settings": settings}) as writer:
        writer.fail("d", "decode:audio", "no stream")
    before = path.read_bytes()
    assert run("gc", path, "--unused", "--dry-run").stdout.splitlines()[0] == "1 feature: c3d"
    assert path.read_bytes() == before
    run("gc", path, "--unused")
    assert run("gc", path, "--unused").stdout == f"{path}: nothing to remove\n"
    clips = tmp_path / "clips.csv"
    clips.write_text("clip_id,path,label\na,a.mp3,calm\nb,b.mp3,tense\n")
    assert "2 clips: c, d" in run("gc", path, "--manifest", clips).stdout
    refused("remove", path, "c3d")
    refused("gc", slim, "--unused")
    assert "none.h5" in refused("info", tmp_path / "none.h5")


def test_export_of_several_features_needs_a_cache(path, tmp_path):
    command = ["export", path, "--feature", "mel", "--feature", "c3d", "--out"]
    assert "give a .h5 file for several" in refused(*command, tmp_path / "a.npz")
    run(*command, tmp_path / "a.h5")
    assert "cache remove" in refused(*command, path, "--force")


def test_import_names_columns_ids_and_predicted_labels(tmp_path):
    manifest = tmp_path / "clips.csv"
    rows = "Train/Sad/1.mp4,m/late,sad,1,,\nTrain/Sad/2.mp4,m/late,calm,1,,\n"
    manifest.write_text(f"path,model,label,confidence,notes,error\n{rows}")
    table, out = tmp_path / "wide.csv", tmp_path / "new.h5"
    table.write_text("Class,artist,track,f1,f2\nx,y,1.mp4,0.5,1\nx,z,2.mp4,1.5,2\n")
    command = ["import", out, table, "--manifest", manifest, "--feature", "emb", "--modality", "x"]
    assert "column 'artist' holds text, such as 'y'" in refused(*command)
    assert "such as 'y'; its ids look like 'Train/Sad/1'" in refused(
        *command, "--column", "clip_id=artist", "--columns", "f*"
    )
    for option, value in (("--columns", "f*"), ("--skip-columns", "Class,artist")):
        done = run(*command, "--column", "clip_id=track", option, value, "--force")
        assert "clip ids: column 'clip_id' without folder; numbers: f1 f2" in done.stderr
    with open_cache(out) as features:
        assert features.vectors("emb")[0].tolist() == [[0.5, 1.0], [1.5, 2.0]]
        assert features.table.predicted_by == "m"


def test_the_task_of_a_manifest_with_classes_and_ratings_is_chosen(tmp_path):
    manifest, table, out = (tmp_path / name for name in ("clips.csv", "x.csv", "x.h5"))
    manifest.write_text("clip_id,label,valence,arousal\na,x,1,2\nb,y,3,4\nc,x,5,6\n")
    table.write_text("clip_id,f\na,1\nb,3\nc,2\n")
    words = ["--manifest", manifest, "--feature", "f", "--modality", "audio"]
    for task, classes in (("multiclass", ("x", "y")), ("regression", ("valence", "arousal"))):
        out.unlink(missing_ok=True)
        run("import", out, table, *words, "--task", task)
        with open_cache(out) as made:
            assert (made.table.task, made.table.classes) == (task, classes)

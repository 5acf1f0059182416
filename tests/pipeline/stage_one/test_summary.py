"""A run that is finished: the same command is known again, and any change is noticed."""

import os

import pytest

from mvemo.manifests import Clip, Manifest, write_manifest
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.stage_one.summary import FINISHED, ExtractSummary, RepeatableRun

FAILURE = ("b", "decode:audio", "empty")
OPTIONS = {"profile": "paper", "folds": None, "overrides": ("extract.folds=2",), "columns": {}}


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"1")
    return load_settings("paper", [f"nets.i3d.weights='{tmp_path / 'weights.npz'}'"])


@pytest.fixture
def summary(tmp_path):
    """Summary of two clips, one of which failed, with their files and all that a run writes."""
    for name in ("a.wav", "b.wav", "features.h5"):
        (tmp_path / name).write_bytes(name.encode())
    clips = (Clip("a", "a.wav", ("x",), "a"), Clip("b", "b.wav", ("y",), "b"))
    manifest = Manifest("two", "multiclass", ("x", "y"), clips, tmp_path)
    write_manifest(manifest, tmp_path / "m.csv")
    return ExtractSummary(
        tmp_path / "features.h5",
        2,
        ("i3d",),
        failures=(FAILURE,),
        missing=(("a", "video", "no video stream"),),
        notes=("clips are long",),
        work=tmp_path,
        settled=True,
    )


def repeatable(folder, **options):
    options = {**OPTIONS, **options}
    return RepeatableRun(options, folder / "m.csv", folder, folder / "features.h5")


def test_the_same_command_has_the_same_summary(tmp_path, settings, summary, monkeypatch):
    assert repeatable(tmp_path).recall() is None
    repeatable(tmp_path).keep(settings, summary, ["as a note"])
    finished = repeatable(tmp_path).recall()
    assert finished == (summary, ("as a note",))
    assert repeatable(tmp_path, jobs=1).recall() == finished
    # Several processes leave out notes on single clips, and --workers has a note of its own.
    assert repeatable(tmp_path, jobs=2).recall() is None
    assert repeatable(tmp_path, workers=50).recall() is None
    repeatable(tmp_path, jobs=2).keep(settings, summary, ["as a note"])
    assert repeatable(tmp_path, jobs=4).recall() == finished
    repeatable(tmp_path).keep(settings, summary, ["as a note"])
    assert repeatable(tmp_path, overrides=("extract.folds=3",)).recall() is None
    assert repeatable(tmp_path, columns={"label": "label"}).recall() is None
    monkeypatch.setattr("mvemo.pipeline.stage_one.summary.versions", lambda: {"av": "99"})
    assert repeatable(tmp_path).recall() is None


def replace_unseen(folder):
    """Replace a file by another of the same size and time of change, as programs set it."""
    before = (folder / "a.wav").stat()
    (folder / "new").write_bytes(b"A.wav")
    os.replace(folder / "new", folder / "a.wav")
    os.utime(folder / "a.wav", ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES = {
    "a file in the place of another": replace_unseen,
    "a clip": lambda folder: (folder / "a.wav").write_bytes(b"A.wav"),
    "a clip that is gone": lambda folder: (folder / "b.wav").unlink(),
    "the manifest": lambda folder: (folder / "m.csv").write_text(
        (folder / "m.csv").read_text().replace("two", "2")
    ),
    "weights": lambda folder: (folder / "weights.npz").write_bytes(b"2"),
    "the features": lambda folder: (folder / "features.h5").write_bytes(b"other"),
    "no features": lambda folder: (folder / "features.h5").unlink(),
    "folds": lambda folder: (folder / "folds.csv").write_text("clip_id,fold\n"),
    "a run that was cut off": lambda folder: (folder / "features.h5.parts").mkdir(),
    "no JSON": lambda folder: (folder / FINISHED).write_text("{"),
    "JSON of another kind": lambda folder: (folder / FINISHED).write_text("[1]"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_whatever_changes_is_noticed(change, tmp_path, settings, summary):
    repeatable(tmp_path).keep(settings, summary, [])
    assert repeatable(tmp_path).recall() is not None
    change(tmp_path)
    assert repeatable(tmp_path).recall() is None


def test_a_missing_file_that_appears_is_noticed(tmp_path, settings, summary):
    (tmp_path / "b.wav").unlink()
    repeatable(tmp_path).keep(settings, summary, [])
    assert repeatable(tmp_path).recall() is not None
    (tmp_path / "b.wav").write_bytes(b"b.wav")
    assert repeatable(tmp_path).recall() is None


def test_what_changes_while_a_run_reads_it_is_not_finished(tmp_path, settings, summary):
    began = repeatable(tmp_path)
    (tmp_path / "a.wav").write_bytes(b"A.wav")
    began.keep(settings, summary, [])
    assert not (tmp_path / FINISHED).exists()


def test_weights_that_come_later_are_noticed(tmp_path, summary, monkeypatch):
    monkeypatch.setenv("MVEMO_HOME", str(tmp_path))
    repeatable(tmp_path).keep(load_settings("paper"), summary, [])
    assert repeatable(tmp_path).recall() is not None
    (tmp_path / "weights" / "i3d").mkdir(parents=True)
    (tmp_path / "weights" / "i3d" / "about.json").write_text("{}")
    assert repeatable(tmp_path).recall() is None

"""The corrections file: a manifest at every moment, with a history that restores it."""

import json
from pathlib import Path

import pytest

from mvemo.manifests import BadManifest, check_manifest, read_manifest
from mvemo.pipeline.serve.corrections import Corrections

CLASSES = ("calm", "tense")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abc":
        (tmp_path / f"{name}.mp3").write_bytes(b"x")
    return tmp_path / ".mvemo"


def opened(folder: Path, task: str = "multiclass", classes: tuple[str, ...] = CLASSES, **options):
    return Corrections(folder / "corrections.csv", "songs", task, classes, **options)


def put(kept: Corrections, name: str, label, **facts):
    path = kept.path.parent.parent / f"{name}.mp3"
    return kept.put(path, label, clip_id=name, **facts)


LABELS = [
    ("multiclass", CLASSES, "calm", ("calm",)),
    ("multilabel", CLASSES, ["tense"], ("tense",)),
    ("multilabel", CLASSES, [], ()),
    ("regression", ("valence", "arousal"), {"arousal": 2, "valence": 7.5}, (7.5, 2.0)),
]


@pytest.mark.parametrize(("task", "classes", "label", "parsed"), LABELS)
def test_it_is_a_manifest_after_each_change(folder, task, classes, label, parsed):
    kept = opened(folder, task, classes)
    put(kept, "a", label, annotator="Ana", comment="=too, loud\n", unsure=True, content="f00")
    assert check_manifest(kept.path) == []
    (clip,) = read_manifest(kept.path).clips
    assert clip.label == parsed
    facts = dict(clip.extra)
    assert (facts["annotator"], facts["comment"], facts["unsure"]) == ("Ana", "=too, loud", "1")
    assert opened(folder, task, classes).current == kept.current


def test_undo_goes_back_and_the_history_keeps_all(folder):
    kept = opened(folder)
    put(kept, "a", "calm")
    put(kept, "a", "tense")
    put(kept, "b", "tense")
    assert kept.undo("a").label == ("calm",)
    assert kept.undo("a") is None
    assert kept.undo("a") is None  # nothing is left to undo
    again = opened(folder)
    assert list(again.current) == ["b"]
    assert len(again.history) == 5
    again.undo("b")
    assert not again.path.exists()  # a manifest has at least one clip
    assert opened(folder).current == {}


def test_values_stay_inside_the_scale(folder):
    kept = opened(
        folder, "regression", ("valence", "arousal"), scale={"valence": (1, 9), "arousal": (1, 9)}
    )
    with pytest.raises(BadManifest, match=r"valence 9.5 is outside the scale 1\.\.9"):
        put(kept, "a", {"valence": 9.5, "arousal": 2})
    put(kept, "a", {"valence": 9, "arousal": 2}, comment=" ", group="")
    assert check_manifest(kept.path) == []


@pytest.mark.parametrize(
    ("task", "label"),
    [
        ("multiclass", "joyful"),
        ("multiclass", ["calm"]),
        ("multilabel", "calm"),
        ("multilabel", ["calm", "joyful"]),
        ("regression", {"calm": 1}),
        ("regression", {"calm": 1, "tense": "nan"}),
    ],
)
def test_wrong_labels_are_refused_and_nothing_is_stored(folder, task, label):
    kept = opened(folder, task)
    with pytest.raises(BadManifest, match=r"expected .* calm, tense"):
        put(kept, "a", label)
    assert kept.history == []
    assert not kept.path.exists()


def test_a_broken_file_is_renamed_and_restored(folder):
    kept = opened(folder)
    put(kept, "a", "calm")
    put(kept, "b", "tense")
    text = kept.path.read_text()
    kept.path.write_text(text.replace("b.mp3,tense", "b.mp3,nonsense"))
    again = opened(folder)
    assert again.current == kept.current
    assert "corrections.csv:8: unknown label 'nonsense'" in again.problem
    assert "corrections.csv.broken-1" in again.problem
    assert (folder / "corrections.csv.broken-1").read_text() != text == again.path.read_text()


def test_rows_edited_by_hand_are_kept_with_their_history(folder):
    kept = opened(folder)
    put(kept, "a", "calm")
    put(kept, "b", "tense")
    text = kept.path.read_text().replace("a.mp3,calm", "a.mp3,tense")
    kept.path.write_text("".join(line for line in text.splitlines(True) if "b.mp3" not in line))
    again = opened(folder)
    assert {name: c.label for name, c in again.current.items()} == {"a": ("tense",)}
    assert again.problem == ""
    assert again.undo("a").label == ("calm",)


def test_a_kill_between_the_two_files_loses_nothing(folder):
    kept = opened(folder)
    put(kept, "a", "calm")
    before = kept.path.read_bytes()
    put(kept, "b", "tense")
    kept.path.write_bytes(before)
    with kept.journal.open("a") as file:
        file.write('{"clip_id": "c", "pa')  # an incomplete line
    again = opened(folder)
    assert list(again.current) == ["a", "b"]
    assert "1 incomplete" in again.problem
    put(again, "c", "calm")
    assert [json.loads(x)["clip_id"] for x in again.journal.read_text().splitlines()[-1:]] == ["c"]
    assert list(opened(folder).current) == ["a", "b", "c"]


def test_corrections_of_another_model_are_refused(folder):
    put(opened(folder), "a", "calm")
    with pytest.raises(BadManifest, match="expected multiclass labels happy, sad, got multiclass"):
        opened(folder, classes=("happy", "sad"))
    with pytest.raises(BadManifest, match="another work folder"):
        opened(folder, task="multilabel")


def test_files_of_several_folders_have_their_root_in_common(folder):
    kept = opened(folder)
    put(kept, "a", "calm")
    other = folder.parent / "more" / "d.mp3"
    other.parent.mkdir()
    other.write_bytes(b"x")
    kept.put(other, "tense", clip_id="d")
    assert check_manifest(kept.path) == []
    assert [clip.path for clip in read_manifest(kept.path).clips] == ["a.mp3", "more/d.mp3"]

"""The corrections file: a manifest at every moment, with a history that restores it."""

import json
import os

import pytest

from mvemo.manifests import BadManifest, check_manifest, read_manifest
from mvemo.manifests.errors import DiskFailed
from mvemo.pipeline.desk.serve import corrections
from mvemo.pipeline.desk.serve.corrections import KEPT, Corrections, NotTaken

CLASSES = ("calm", "tense")


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.mp3").write_bytes(b"x")
    return tmp_path / ".mvemo"


def opened(folder, task="multiclass", classes=CLASSES, **options):
    return Corrections(folder / "corrections.csv", "songs", task, classes, **options)


def put(kept, name, label, **facts):
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
    scale = {"valence": (1, 9), "arousal": (1, 9)}
    kept = opened(folder, "regression", tuple(scale), scale=scale)
    with pytest.raises(BadManifest, match=r"valence 9.5 is outside the scale 1\.\.9"):
        put(kept, "a", {"valence": 9.5, "arousal": 2})
    put(kept, "a", {"valence": 9, "arousal": 2}, comment=" ", group="")
    assert check_manifest(kept.path) == []
    assert read_manifest(kept.path).scale == "1..9"


@pytest.mark.parametrize(("key", "most"), [("comment", 10_000), ("annotator", 200)])
def test_a_text_that_is_too_long_is_refused(folder, key, most):
    kept = opened(folder)
    with pytest.raises(BadManifest, match=f"expected at most {most:,} characters"):
        put(kept, "a", "calm", **{key: "x" * (most + 1)})
    put(kept, "a", "calm", **{key: "x" * most})
    assert opened(folder).current == kept.current


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
    assert "corrections.csv:3: unknown label 'nonsense'" in again.problem
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


def test_rows_edited_while_it_runs_are_taken_over_or_refused(folder):
    kept = opened(folder)
    put(kept, "a", "calm")
    seen = kept.etag("a")
    text = kept.path.read_text()
    kept.path.write_text(text.replace("a.mp3,calm", "a.mp3,tense"))
    put(kept, "b", "calm")
    assert {n: c.label[0] for n, c in kept.current.items()} == {"a": "tense", "b": "calm"}
    with pytest.raises(NotTaken, match="another correction was stored meanwhile"):
        put(kept, "a", "calm", seen=seen)
    text = kept.path.read_text()
    wrong = text.replace("a.mp3,tense", "a.mp3,nonsense")
    kept.path.write_text(wrong)
    with pytest.raises(NotTaken, match="nonsense"):
        put(kept, "b", "tense")
    assert kept.path.read_text() == wrong
    kept.path.write_text("".join(x for x in text.splitlines(True) if "b.mp3" not in x))
    put(kept, "a", KEPT, comment="hm")
    assert list(kept.current) == ["a"]


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


def test_a_manifest_that_could_not_be_replaced_undoes_nothing(folder, monkeypatch):
    kept = opened(folder)
    put(kept, "a", "calm")
    old = kept.path.read_bytes()

    def no_space(*args, **options):
        raise OSError("No space left on device")

    with monkeypatch.context() as full:
        full.setattr(corrections, "write_text", no_space)
        put(kept, "b", "tense")
        put(kept, "a", "tense")
        assert "only in corrections-history.jsonl" in kept.unsaved
        with pytest.raises(DiskFailed):
            kept.flush()
    assert kept.path.read_bytes() == old
    assert opened(folder).current == kept.current
    assert {c.clip_id: c.label for c in read_manifest(kept.path).clips} == {
        "a": ("tense",),
        "b": ("tense",),
    }


def test_a_failed_append_leaves_neither_a_change_nor_half_a_line(folder, monkeypatch):
    kept = opened(folder)
    put(kept, "a", "calm")
    before = kept.journal.read_bytes()

    def no_space(file):
        raise OSError(28, "full")

    with monkeypatch.context() as full:
        full.setattr(os, "fsync", no_space)
        with pytest.raises(DiskFailed, match="cannot be written: full"):
            put(kept, "a", "tense")
        with pytest.raises(DiskFailed):
            kept.undo("a")
    assert kept.journal.read_bytes() == before
    assert kept.current["a"].label == ("calm",)
    assert put(kept, "a", "tense").label == ("tense",)
    assert opened(folder).problem == kept.unsaved == ""


def test_the_last_row_that_a_person_removed_stays_removed(folder):
    kept = opened(folder)
    put(kept, "a", "calm")
    before = kept.path.read_bytes()
    put(kept, "b", "tense")
    newer = kept.journal.stat().st_mtime_ns + 10**9
    kept.path.write_bytes(before)  # as it was before the last change, but edited after it
    os.utime(kept.path, ns=(newer, newer))
    assert list(opened(folder).current) == ["a"]


def test_columns_that_a_person_added_are_not_overwritten(folder):
    kept = opened(folder)
    put(kept, "a", "calm")
    head, *rows = kept.path.read_text().rpartition("clip_id,")
    lines = "".join(rows).splitlines()
    text = head + "\n".join([f"{lines[0]},mood 2", *(f"{line},warm" for line in lines[1:])])
    kept.path.write_text(text)
    with pytest.raises(NotTaken, match=r"unknown columns mood 2\. Mend the file"):
        put(kept, "b", "calm")
    assert kept.path.read_text() == text
    assert opened(folder).current == kept.current
    assert kept.path.with_name("corrections.csv.broken-1").read_text() == text


def test_comments_without_a_judgement_survive_a_restart(folder):
    kept = opened(folder)
    put(kept, "a", None, comment="hm")
    put(kept, "b", "calm")
    put(kept, "c", "tense")
    put(kept, "c", KEPT, comment="loud")
    assert put(kept, "c", KEPT, unsure=True).comment == "loud"
    again = opened(folder)
    assert again.current == kept.current
    assert list(again.judged) == ["b", "c"]
    assert again.current["a"].label is None
    assert [clip.clip_id for clip in read_manifest(again.path).clips] == ["b", "c"]
    assert again.undo("a") is None
    assert "label" not in again.record(put(again, "a", None, unsure=True))


def test_a_comment_of_an_earlier_version_does_not_make_the_file_unreadable(folder):
    kept = opened(folder)
    put(kept, "a", "calm", comment="x")
    text = kept.journal.read_text().replace('"comment": "x"', f'"comment": "{"x" * 200_000}"')
    kept.journal.write_text(text)
    kept.path.unlink()
    assert len(opened(folder).current["a"].comment) == 10_000
    assert check_manifest(kept.path) == []


def test_a_correction_takes_the_digest_of_its_file_once_it_is_known(folder):
    kept = opened(folder)
    kept.put(folder / "a.mp3", "calm", clip_id="a")
    kept.put(folder / "b.mp3", "calm", clip_id="b", content="other")
    for place in ("a.mp3", "b.mp3"):
        kept.adopt(f"digest of {place}", folder / place)
    assert opened(folder).key_of("digest of a.mp3") == "a"
    assert opened(folder).key_of("digest of b.mp3") != "b"


def test_a_moved_file_takes_its_correction_along(folder):
    kept = opened(folder / "work")
    for label in ("calm", "tense"):
        kept.put(folder / "a.mp3", label, clip_id="a", content="digest")
    (folder / "new").mkdir()
    moved = folder / "new" / "b.mp3"
    moved.write_bytes(b"")
    kept.adopt("digest", moved)
    for each in (kept, opened(folder / "work")):
        assert each.judged["a"].path == "../new/b.mp3"
        assert each.key_of("digest") == "a"
    # A copy takes nothing, and the former label is one step back.
    kept.adopt("digest", folder / "copy.mp3")
    assert kept.judged["a"].path == "../new/b.mp3"
    assert kept.undo("a").label == ("calm",)

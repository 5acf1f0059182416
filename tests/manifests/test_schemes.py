"""Labels mapped to the papers' classes, and corrections of a person."""

from importlib import resources
from pathlib import Path

import pytest

from mvemo.manifests import (
    SCHEMES,
    BadManifest,
    Clip,
    Manifest,
    apply_scheme,
    find_scheme,
    read_manifest,
    write_manifest,
)
from mvemo.manifests.schemes import format_label, relabel
from mvemo.manifests.text_files import parse_toml

PL20, J22 = SCHEMES["pl20"], SCHEMES["j22"]

# PL20 Table 1 as printed (but for Hate under Sad), spellings of its words, and words of RAVDESS.
WORDS = [
    (PL20, "Exciting", "Happy Fun Love Sexy Joy Pleasure Exciting Adorable Cheerful Surprising"),
    (PL20, "Exciting", "Interest Excited Excitation exciting EXCITED"),
    (PL20, "Fear", "Horror Fear Scary Disgust Terror"),
    (PL20, "Neutral", "Neutral Ecstasy Mellow"),
    (PL20, "Neutral", "Little_Sad little_fearful Little-(Exciting) LITTLE-Relax"),
    (PL20, "Relaxation", "Relaxation Calm Chill Relaxing"),
    (PL20, "Sad", "Sad Depressing Melancholic Sentimental Shameful Distress Anguish"),
    (PL20, "Tension", "Tension Anger Hate Rage RAGE"),
    (PL20, None, "bored"),
    (J22, "anger", "anger angry"),
    (J22, "relaxation", "relaxation calm Quiet"),  # Table 4 calls it quiet
]


def make(*labels, task="multiclass"):
    tags = [label.split(";") if label else [] for label in labels]
    clips = tuple(Clip(str(i), f"{i}.mp4", tuple(t), str(i)) for i, t in enumerate(tags))
    classes = tuple(sorted({name for t in tags for name in t}))
    return Manifest("m", task, classes, clips, Path())  # type: ignore[arg-type]


def test_words_of_classes():
    for scheme, class_name, words in WORDS:
        assert {scheme.class_of(word) for word in words.split()} == {class_name}
        assert scheme.class_of(f" {words.split()[0]} ") == class_name
    text = resources.files("mvemo.manifests").joinpath("schemes.toml").read_text()
    for name in SCHEMES:
        words = [word.lower() for words in parse_toml(text)[name].values() for word in words]
        assert len({*words}) == len(words)


def test_a_word_of_two_classes_is_noted_where_it_is_mapped():
    manifest, notes = apply_scheme(make("Hate", "Happy", "hate"), PL20)
    assert manifest.labels.tolist() == [1, 0, 1]
    note = "PL20's Table 1 has it under Sad as well as under Tension; here it is Tension"
    assert notes[:2] == (f"'Hate' (1 clips): {note}", f"'hate' (1 clips): {note}")


def test_labels_are_replaced_in_the_order_of_the_scheme_and_tags_merged():
    manifest, notes = apply_scheme(make("Rage", "Happy", "Excited", "Horror"), PL20)
    assert manifest.classes == ("Exciting", "Fear", "Tension")
    assert manifest.labels.tolist() == [2, 0, 0, 1]
    assert notes == ("scheme pl20: no clip is in class Neutral, Relaxation, Sad",)
    manifest, _ = apply_scheme(make("Horror;Happy;Fun", "", "Rage", task="multilabel"), PL20)
    assert [clip.label for clip in manifest.clips] == [("Exciting", "Fear"), (), ("Tension",)]


def test_unmapped_labels_are_all_named():
    manifest = make("happy", "fearful", "neutral", "sad", "fearful")
    with pytest.raises(BadManifest, match=r"no class for 'fearful' \(2\), 'neutral' \(1\)"):
        apply_scheme(manifest, J22)
    kept, notes = apply_scheme(manifest, J22, drop_unmapped=True)
    assert kept.clip_ids == ("0", "3")
    assert notes[0].startswith("labels dropped")
    with pytest.raises(BadManifest, match="has no class for any label"):
        apply_scheme(make("x", "y"), J22, drop_unmapped=True)
    with pytest.raises(BadManifest, match="not numbers"):
        apply_scheme(make("0.5", task="regression"), PL20)
    with pytest.raises(BadManifest, match="one of pl20, j22"):
        find_scheme("pl21")


# --- corrections

LABELS = {
    "multiclass": [("calm",), ("tense",), ("calm",)],
    "multilabel": [("calm", "tense"), ("tense",), ()],
    "regression": [(1.0, 2.0), (3.0, 4.0), (5.0, 6.0)],
}


def made(task):
    names = ("valence", "arousal") if task == "regression" else ("calm", "tense")
    clips = tuple(Clip(f"c{i}", "", label, f"g{i}") for i, label in enumerate(LABELS[task]))
    return Manifest("made", task, names, clips, Path())


def corrected(folder, manifest, *rows):
    table = folder / "labels.csv"
    table.write_text("\n".join(["clip_id,label,corrected", *rows, ""]))
    return relabel(manifest, table)


@pytest.mark.parametrize(
    ("task", "cell", "label"),
    [
        ("multiclass", "calm", ("calm",)),
        ("multilabel", "tense; calm", ("calm", "tense")),
        ("multilabel", "[]", ()),
        ("regression", "3;-1.5", (3.0, -1.5)),
    ],
)
def test_a_filled_cell_changes_the_label(tmp_path, task, cell, label):
    manifest = made(task)
    same = format_label(manifest.clips[0].label, task)
    new, n_changed = corrected(tmp_path, manifest, f"c1,x,{cell}", "c2,x,", f"c0,x,{same}")
    assert n_changed == 1
    assert [c.label for c in new.clips] == [manifest.clips[0].label, label, LABELS[task][2]]
    write_manifest(new, tmp_path / "new.csv")
    assert read_manifest(tmp_path / "new.csv", media=False).clips == new.clips


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        ("multiclass", ["c0,x,sad"], r"labels\.csv:2: unknown label 'sad'; expected one of calm"),
        ("multiclass", ["c0,x,", "zz,x,calm"], r"labels\.csv:3: unknown clip 'zz'"),
        ("multiclass", ["c0,x,calm", "c0,x,calm"], r":3: clip 'c0' is corrected twice"),
        ("multiclass", ["c0,calm"], r":2: the row has 2 cells, the header 3"),
        ("regression", ["c0,x,3"], r":2: expected 2 ratings \(valence; arousal\), got '3'"),
        ("regression", ["c0,x,3;nan"], r":2: arousal 'nan' is not a number"),
    ],
)
def test_a_bad_row_is_named(tmp_path, task, rows, message):
    with pytest.raises(BadManifest, match=message) as error:
        corrected(tmp_path, made(task), *rows)
    assert "\n" not in str(error.value)


def test_a_table_without_corrections_is_refused(tmp_path):
    (tmp_path / "other.csv").write_text("clip_id,label\nc0,calm\n")
    with pytest.raises(BadManifest, match="no column 'corrected', only 'clip_id', 'label'"):
        relabel(made("multiclass"), tmp_path / "other.csv")

"""Corrections of a person come back into the manifest."""

from pathlib import Path

import pytest

from mvemo.manifests import BadManifest, Clip, Manifest, read_manifest, write_manifest
from mvemo.manifests.relabel import format_label, relabel

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

"""Corrections of a person come back into the manifest, and annotators' disagreement is a limit."""

from pathlib import Path

import numpy as np
import pytest

from mvemo.manifests import BadManifest, Clip, Manifest, read_manifest, write_manifest
from mvemo.manifests.relabel import format_label, rating_ceilings, relabel

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


def rated(columns=(), n=4000):
    """Ratings by five annotators who deviate by 2 from a mean that deviates by 1."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(n, 1))
    given = truth + 2 * rng.normal(size=(n, 5))
    of_clip = zip(given.mean(axis=1).tolist(), given.std(axis=1, ddof=1).tolist(), strict=True)
    clips = tuple(
        Clip(f"c{i}", "", (mean,), f"g{i}", extra=(("x deviation", f"{s}"), *dict(columns).items()))
        for i, (mean, s) in enumerate(of_clip)
    )
    return Manifest("rated", "regression", ("x",), clips, Path()), truth[:, 0]


def test_the_ceiling_is_what_the_true_mean_scores():
    manifest, truth = rated({"annotators": "5"})
    (ceiling,) = rating_ceilings(manifest)
    y = manifest.labels[:, 0]
    assert ceiling.r2 == pytest.approx(1 - np.mean((y - truth) ** 2) / y.var(), abs=0.02)
    assert ceiling.deviation == pytest.approx(2, rel=0.03)
    assert "with 5 annotators R2 cannot exceed 0.5" in ceiling.sentence()


def test_without_their_number_one_annotators_deviation_is_stated():
    manifest, _ = rated()
    (ceiling,) = rating_ceilings(manifest)
    assert (ceiling.r2, ceiling.annotators) == (None, None)
    assert "1 - 2.2" in ceiling.sentence()
    (given,) = rating_ceilings(manifest, annotators=5)
    assert given.r2 == pytest.approx(1 - ceiling.ratio / 5)
    assert rating_ceilings(made("regression")) == rating_ceilings(made("multiclass")) == []


def test_bad_deviations_are_named():
    clips = (Clip("a", "", (1.0,), "a", extra=(("x deviation", "-1"),)),)
    with pytest.raises(BadManifest, match="x deviation: expected a number from 0 on, got '-1'"):
        rating_ceilings(Manifest("m", "regression", ("x",), clips, Path()))

"""Predictions that are written as JSON and as tables, and read again."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typed_records import misfits

from mvemo.fuse.final.clip_prediction import Caution, ClipPrediction, PredictionRecord
from mvemo.fuse.final.prediction_records import read_predictions, record_rows, records
from mvemo.manifests.tables import CsvWriter

NAMES = ("calm", "sad", "tense")
TASKS = ("multiclass", "multilabel", "regression")
PROBA = st.fixed_dictionaries(dict.fromkeys(NAMES, st.floats(0, 1)))
SHARE = st.none() | st.floats(0, 1)
VALUE = st.fixed_dictionaries({"value": st.floats(-9, 9), "low": SHARE, "high": SHARE})


def model_of(task):
    return SimpleNamespace(
        name="m",
        task=task,
        classes=NAMES,
        coverage=None,
        predictors=(),
        scale={},
        facts={},
        digest="d",
        date="2026",
    )


@st.composite
def clips(draw, task):
    """Draw a prediction of a task, or a clip that was not predicted."""
    path = draw(st.text("ab,; \"'#ö", min_size=1).map(lambda name: f"{name}.mp3"))
    if draw(st.integers(0, 4)) == 0:
        return ClipPrediction(path, error='no; "sound"')
    cautions = tuple(draw(st.lists(st.sampled_from(list(Caution)), unique=True)))
    notes = tuple(caution.text for caution in cautions)
    clip = ClipPrediction(path, "m/x", cautions=cautions, notes=notes)
    clip = replace(clip, doubt=draw(SHARE), unlikeness=draw(SHARE))
    if task == "regression":
        return replace(clip, values={name: draw(VALUE) for name in NAMES})
    label = draw(st.sampled_from(NAMES))
    if task == "multilabel":
        label = tuple(sorted(draw(st.sets(st.sampled_from(NAMES)))))
    confidence = draw(SHARE) if task == "multiclass" else None
    return replace(clip, proba=draw(PROBA), label=label, confidence=confidence)


@pytest.mark.parametrize("suffix", ["json", "jsonl", "csv"])
@pytest.mark.parametrize("task", TASKS)
def test_what_is_written_is_read(task, suffix, tmp_path_factory):
    model, file = model_of(task), tmp_path_factory.mktemp("records") / f"found.{suffix}"

    @settings(max_examples=40, deadline=None)
    @given(st.lists(clips(task), min_size=1, max_size=4))
    def write_and_read(made):
        found = records(model, made)
        assert misfits(found.records(), list[PredictionRecord]) == []
        if suffix == "csv":
            with file.open("w", newline="", encoding="utf-8") as opened:
                CsvWriter(opened).writerows(record_rows(model, found))
        else:
            lines = [json.dumps(record) for record in found]
            text = "\n".join(lines) if suffix == "jsonl" else f"[{','.join(lines)}]"
            file.write_text(text, encoding="utf-8")
        read = list(read_predictions(file))
        assert [clip.moods for clip in read] == [clip.moods for clip in made]
        if task == "multilabel":
            # A table does not tell a single tag from a class.
            read = [replace(r, label=m.label) for r, m in zip(read, made, strict=True)]
        assert read == made

    write_and_read()


def test_a_correction_has_no_probability_of_what_it_replaces():
    clip = ClipPrediction("a", "m/x", {"calm": 0.9, "sad": 0.1}, label="calm", confidence=0.9)
    assert clip.corrected(("sad",)).moods == {"sad": 0.0}
    assert clip.corrected({"valence": 0.5}).moods == {}
    rated = ClipPrediction("a", "m/x", values={"valence": {"value": 1.0}}, quadrant="sad")
    assert replace(rated, confidence=0.8).corrected(("calm",)).moods == {"calm": 0.0}
    assert rated.corrected({"arousal": 0.5}).place == (1.0, 0.5)

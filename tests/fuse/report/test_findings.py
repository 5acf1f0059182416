"""The opening of a page: what fails, which model is meant, and nets that are not the papers'."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fuse_samples import CLASSES, MULTICLASS, make_results
from output_samples import TAGS, output_table

from mvemo.fuse.models import Model
from mvemo.fuse.report.findings import findings
from mvemo.fuse.report.score_tables import folds_table
from mvemo.fuse.report.summary import banners, opening, small_nets
from mvemo.fuse.results import (
    Choice,
    best_model,
    recommended_model,
    score_model,
    twin_of_integrated,
    without_twin,
)
from mvemo.fuse.tasks import task_of


@pytest.fixture(scope="module")
def results():
    return replace(make_results(48, 2, missing=4), curves={})


def with_model(results, outputs, task=MULTICLASS, **changes):
    """The same, of one model with these outputs."""
    changed = replace(results, task=task, **changes)
    one = Model("net", (), ())
    scored = score_model(task, one, outputs, changed.y_true, changed.folds, changed.k)
    return replace(changed, models=(scored,), present={}, failures=())


def test_the_class_that_is_missed_and_the_commonest_mistake(results):
    y = results.y_true
    predicted = np.where(y == 1, 4, y)
    first = int(np.flatnonzero(y == 1)[0])
    predicted[first] = 1
    proba = np.full((len(y), 6), 0.02)
    proba[np.arange(len(y)), predicted] = 0.9
    made = with_model(results, proba)
    n = int((y == 1).sum())
    text = " ".join(findings(made, made.models[0]))
    assert f"net misses Fear most: recall {1 / n:.2f} (1 of {n} clips)" in text
    assert f"take Fear for Sad: {n - 1} of {n} clips, of {n - 1} mistakes in all." in text


@pytest.mark.parametrize(
    ("stated", "words"), [(0.95, "overconfident"), (0.4, "underconfident"), (0.75, "at its word")]
)
def test_confidence_in_words(results, stated, words):
    y = results.y_true
    # Three of four clips are right.
    predicted = np.where(np.arange(len(y)) % 4 == 0, (y + 1) % 6, y)
    proba = np.full((len(y), 6), (1 - stated) / 5)
    proba[np.arange(len(y)), predicted] = stated
    made = with_model(results, proba)
    (sentence,) = [s for s in findings(made, made.models[0]) if "on average it states" in s]
    assert words in sentence
    assert f"states {100 * stated:.0f} %, and is right in 75 %" in sentence


def test_tags_and_targets_say_which_is_worst():
    table = output_table("multilabel", n=60)
    proba = np.where(table.labels == 1, 0.8, 0.2)
    proba[:, 1] = np.linspace(0.2, 0.8, 60)
    base = replace(make_results(60, 2, missing=0), y_true=table.labels, classes=TAGS)
    made = with_model(base, proba, task_of("multilabel"))
    assert "net ranks dark worst (AUC 0." in " ".join(findings(made, made.models[0]))
    table = output_table("regression", n=60)
    values = np.stack([table.labels[:, 0], 0.5 * table.labels[:, 1]], axis=1)
    base = replace(base, y_true=table.labels, classes=("arousal", "valence"))
    made = with_model(base, values, task_of("regression"))
    text = " ".join(findings(made, made.models[0]))
    assert "net predicts valence worst (R2 0." in text
    assert "100 % (arousal), 50 % (valence) of the labels' standard deviation" in text


def test_clips_without_a_prediction_and_failures_are_told(results):
    text = " ".join(findings(results, best_model(results)))
    assert "models could not predict every clip" in text
    assert "(c3d: 4 clips)" in text
    assert "2 clips failed in stage one (" in text
    # Shuffled labels have no class that fails.
    shuffled = replace(results, permuted=True)
    assert "misses" not in " ".join(findings(shuffled, best_model(shuffled)))


def test_the_recommended_model_is_that_of_the_choice(results):
    assert recommended_model(results) is best_model(results)
    other = next(m for m in results.models if m is not best_model(results) and len(m.features) == 2)
    choice = Choice(other.name, (other.name,) * 2, best_model(results))
    chosen = replace(results, choice=choice)
    assert recommended_model(chosen) is other
    found, how, _ = opening(chosen)
    assert found[0].startswith(f"Use {other.name}. Expect")
    assert f"the recommended model, {other.name}, has" in " ".join(how)
    assert f"The highest row is {best_model(results).name} with" in " ".join(how)
    assert recommended_model(replace(chosen, permuted=True)) is best_model(results)


def test_of_two_features_integrated_is_shown_once(results):
    assert twin_of_integrated(results) == ""
    assert without_twin(results) is results
    kept = [m for m in results.models if m.name in ("i3d", "music2d", "i3d+music2d")]
    integrated = replace(kept[-1], name="integrated")
    choice = Choice("integrated", ("integrated", "i3d"), integrated)
    two = replace(results, models=(*kept, integrated), choice=choice)
    shown = without_twin(two)
    assert [m.name for m in shown.models] == [m.name for m in kept]
    assert (shown.choice.model, shown.choice.inside) == ("i3d+music2d", ("i3d+music2d", "i3d"))


def test_a_baseline_inside_the_interval_is_said(results):
    model = best_model(results)
    for low, expected in ((0.01, True), (0.9, False)):
        changed = replace(model, intervals={"accuracy": (low, 1.0)})
        _, how, _ = opening(replace(results, models=(changed,)))
        assert ("nothing shows that it does better" in " ".join(how)) == expected


def test_narrow_nets_are_named_on_top(results):
    assert small_nets(results) == []
    features = {"i3d": [{"width": 0.0625}] * 2, "c3d": [{"width": 1.0}], "lld": [{"width": None}]}
    small = replace(results, provenance={**results.provenance, "features": features})
    (banner,) = banners(small)
    assert banner.title == "SMALL NETS"
    assert banner.text.startswith("i3d (width 0.0625 of 1) is narrower than the published nets")
    # Its outputs are of the same net, and name it no second time.
    again = {**features, "i3d-outputs": [{"width": 0.0625}]}
    twice = replace(results, provenance={"features": again})
    assert small_nets(twice) == ["i3d (width 0.0625 of 1)"]
    alone = {"i3d-outputs": [{"width": 0.0625}]}
    assert small_nets(replace(results, provenance={"features": alone})) == [
        "i3d-outputs (width 0.0625 of 1)"
    ]


def test_folds_of_repeats_are_rows_of_their_own(results):
    few = replace(results, models=results.models[:2])
    twice = [
        replace(m, per_fold={"accuracy": np.tile(m.per_fold["accuracy"], 2)})
        for m in (*few.models, few.baseline)
    ]
    both = replace(few, models=tuple(twice[:2]), baseline=twice[2], repeats=(few, few))
    table = folds_table(both)
    assert [head.title for head in table.head][1:] == ["repeat", "0", "1", "mean"]
    names = [(row[0].text, row[1].text) for row in table.rows]
    assert names == [(m.name, str(r)) for m in few.models for r in range(2)]
    assert len(table.foot) == 2
    # Of many folds each is a row.
    many = make_results(96, 16, missing=0, classes=CLASSES[:2])
    table = folds_table(replace(many, models=many.models[:2]))
    assert len(table.rows) == 16
    assert [head.title for head in table.head][1:] == ["music1d", "music2d", "majority class"]

"""Results: as one line, as a table in notebooks, and the choice of a model."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from feature_samples import crossfit_cache, make_table
from fuse_samples import NASTY, empty_results, make_results, nasty_results

from mvemo.cache import open_cache
from mvemo.fuse import Predictions
from mvemo.fuse.crossval.saving import saved_heads
from mvemo.fuse.models import Model
from mvemo.fuse.results import (
    Choice,
    best_model,
    recommended_model,
    score_model,
    twin_of_integrated,
    without_twin,
)
from mvemo.fuse.tasks import task_of


def test_one_line_whatever_the_size(tmp_path):
    results = make_results(960)
    with open_cache(crossfit_cache(tmp_path / "f.h5", make_table(24, 2))) as cache:
        shown = [repr(cache), repr(cache.table)]
    shown += [repr(results), repr(results.models[0]), repr(saved_heads(results))]
    shown.append(repr(Predictions(("a",), ("c",), ("g",), results.y_true, results.folds, 6, {})))
    for line in shown:
        assert "\n" not in line
        assert len(line) < 200
    best = max(results.models, key=results.primary_mean)
    assert f"best {best.name}: accuracy {results.primary_mean(best):.3f}>" in repr(results)
    assert repr(cache).startswith("<Cache f.h5: 24 clips of 'made', 2 features: c3d, music1d")
    assert "accuracy nan" in repr(empty_results())


def test_a_notebook_gets_a_table_of_escaped_texts(tmp_path):
    results = make_results()
    html = results._repr_html_()
    assert html.count("<tr>") == 1 + len(results.models) + 1
    scores = results.primary_per_fold(results.models[0])
    for value in (scores.min(), scores.mean(), scores.max()):
        assert f"<td>{value:.3f}</td>" in html
    nasty = nasty_results()._repr_html_()
    assert NASTY not in nasty
    assert "<script>" not in nasty
    assert "&lt;script&gt;" in nasty
    pandas = pytest.importorskip("pandas")
    assert list(results.to_pandas()["model"]) == [record["model"] for record in results.records()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, pandas.__name__, None)
        with pytest.raises(ImportError, match="needs pandas: pip install pandas"):
            results.to_pandas()
    assert "<td></td><td></td><td></td>" in empty_results()._repr_html_()
    with open_cache(crossfit_cache(tmp_path / "f.h5", make_table(24, 2))) as cache:
        shown = cache._repr_html_()
    assert "<td>c3d</td><td>video</td><td>vector</td><td>8</td><td>crossfit 2 folds</td>" in shown


def test_of_equally_good_models_the_simplest_is_best():
    results = make_results(24, 2)
    per_fold = {"accuracy": np.array([0.6, 0.6])}
    by_name = {model.name: model for model in results.models}
    names = ("integrated", "i3d+music2d", "i3d")
    equal = tuple(replace(by_name[name], per_fold=per_fold) for name in names)
    assert best_model(replace(results, models=equal)).name == "i3d"
    assert best_model(results, ()) is None


def test_the_recommended_model_is_that_of_the_choice():
    results = make_results(24, 2)
    assert recommended_model(results) is best_model(results)
    other = next(m for m in results.models if m is not best_model(results))
    chosen = replace(results, choice=Choice(other.name, (other.name,) * 2, best_model(results)))
    assert recommended_model(chosen) is other
    assert recommended_model(replace(chosen, permuted=True)) is best_model(results)


def test_of_two_features_integrated_is_shown_once():
    results = make_results(24, 2)
    assert twin_of_integrated(results) == ""
    assert without_twin(results) is results
    kept = [m for m in results.models if m.name in ("i3d", "music2d", "i3d+music2d")]
    integrated = replace(kept[-1], name="integrated")
    choice = Choice("integrated", ("integrated", "i3d"), integrated)
    two = replace(results, models=(*kept, integrated), choice=choice)
    shown = without_twin(two)
    assert [m.name for m in shown.models] == [m.name for m in kept]
    assert (shown.choice.model, shown.choice.inside) == ("i3d+music2d", ("i3d+music2d", "i3d"))


@pytest.mark.parametrize("name", ["multiclass", "multilabel", "regression"])
def test_clips_without_a_prediction_are_left_out_of_all_scores(name):
    rng = np.random.default_rng(0)
    outputs, folds, rows = rng.random((40, 3)), np.arange(40) % 2, np.arange(40) % 5 > 0
    y = rng.integers(3, size=40) if name == "multiclass" else rng.integers(2, size=(40, 3))
    task, net = task_of(name), Model("net", (), ())
    some = score_model(task, net, np.where(rows[:, None], outputs, np.nan), y, folds, 2)
    those = score_model(task, net, outputs[rows], y[rows], folds[rows], 2)
    assert some.scores == those.scores
    assert not some.valid[~rows].any()
    for kind in ("per_fold", "per_output", "per_output_fold"):
        for score, values in getattr(those, kind).items():
            np.testing.assert_array_equal(getattr(some, kind)[score], values)

"""How results and caches show themselves: in one line, and as a table in notebooks."""

from __future__ import annotations

from feature_samples import crossfit_cache, make_table
from fuse_samples import NASTY, empty_results, make_results, nasty_results

from mvemo.cache import open_cache
from mvemo.fuse import Predictions
from mvemo.fuse.crossval.saving import saved_heads


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
    assert "<td></td><td></td><td></td>" in empty_results()._repr_html_()
    with open_cache(crossfit_cache(tmp_path / "f.h5", make_table(24, 2))) as cache:
        shown = cache._repr_html_()
    assert (
        "<tr><td>c3d</td><td>video</td><td>vector</td><td>8</td><td>crossfit 2 folds</td>" in shown
    )

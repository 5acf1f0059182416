"""Tables of the page and of a paper: folds, the hardest clips, the best row in bold."""

from dataclasses import replace

import numpy as np
from fuse_samples import CLASSES, MULTICLASS, make_results

from mvemo.fuse.report.score_tables import folds_table, hard_clips, results_tables
from mvemo.fuse.report.text import interval_text, p_text
from mvemo.fuse.results import best_model


def texts(table):
    return [[cell.text for cell in row] for row in table.rows]


def test_folds_of_repeats_are_rows_of_their_own(results):
    few = replace(results, models=results.models[:2])
    *twice, baseline = (
        replace(m, per_fold={"accuracy": np.tile(m.per_fold["accuracy"], 2)})
        for m in (*few.models, few.baseline)
    )
    table = folds_table(replace(few, models=twice, baseline=baseline, repeats=(few, few)))
    assert [head.title for head in table.columns][1:] == ["repeat", *"012345", "mean"]
    assert [row[:2] for row in texts(table)] == [[m.name, r] for m in few.models for r in "01"]
    assert len(table.foot) == 2
    # Of many folds each is a row.
    many = make_results(96, 16, missing=0, classes=CLASSES[:2])
    table = folds_table(replace(many, models=many.models[:2]))
    assert len(table.rows) == 16
    assert [head.title for head in table.columns][1:] == ["music1d", "music2d", "majority class"]


def test_a_papers_row_has_the_mean_its_interval_and_the_corrected_test(uncertain):
    (table,) = results_tables(uncertain)
    caption = table.title
    rows = {row[0].text: row for row in (*table.rows, *table.foot)}
    mean = [head.title for head in table.columns].index("mean")
    key, top = uncertain.task.primary_interval[0], best_model(uncertain)
    for model in uncertain.models:
        cell = rows[model.name][mean]
        assert cell.text == f"{100 * uncertain.primary_mean(model):.1f}"
        assert cell.below == interval_text(model.intervals[key], in_percent=True)
        assert cell.strong == (model is top)
    tests = {name: row[-1].text for name, row in rows.items() if row[-1].text}
    assert tests == {c.model: p_text(c.p_holm) for c in uncertain.comparisons}
    assert "in brackets: 95 % interval" in caption
    assert "F1 (published, other data)" in [column.marked for column in table.columns]
    (table,) = results_tables(replace(uncertain, synthetic=True))
    assert table.title.startswith("SYNTHETIC DATA: ")


def test_most_often_wrong_by_hand():
    made = make_results(24, 2, missing=0)
    proba = np.eye(6)[made.y_true] * 0.5 + 0.5 / 6
    proba[7] = np.eye(6)[made.y_true[7]] * 0.4 + 0.1
    wrong = proba.copy()
    wrong[[3, 5, 7]] = np.eye(6)[(made.y_true[[3, 5, 7]] + [1, 2, 3]) % 6]
    missing = wrong.copy()
    missing[3] = np.nan
    models = tuple(
        replace(m, outputs=p, y_pred=MULTICLASS.decide(p))
        for m, p in zip(made.models[:3], (wrong, missing, proba), strict=True)
    )
    changed = replace(made, models=models)
    clips, groups = hard_clips(changed, best_model(changed))
    rows = texts(clips)
    # Of equally many mistakes, the clip whose truth is less probable comes first.
    assert [row[0] for row in rows] == [made.clip_ids[i] for i in (7, 5, 3)]
    assert [(row[4], row[5]) for row in rows] == [("2", "3"), ("2", "3"), ("1", "2")]
    assert rows[1][3] == made.classes[(made.y_true[5] + 2) % 6]
    assert rows[1][1] == made.groups[5]
    assert rows[2][6] == f"{(0.5 + 0.5 / 6) / 2:.2f}"
    assert models[1].y_pred[3] == -1
    # Two clips a group: 2 of 6 and 1 of 5 predictions are wrong.
    shares = [[made.groups[i], "2", share] for i, share in ((5, "33.3"), (7, "33.3"), (3, "20.0"))]
    assert texts(groups) == shares


def test_nothing_is_listed_where_all_is_right():
    made = make_results(24, 2, missing=0)
    model = replace(made.models[0], outputs=np.eye(6)[made.y_true], y_pred=made.y_true)
    changed = replace(made, models=(model,))
    assert list(map(len, hard_clips(changed, model))) == [0, 0]

"""The clips and groups that models do worst on, by hand."""

import dataclasses

import numpy as np
from fuse_samples import MULTICLASS, make_results

from mvemo.fuse.report.score_tables import hard_clips
from mvemo.fuse.results import best_model


def test_most_often_wrong_by_hand():
    made = make_results(24, 2, missing=0)
    proba = np.eye(6)[made.y_true] * 0.5 + 0.5 / 6
    wrong = proba.copy()
    wrong[3] = np.eye(6)[(made.y_true[3] + 1) % 6]
    wrong[5] = np.eye(6)[(made.y_true[5] + 2) % 6]
    missing = wrong.copy()
    missing[3] = np.nan
    models = tuple(
        dataclasses.replace(m, outputs=p, y_pred=MULTICLASS.decide(p))
        for m, p in zip(made.models[:3], (wrong, missing, proba), strict=True)
    )
    changed = dataclasses.replace(made, models=models)
    clips, groups = hard_clips(changed, best_model(changed))
    rows = [[cell.text for cell in row] for row in clips.table.rows]
    assert [row[0] for row in rows] == [made.clip_ids[5], made.clip_ids[3]]
    assert [(row[4], row[5]) for row in rows] == [("2", "3"), ("1", "2")]
    assert rows[0][3] == made.classes[(made.y_true[5] + 2) % 6]
    assert rows[0][1] == made.groups[5]
    assert rows[1][6] == f"{(0.5 + 0.5 / 6) / 2:.2f}"
    assert models[1].y_pred[3] == -1
    # Two clips a group: 2 of 6 and 1 of 5 predictions are wrong.
    listed = [[cell.text for cell in row] for row in groups.table.rows]
    assert listed == [[made.groups[5], "2", "33.3"], [made.groups[3], "2", "20.0"]]


def test_nothing_is_listed_where_all_is_right():
    made = make_results(24, 2, missing=0)
    proba = np.eye(6)[made.y_true]
    model = dataclasses.replace(made.models[0], outputs=proba, y_pred=made.y_true)
    changed = dataclasses.replace(made, models=(model,))
    assert [listing.table for listing in hard_clips(changed, model)] == [None, None]
    assert [listing.table for listing in hard_clips(changed, None)] == [None, None]

"""Clips and groups with the worst predictions; `Task.hard_clips` names how they are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.report.tables import ID, NUMBER, TEXT, Cell, Head, Table, table
from mvemo.fuse.report.text import fraction, percent
from mvemo.fuse.results import ModelResult, Results

N_CLIPS, N_GROUPS = 20, 15


@dataclass(frozen=True)
class Listing:
    """A table with a heading and a note; `table` is None if there is nothing to list."""

    title: str
    note: str
    table: Table | None


def hard_clips(results: Results, best: ModelResult | None) -> tuple[Listing, Listing]:
    """List the worst clips and the worst groups; `best` is None if no model predicted."""
    if best is None:
        return Listing("Hard clips", "", None), Listing("Hard groups", "", None)
    return LISTINGS[results.task.hard_clips](results, best)


def most_often_wrong(results: Results, best: ModelResult) -> tuple[Listing, Listing]:
    """Rank clips by the share of wrong models, then by the mean probability of the truth."""
    y_pred = np.stack([model.y_pred for model in results.models])
    valid = np.stack([model.valid for model in results.models])
    wrong = valid & (y_pred != results.y_true)
    rows = np.arange(len(results.y_true))
    truth = np.stack([model.outputs[rows, results.y_true] for model in results.models])
    n_valid, n_wrong = valid.sum(axis=0), wrong.sum(axis=0)
    share = n_wrong / np.maximum(n_valid, 1)
    mean = np.where(valid, np.nan_to_num(truth), 0.0).sum(axis=0) / np.maximum(n_valid, 1)
    order = [int(i) for i in np.lexsort((rows, mean, -share)) if n_wrong[i]]
    listed: list[list[str | Cell]] = []
    for i in order[:N_CLIPS]:
        votes = Counter(y_pred[wrong[:, i], i].tolist())
        # Ties go to the first class, so that equal results give equal pages.
        taken = min(votes, key=lambda c: (-votes[c], c))
        listed.append(
            [
                _linked(results, i),
                results.groups[i],
                results.classes[int(results.y_true[i])],
                results.classes[taken],
                str(int(n_wrong[i])),
                str(int(n_valid[i])),
                fraction(float(mean[i]), 2),
            ]
        )
    head = [Head("clip", ID), Head("group", ID), Head("true", TEXT)]
    head += [Head("mostly taken for", TEXT), Head("models wrong"), Head("of")]
    head.append(Head("mean probability of the truth"))
    clips = Listing(
        "Clips most often wrong",
        "Over all models; of equals, the one whose true class was given the lower probability "
        "comes first. A clip that every model gets wrong may be mislabelled.",
        table(head, listed) if listed else None,
    )
    groups = Listing(
        "Groups most often wrong",
        "Of two clips or more: share of wrong predictions over all models.",
        _groups(results, n_wrong, n_valid, "wrong, %", percent),
    )
    return clips, groups


def furthest_off(results: Results, best: ModelResult) -> tuple[Listing, Listing]:
    """Rank clips by the distance of the best model's predictions from the labels."""
    task = results.task
    errors = task.clip_errors(results.y_true, best.outputs)
    rows = np.flatnonzero(np.isfinite(errors))
    worst = rows[np.argsort(-errors[rows], kind="stable")[:N_CLIPS]]
    true = task.label_texts(results.classes, results.y_true[worst])
    predicted = task.label_texts(results.classes, best.y_pred[worst])
    listed: list[list[str | Cell]] = [
        [_linked(results, i), results.groups[i], y, p, fraction(float(errors[i]), 2)]
        for i, y, p in zip(worst.tolist(), true, predicted, strict=True)
    ]
    head = [Head("clip", ID), Head("group", ID), Head("true", TEXT), Head("predicted", TEXT)]
    head.append(Head(task.error_title, NUMBER))
    clips = Listing(
        f"Clips furthest off: {best.name}",
        f"{task.error_note} Wrong labels and damaged clips collect here.",
        table(head, listed) if listed else None,
    )
    valid = np.isfinite(errors)
    groups = Listing(
        f"Groups furthest off: {best.name}",
        "Of two clips or more: mean of the same over the group's clips.",
        _groups(
            results,
            np.where(valid, errors, 0.0),
            valid,
            task.error_title,
            lambda value: fraction(value, 2),
        ),
    )
    return clips, groups


LISTINGS: Mapping[str, Callable[[Results, ModelResult], tuple[Listing, Listing]]] = {
    "most_often_wrong": most_often_wrong,
    "furthest_off": furthest_off,
}


def _linked(results: Results, row: int) -> Cell:
    """Return a clip's id, linked to its file if that is known."""
    clip_id = results.clip_ids[row]
    return Cell(clip_id, link=results.media.get(clip_id, ""))


def _groups(
    results: Results,
    amount: NDArray[Any],
    weight: NDArray[Any],
    title: str,
    text: Callable[[float], str],
) -> Table | None:
    """List groups of at least two clips by their weighted mean amount, largest first."""
    names, code = np.unique(np.array(results.groups, dtype=np.str_), return_inverse=True)
    clips = np.bincount(code)
    total, weights = np.bincount(code, weights=amount), np.bincount(code, weights=weight)
    mean = total / np.maximum(weights, 1)
    order = [i for i in np.lexsort((-clips, -mean)) if clips[i] > 1 and total[i] > 0]
    rows = [[str(names[i]), str(int(clips[i])), text(float(mean[i]))] for i in order[:N_GROUPS]]
    return table([Head("group", ID), Head("clips"), Head(title)], rows) if rows else None

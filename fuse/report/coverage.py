"""Coverage of the recommended model's prediction sets, for metrics.json, page and terminal."""

from typing import Any

import numpy as np

from mvemo.fuse.bootstrap import resample_groups
from mvemo.fuse.conformal import cross_conformal
from mvemo.fuse.intervals import score_interval
from mvemo.fuse.numeric import ratio
from mvemo.fuse.report.text import Table, fraction, interval_text, percent, table
from mvemo.fuse.results import Results, recommended_model

ASKED = 0.9
N_RESAMPLES = 1000


def coverage_facts(results: Results, *, intervals: bool = True) -> dict[str, Any] | None:
    """Return how often sets at a coverage of 90 % hold the truth, as JSON values, or None.

    Shares and sizes are over all clips and for each output: a class's own clips, the clips with a
    tag, or a target's ratings. The size of an interval is its width. Without `intervals` nothing
    is resampled, and all intervals are None.
    """
    model = recommended_model(results)
    if model is None:
        return None
    task, valid, names = results.task, model.valid, results.classes
    y_true, groups = results.y_true[valid], np.array(results.groups)[valid].tolist()
    outputs, folds = model.outputs[valid], results.folds[valid]
    found = cross_conformal(y_true, outputs, folds, groups, task.link, ASKED)
    # The first column is of all clips, the others of one output each.
    if task.link == "identity":
        mask, hits = np.ones_like(found.covered, dtype=bool), found.covered
        size = np.column_stack([np.full(len(y_true), np.nan), found.size])
        total = found.covered.mean(axis=1)
    else:
        mask, hits = task.indicators(y_true, len(names)), found.sets
        size, total = np.repeat(found.size[:, None], len(names) + 1, axis=1), found.covered
    mask = np.column_stack([np.ones(len(y_true), dtype=bool), mask])
    hits = np.column_stack([total, hits]) * mask
    values = np.concatenate([hits, np.where(mask, size, 0.0), mask], axis=1).astype(np.float64)
    share, mean, n = np.split(values.sum(axis=0), 3)
    ends: dict[int, tuple[float, float]] = {}
    if intervals and results.has_intervals:
        resamples = resample_groups(groups, N_RESAMPLES)
        drawn = resamples.sums(np.delete(values, np.s_[len(n) : 2 * len(n)], axis=1))
        drawn_share = ratio(*np.split(drawn, 2, axis=1))
        for i, (rows, of_output) in enumerate(zip(mask.T, drawn_share.T, strict=True)):
            ends[i] = score_interval("share", of_output, resamples, rows)
    columns = [
        {"share": s, "interval": ends.get(i), "size": m}
        for i, (s, m) in enumerate(zip(ratio(share, n), ratio(mean, n), strict=True))
    ]
    per_output = dict(zip(names, columns[1:], strict=True))
    return {"model": model.name, "asked": ASKED, **columns[0], "per_output": per_output}


def coverage_sentence(results: Results, facts: dict[str, Any] | None) -> str:
    """Return a sentence on the facts of `coverage_facts`; '' without a model."""
    if facts is None:
        return ""
    asked, got, model = percent(ASKED, 0), percent(facts["share"]), facts["model"]
    if results.task.link == "identity":
        return (
            f"Intervals at a coverage of {asked} %: those of {model} hold {got} % of the ratings."
        )
    nouns, n = results.task.output_nouns[1], len(results.classes)
    truth = "the true class" if results.task.link == "softmax" else "all tags"
    return (
        f"Sets of {nouns} at a coverage of {asked} %: those of {model} hold {truth} of {got} % of "
        f"the clips, with {facts['size']:.2f} of {n} {nouns} on average."
    )


def coverage_table(results: Results, facts: dict[str, Any] | None) -> Table:
    """Return the facts of `coverage_facts` for each class, tag or target, and for all clips."""
    one, many = results.task.output_nouns
    rating = results.task.link == "identity"
    size = "width" if rating else f"{many} in a set"
    rows = []
    if facts is not None:
        for name, values in {**facts["per_output"], "all": facts}.items():
            ends = interval_text(values["interval"], in_percent=True)
            rows.append([name, percent(values["share"]), ends, fraction(values["size"], 2)])
    return table([one, "covered, %", "95 %", size], rows, n_foot=bool(rows))

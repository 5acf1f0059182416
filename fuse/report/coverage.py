"""Coverage of the recommended model's prediction sets, for metrics.json, page and terminal."""

from typing import Any

import numpy as np

from mvemo.fuse.bootstrap import resample_groups, score_interval
from mvemo.fuse.conformal import OPTIONS, Coverage, cross_conformal, few_groups_warning
from mvemo.fuse.numeric import ratio
from mvemo.fuse.report.tables import Table, table
from mvemo.fuse.report.text import fraction, interval_text, percent
from mvemo.fuse.results import Results, recommended_model
from mvemo.manifests.array_types import F64, Bools

ASKED = 0.9
N_RESAMPLES = 1000


def coverage_facts(results: Results, *, intervals: bool = True) -> dict[str, Any] | None:
    """Return how often sets at a coverage of 90 % hold the truth, as JSON values, or None.

    Shares and sizes are over all clips and for each output: a class's own clips, the clips with a
    tag, or a target's ratings. The size of an interval is its width. ``optional`` has the same of
    the sets with ``option``. Without `intervals` nothing is resampled, and all intervals are None.
    """
    model = recommended_model(results)
    if model is None:
        return None
    task, valid, names = results.task, model.valid, results.classes
    y_true, groups = results.y_true[valid], np.array(results.groups)[valid].tolist()
    known = y_true, model.outputs[valid], results.folds[valid], groups, task.link, ASKED
    usual, optional = (cross_conformal(*known, one) for one in (False, True))
    # The first column is of all clips, the others of one output each.
    mask = np.ones(usual.sets.shape, dtype=bool)
    if task.link != "identity":
        mask = task.indicators(y_true, len(names)).astype(bool)
    mask = np.column_stack([np.ones(len(y_true), dtype=bool), mask])
    values = _hits_and_sizes(usual, mask)
    share, mean, n = np.split(values.sum(axis=0), 3)
    ends: dict[int, tuple[float, float]] = {}
    if intervals and results.has_intervals:
        resamples = resample_groups(groups, N_RESAMPLES)
        drawn = resamples.sums(np.delete(values, np.s_[len(n) : 2 * len(n)], axis=1))
        drawn_share = ratio(*np.split(drawn, 2, axis=1))
        for i, (rows, of_output) in enumerate(zip(mask.T, drawn_share.T, strict=True)):
            ends[i] = score_interval("share", of_output, resamples, rows)
    other_share, other_mean, _ = np.split(_hits_and_sizes(optional, mask).sum(axis=0), 3)
    at_once = None
    if task.link == "identity":
        other_share[0] = optional.covered.all(axis=1).sum()
        at_once = usual.covered.all(axis=1).mean()
    sums = (share, mean, other_share, other_mean)
    columns = [
        {"share": s, "interval": ends.get(i), "size": m, "optional": {"share": o, "size": w}}
        for i, (s, m, o, w) in enumerate(zip(*(ratio(x, n) for x in sums), strict=True))
    ]
    return {
        "model": model.name,
        "asked": ASKED,
        "groups": len(set(groups)),
        **columns[0],
        "all_at_once": at_once,
        "option": OPTIONS[task.link],
        "per_output": dict(zip(names, columns[1:], strict=True)),
    }


def _hits_and_sizes(found: Coverage, mask: Bools) -> F64:
    """Return hits, sizes and `mask` next to each other, float64 (clips, 3 * columns of `mask`)."""
    if found.sets.dtype.kind == "f":
        hits = np.column_stack([found.covered.mean(axis=1), found.covered])
        size = np.column_stack([np.full(len(mask), np.nan), found.size])
    else:
        hits = np.column_stack([found.covered, found.sets])
        size = np.repeat(found.size[:, None], mask.shape[1], axis=1)
    values = np.concatenate([hits * mask, np.where(mask, size, 0.0), mask], axis=1)
    return values.astype(np.float64)


def coverage_sentence(results: Results, facts: dict[str, Any] | None) -> str:
    """Return sentences on the facts of `coverage_facts`; '' without a model."""
    if facts is None:
        return ""
    asked, got, model = percent(ASKED, 0), percent(facts["share"]), facts["model"]
    task, n, option = results.task, len(results.classes), facts["option"]
    other, rating = facts["optional"], task.link == "identity"
    kind, nouns = "intervals" if rating else "sets", task.output_nouns[1]
    if rating:
        text = f"Intervals at a coverage of {asked} %: those of {model} hold {got} % of the ratings"
        text += ", each rating by itself." if n > 1 else "."
        if n > 1:
            text += (
                f" They hold all ratings at once of {percent(facts['all_at_once'])} % of the "
                f"clips; with {option}, of {percent(other['share'])} %."
            )
    else:
        truth = "the true class" if task.link == "softmax" else "all tags at once"
        default, alone = (_range(facts, one) for one in (False, True))
        text = (
            f"Sets of {nouns} at a coverage of {asked} %: those of {model} hold {truth} of {got} % "
            f"of the clips, with {facts['size']:.2f} of {n} {nouns} on average. Of the clips of "
            f"single {nouns} they hold {default} %; with {option}, {alone} %, and "
            f"{other['size']:.2f} {nouns} on average."
        )
    few = few_groups_warning(kind, facts["groups"])
    return f"{text} {few[:1].upper()}{few[1:]}." if few else text


def _range(facts: dict[str, Any], optional: bool) -> str:
    """Return the smallest and the largest share of an output that is covered, in percent."""
    outputs = facts["per_output"].values()
    shares = [(values["optional"] if optional else values)["share"] for values in outputs]
    return f"{percent(np.nanmin(shares))} to {percent(np.nanmax(shares))}"


def coverage_table(results: Results, facts: dict[str, Any] | None) -> Table:
    """Return the facts of `coverage_facts` for each class, tag or target, and for all clips."""
    one, many = results.task.output_nouns
    rating = results.task.link == "identity"
    size = "width" if rating else f"{many} in a set"
    rows = []
    if facts is not None:
        for name, values in {**facts["per_output"], "all": facts}.items():
            ends = interval_text(values["interval"], in_percent=True)
            other = values["optional"]
            shown = [fraction(values["size"], 2), percent(other["share"])]
            rows.append([name, percent(values["share"]), ends, *shown, fraction(other["size"], 2)])
        if facts["all_at_once"] is not None and len(results.classes) > 1:
            # A target's share, and that of all targets at once, are of other clips with --jointly.
            once = rows[-1][4]
            rows[-1][4] = "n/a"
            rows.append(["all at once", percent(facts["all_at_once"]), "", "n/a", once, "n/a"])
    option = OPTIONS[results.task.link]
    header = [one, "covered, %", "95 %", size, f"{option}, %", size]
    return table(header, rows, n_foot=len(rows) - len(results.classes) if rows else 0)

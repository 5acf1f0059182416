"""Terminal table of one evaluation, laid out like PL20 Table 3."""

from __future__ import annotations

from mvemo.fuse.metrics.averages import spread
from mvemo.fuse.report.published import LABEL, Published, published_beside, sentence_beside
from mvemo.fuse.report.summary import (
    banners,
    compare_best,
    describe,
    recommend,
    scaling_notes,
    scoring_note,
)
from mvemo.fuse.report.text import (
    WIDTH,
    clean,
    columns,
    count,
    fraction,
    interval_text,
    percent,
    score_text,
    wrap,
)
from mvemo.fuse.results import ModelResult, Results, recommended_model, without_twin


def format_table(results: Results) -> str:
    """Return the scores of all models and of the baseline as text for a terminal.

    The table shows the minimum, mean and maximum of the primary metric over folds, and the
    other scores of the task; warnings come before it, missing predictions and failures after it.

    Parameters
    ----------
    results
        Results of `mvemo.fuse.evaluate`.
    """
    results, note = without_twin(results), scoring_note(results)
    lines = [wrap(f"{b.title}: {b.text}", mark="! ") for b in banners(results)]
    lines += [wrap(f"{clean(results.name)}: {describe(results)}"), ""]
    beside = published_beside(results)
    with_interval = _table(results, beside, interval=True)
    fits = max(map(len, with_interval)) <= WIDTH
    lines += [*(with_interval if fits else _table(results, beside, interval=False)), ""]

    task, model = results.task, recommended_model(results)
    key, what = task.primary_interval
    if model is not None and interval_text(model.intervals.get(key)):
        if fits:
            note += f" 95 %: interval of {what} over groups."
        else:
            ends = interval_text(model.intervals[key], in_percent=task.in_percent)
            note += f" 95 % interval of {what}, {clean(model.name)}: {ends} (over groups)."
    sentences = [note, f"* {LABEL}: PL20 Tables 2 and 3." if beside else ""]
    sentences += [sentence_beside(results), "" if results.permuted else compare_best(results)]
    sentences += [*scaling_notes(results), *_footnotes(results)]
    lines += [wrap(clean(sentence)) for sentence in sentences if sentence]
    if advice := recommend(results):
        lines += ["", wrap(clean(advice))]
    return "\n".join(lines)


def _table(results: Results, beside: dict[str, Published], *, interval: bool) -> list[str]:
    task, n_tested = results.task, int(results.tested.sum())
    shown = [column for column in task.columns(results.classes) if column.terminal]
    key = task.primary_interval[0]
    interval = interval and any(key in model.intervals for model in results.models)
    partial = results.partly_predicted
    unit = " %" if task.in_percent else ""
    header = [f"min{unit}", f"mean{unit}", f"max{unit}", *(["95 %"] if interval else [])]
    header = ["model", *header, *(clean(column.title) for column in shown)]
    header += [*(["clips"] if partial else []), *(["paper %*"] if beside else [])]

    def row(model: ModelResult, *, baseline: bool = False) -> list[str]:
        cells = [score_text(task, value) for value in spread(results.primary_per_fold(model))]
        if interval:
            cells.append(interval_text(model.intervals.get(key), in_percent=task.in_percent))
        scored = not baseline or task.baseline_scored
        cells += [fraction(model.value_of(column)) if scored else "" for column in shown]
        if partial:
            cells.append("" if baseline else f"{int(model.valid.sum())}/{n_tested}")
        if beside:
            cells.append(percent(beside[model.name].accuracy) if model.name in beside else "")
        return [clean(model.name), *cells]

    body = [header, *(row(model) for model in results.models)]
    return columns(body, [row(results.baseline, baseline=True)])


def _footnotes(results: Results) -> list[str]:
    """Return sentences on missing features, clips without a trained head, and failed clips."""
    tested = results.tested
    missing = {name: int((~present[tested]).sum()) for name, present in results.present.items()}
    without = ", ".join(f"{name} {n}" for name, n in missing.items() if n)
    untrained = ", ".join(f"{m.name} {m.n_untrained}" for m in results.models if m.n_untrained)
    failed = len({clip_id for clip_id, _, _ in results.failures})
    return [
        f"Tested clips without a feature: {without} of {int(tested.sum())}." if without else "",
        (
            "Clips that no head could be trained for, as their training folds have too few clips "
            f"{results.task.too_few}: {untrained}."
            if untrained
            else ""
        ),
        (
            f"{count(len(results.failures), 'failure')} of {count(failed, 'clip')} in stage one; "
            "the report lists them."
            if failed
            else ""
        ),
    ]

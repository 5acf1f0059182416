"""Terminal table of one evaluation, laid out like PL20 Table 3."""

from __future__ import annotations

from mvemo.fuse.report.banners import banners
from mvemo.fuse.report.published import LABEL, Published, published_beside, sentence_beside
from mvemo.fuse.report.shown import recommended, without_twin
from mvemo.fuse.report.summary import (
    compare_best,
    describe,
    recommend,
    scaling_notes,
    scoring_note,
    spread,
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
from mvemo.fuse.results import ModelResult, Results


def format_table(results: Results) -> str:
    """Return the scores of all models and of the baseline as text for a terminal.

    The table shows the minimum, mean and maximum of the primary metric over folds, and the
    other scores of the task. Warnings come before it; missing predictions and failures come
    after it. With the papers' model names a line has at most 79 columns.

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

    task, model = results.task, recommended(results)
    key, what = task.primary_interval
    if model is not None and interval_text(model.intervals.get(key)):
        if fits:
            note += f" 95 %: interval of {what} over groups."
        else:
            ends = interval_text(model.intervals[key], in_percent=task.in_percent)
            note += f" 95 % interval of {what}, {clean(model.name)}: {ends} (over groups)."
    lines.append(wrap(note))
    if beside:
        lines.append(wrap(f"* {LABEL}: PL20 Tables 2 and 3."))
    sentences = [sentence_beside(results), "" if results.permuted else compare_best(results)]
    lines += [wrap(clean(sentence)) for sentence in sentences if sentence]
    lines += [wrap(clean(note)) for note in scaling_notes(results)]
    advice = recommend(results)
    last = ["", wrap(clean(advice))] if advice else []
    return "\n".join([*lines, *footnotes(results), *last])


def _table(results: Results, beside: dict[str, Published], *, interval: bool) -> list[str]:
    task, n_tested = results.task, int(results.tested.sum())
    shown = [column for column in task.columns(results.classes) if column.terminal]
    key = task.primary_interval[0]
    interval = interval and any(key in model.intervals for model in results.models)
    partial = any(not model.valid[results.tested].all() for model in results.models)
    unit = " %" if task.in_percent else ""
    header = [f"min{unit}", f"mean{unit}", f"max{unit}", *(["95 %"] if interval else [])]
    header = ["model", *header, *(clean(column.title) for column in shown)]
    header += [*(["clips"] if partial else []), *(["paper %*"] if beside else [])]

    def row(model: ModelResult, *, baseline: bool = False) -> list[str]:
        scores = spread(results.primary_per_fold(model))
        cells = [score_text(task, value) for value in (scores.min, scores.mean, scores.max)]
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


def footnotes(results: Results) -> list[str]:
    """Return lines on missing features, clips without a trained head, and failed clips."""
    lines = []
    tested = results.tested
    missing = {name: int((~present[tested]).sum()) for name, present in results.present.items()}
    if any(missing.values()):
        listed = ", ".join(f"{clean(name)} {n}" for name, n in missing.items() if n)
        lines.append(wrap(f"Tested clips without a feature: {listed} of {int(tested.sum())}."))
    untrained = {m.name: m.n_untrained for m in results.models if m.n_untrained}
    if untrained:
        listed = ", ".join(f"{clean(name)} {n}" for name, n in untrained.items())
        lines.append(
            wrap(
                "Clips that no head could be trained for, as their training folds have too few "
                f"clips {results.task.too_few}: {listed}."
            )
        )
    if results.failures:
        clips = len({clip_id for clip_id, _, _ in results.failures})
        lines.append(
            wrap(
                f"{count(len(results.failures), 'failure')} of {count(clips, 'clip')} in stage "
                "one; the report lists them."
            )
        )
    return lines

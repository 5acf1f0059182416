"""The terminal's table of scores, with the sentences around it."""

from collections.abc import Sequence
from itertools import chain

from mvemo.fuse.report import findings, published, score_tables, summary, tables
from mvemo.fuse.report.text import WIDTH, columns, count, fraction, primary_interval_text, wrap
from mvemo.fuse.results import Results, recommended_model, without_twin
from mvemo.fuse.tasks.base import ScoreColumn
from mvemo.manifests.text_table import escaped


def format_table(results: Results) -> str:
    """Return the scores of all models and of the baseline as text for a terminal.

    The table shows the minimum, mean and maximum of the primary metric over folds, and the
    other scores of the task; warnings come before it, missing predictions and failures after it.

    Parameters
    ----------
    results
        Results of `mvemo.fuse.evaluate`.
    """
    results, note = without_twin(results), summary.scoring_note(results)
    lines = [wrap(f"{b.title}: {b.text}", mark="! ") for b in findings.banners(results)]
    lines += [wrap(f"{escaped(results.name)}: {summary.describe(results)}"), ""]
    rows, fits, dropped = _widest_table(results)
    lines += [*rows, ""]

    task, model = results.task, recommended_model(results)
    if model is not None and dropped:
        others = (f"{c.title} {fraction(model.value_of(c))}" for c in dropped)
        note += f" {model.name} also has {', '.join(others)}."
    ends, what = model and primary_interval_text(task, model), task.primary_interval[1]
    if model is not None and ends:
        of_model = f"{what}, {escaped(model.name)}: {ends} (over groups)."
        note += (
            f" 95 %: interval of {what} over groups." if fits else f" 95 % interval of {of_model}"
        )
    sentences = [
        note,
        f"* {tables.LABEL}: PL20 Tables 2 and 3." * bool(published.published_beside(results)),
    ]
    sentences += [published.sentence_beside(results)]
    sentences += ["" if results.permuted else summary.compare_best(results)]
    sentences += [
        findings.coverage_sentence(results, findings.coverage_facts(results, intervals=False))
    ]
    sentences += [*summary.scaling_notes(results), *_footnotes(results)]
    lines += [wrap(escaped(sentence)) for sentence in sentences if sentence]
    for sentence in filter(None, (summary.recommend(results), summary.against_chance(results))):
        lines += ["", wrap(escaped(sentence))]
    return "\n".join(lines)


def _widest_table(results: Results) -> tuple[list[str], bool, list[ScoreColumn]]:
    """Return the lines that fit, True if they have intervals, and the columns left out."""
    by_output: dict[object, list[ScoreColumn]] = {}
    known = results.task.columns(results.classes)
    for column in known:
        if column.terminal:
            key = column.title if column.output is None else column.output
            by_output.setdefault(key, []).append(column)
    # The scores of one target share a column.
    every = [*by_output.values()]
    layouts = [(every, True), (every, False)]
    if any(len(of) > 1 for of in every):
        mean = [c for c in known if c.score == results.task.field_score[0]]
        layouts += [([mean], True), ([mean], False)] if mean else []
    for shown, interval in layouts:
        rows = _table(results, shown, interval=interval)
        if max(map(len, rows)) <= WIDTH:
            break
    left_out = [c for of in every for c in of if c not in [*chain.from_iterable(shown)]]
    return rows, interval, left_out


def _table(
    results: Results, shown: Sequence[Sequence[ScoreColumn]], *, interval: bool
) -> list[str]:
    """Return the lines of the page's table with some of its columns."""
    task, whole = results.task, score_tables.scores_table(results, None)
    at = {column.title: i for i, column in reversed([*enumerate(whole.columns)])}
    interval &= any(primary_interval_text(task, model) for model in results.models)
    titles = [", ".join([of[0].title, *(c.title.split()[0] for c in of[1:])]) for of in shown]
    header = ["model", *(title + " %" * task.in_percent for title in ("min", "mean", "max"))]
    header += [*["95 %"] * interval, *map(escaped, titles)]
    paper = "accuracy, %" in at
    header += [*["clips"] * results.partly_predicted, *["paper %*"] * paper]

    def line(row: Sequence[tables.Cell]) -> list[str]:
        cells = [escaped(row[0].text), *(row[at[title]].text for title in ("min", "mean", "max"))]
        cells += [row[at["mean"]].below] * interval
        cells += [_joined([row[at[c.title]] for c in of]) for of in shown]
        if results.partly_predicted:
            n_predicted = row[at["clips"]].text
            cells.append(f"{n_predicted}/{results.tested.sum()}" if n_predicted else "")
        return [*cells, *[row[at["accuracy, %"]].text for _ in range(paper)]]

    return columns([header, *map(line, whole.rows)], [*map(line, whole.foot)])


def _joined(cells: Sequence[tables.Cell]) -> str:
    """Return the scores of one cell as text; all scores after the first have two digits."""
    first, *others = cells
    values = (cell.value for cell in others)
    shown = [fraction(float(value), 2) if isinstance(value, float) else "n/a" for value in values]
    return ", ".join([first.text, *shown]) if first.text else ""


def _footnotes(results: Results) -> list[str]:
    """Return sentences on missing features, clips without a trained head, and failed clips."""
    without = ", ".join(f"{name} {n}" for name, n in findings.missing_features(results).items())
    untrained = ", ".join(f"{m.name} {m.n_untrained}" for m in results.models if m.n_untrained)
    failed = len({clip_id for clip_id, _, _ in results.failures})
    n_failures, n_tested = count(len(results.failures), "failure"), int(results.tested.sum())
    few = "Clips that no head could be trained for, as their training folds have too few clips"
    of = f"{n_failures} of {count(failed, 'clip')} in stage one; the report lists them."
    return [
        f"Tested clips without a feature: {without} of {n_tested}." * bool(without),
        f"{few} {results.task.too_few}: {untrained}." * bool(untrained),
        of * bool(failed),
    ]

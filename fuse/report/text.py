"""The terminal's table of one evaluation, laid out like PL20 Table 3."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from mvemo.fuse.report.published import LABEL, comparable, published_for
from mvemo.fuse.report.summary import (
    banners,
    compare_fusion,
    count,
    describe,
    fraction,
    over_folds,
    percent,
    spread,
)
from mvemo.fuse.report.trust import interval_text
from mvemo.fuse.results import Results
from mvemo.manifests.text_table import align_columns

_WIDTH = 79


def format_table(results: Results) -> str:
    """The scores of all models as text, at most 79 columns for the papers' model names.

    Minimum, mean and maximum over folds of the accuracy, macro F1 of the pooled
    predictions, and the mean over folds of the macro one-vs-rest ROC-AUC; the majority
    baseline; warnings first, missing predictions and failures last.
    """
    lines = [wrap(f"{b.title}: {b.text}", mark="! ") for b in banners(results)]
    lines.append(wrap(f"{clean(results.name)}: {describe(results)}"))
    lines.append("")

    n_clips = len(results.clip_ids)
    predicted = [int((m.y_pred >= 0).sum()) for m in results.models]
    # Published figures beside shuffled labels would only mislead.
    beside = comparable(results.classes) and not results.permuted
    sure = any(interval_text(model) for model in results.models)
    header = ["model", "min %", "mean %", "max %", *(["95 %"] if sure else []), "F1", "AUC"]
    if any(n < n_clips for n in predicted):
        header.append("clips")
    if beside:
        header.append("paper %*")
    rows = []
    for model, n in zip(results.models, predicted, strict=True):
        held = spread(results.primary_per_fold(model))
        row = [
            clean(model.name),
            *(percent(v) for v in (held.min, held.mean, held.max)),
            *([interval_text(model)] if sure else []),
            fraction(model.scores["f1_macro"]),
            fraction(model.scores["roc_auc_macro_ovr"]),
        ]
        if "clips" in header:
            row.append(f"{n}/{n_clips}")
        if beside:
            known = published_for(model.name)
            row.append(percent(known.accuracy) if known else "")
        rows.append(row)
    base = spread(results.primary_per_fold(results.baseline))
    baseline = ["majority class", *(percent(v) for v in (base.min, base.mean, base.max))]
    baseline += [""] * (len(header) - len(baseline))
    lines += columns([header, *rows], [baseline])
    lines.append("")

    lines.append(
        wrap(
            f"min, mean, max: accuracy over {over_folds(results)}. "
            + ("95 %: of the pooled accuracy, from resampled groups. " if sure else "")
            + "F1: macro, pooled. AUC: macro one-vs-rest, mean over folds."
        )
    )
    if beside:
        lines.append(wrap(f"* {LABEL}: PL20 Tables 2 and 3."))
    statement = "" if results.permuted else compare_fusion(results)
    if statement:
        lines.append(wrap(statement))
    return "\n".join([*lines, *footnotes(results)])


def footnotes(results: Results) -> list[str]:
    """What is missing, and what failed in stage one."""
    lines = []
    absent = {name: n for name, n in results.missing.items() if n}
    if absent:
        listed = ", ".join(f"{clean(name)} {n}" for name, n in absent.items())
        lines.append(wrap(f"Clips without a feature: {listed} of {len(results.clip_ids)}."))
    if results.failures:
        clips = len({clip_id for clip_id, _, _ in results.failures})
        lines.append(
            wrap(
                f"{count(len(results.failures), 'failure')} of {count(clips, 'clip')} in stage "
                "one; the report lists them."
            )
        )
    return lines


def columns(body: Sequence[Sequence[str]], foot: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, all others to the right; rules around the body."""
    lines = align_columns([*body, *foot])
    rule = "-" * max(map(len, lines))
    return [lines[0], rule, *lines[1 : len(body)], rule, *lines[len(body) :]]


def wrap(text: str, mark: str = "") -> str:
    """Lines of the table's width, each after `mark`."""
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=mark,
        subsequent_indent=mark,
        break_on_hyphens=False,
        break_long_words=False,
    )


def clean(text: str) -> str:
    """Without control characters, which could drive the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)

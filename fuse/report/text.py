"""Text formatting: numbers as text, lines of 79 columns, and plain tables."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from mvemo.fuse.tasks.base import Task
from mvemo.manifests.text_table import align_columns

WIDTH = 79


# --- numbers


def percent(value: float, digits: int = 1) -> str:
    """Format a fraction as a percentage without the % sign; ``n/a`` for NaN.

    Examples
    --------
    >>> percent(0.7186), percent(float("nan"))
    ('71.9', 'n/a')
    """
    return f"{100.0 * value:.{digits}f}" if np.isfinite(value) else "n/a"


def fraction(value: float, digits: int = 3) -> str:
    """Format a score; ``n/a`` for NaN, and no minus sign before zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}" if np.isfinite(value) else "n/a"


def score_text(task: Task, value: float, sign: str = "") -> str:
    """Format a primary metric, or with ``sign="+"`` a difference of two, in the task's unit.

    Examples
    --------
    >>> from mvemo.fuse.tasks import task_of
    >>> score_text(task_of("multiclass"), 0.7186), score_text(task_of("regression"), 0.05, "+")
    ('71.9', '+0.050')
    """
    if not np.isfinite(value):
        return "n/a"
    digits, factor = (1, 100.0) if task.in_percent else (3, 1.0)
    return f"{round(factor * value, digits) + 0.0:{sign}.{digits}f}"


def interval_text(ends: tuple[float, float] | None, *, in_percent: bool = False) -> str:
    """Format a 95 % interval as ``63-81`` (percent) or as fractions; '' if there is none."""
    if ends is None or not np.isfinite(ends).all():
        return ""
    if in_percent:
        return f"{100 * ends[0]:.0f}-{100 * ends[1]:.0f}"
    return f"{fraction(ends[0])} to {fraction(ends[1])}"


def difference_text(task: Task, ends: tuple[float, float]) -> str:
    """Format the interval of a difference of the primary metric; '' if there is none."""
    if not np.isfinite(ends).all():
        return ""
    return f"{score_text(task, ends[0], '+')} to {score_text(task, ends[1], '+')}"


def p_text(p: float) -> str:
    """Format a p-value for a table."""
    if not np.isfinite(p):
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(n: int, one: str, many: str | None = None) -> str:
    """Format a number with its noun.

    Examples
    --------
    >>> count(1, "clip"), count(2, "clip"), count(3, "class", "classes")
    ('1 clip', '2 clips', '3 classes')
    """
    return f"{n} {one}" if n == 1 else f"{n} {many or one + 's'}"


# --- lines


def columns(
    body: Sequence[Sequence[str]], foot: Sequence[Sequence[str]] = (), *, left: int = 1
) -> list[str]:
    """Return the lines of a table, with rules around its body; the header is `body[0]`.

    The first `left` columns are aligned to the left. Rows of `foot` come below a second rule.
    """
    lines = align_columns([*body, *foot], left=range(left))
    rule = "-" * max(map(len, lines))
    table = [lines[0], rule, *lines[1 : len(body)]]
    return [*table, rule, *lines[len(body) :]] if foot else table


def wrap(text: str, mark: str = "") -> str:
    """Wrap text to the terminal's width, with `mark` at the start of each line."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=mark,
        subsequent_indent=mark,
        break_on_hyphens=False,
        break_long_words=False,
    )


def clean(text: str) -> str:
    """Replace control characters, which could drive the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)

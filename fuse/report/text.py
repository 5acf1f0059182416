"""Numbers as text, and text for a terminal: lines of 79 columns and plain tables."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import numpy as np

from mvemo.fuse.tasks.base import Task
from mvemo.manifests.text_table import align_columns

WIDTH = 79


# --- numbers


def percent(value: float, digits: int = 1) -> str:
    """A fraction as a percentage without its sign; ``n/a`` for NaN.

    Examples
    --------
    >>> percent(0.7186), percent(float("nan"))
    ('71.9', 'n/a')
    """
    return f"{100.0 * value:.{digits}f}" if np.isfinite(value) else "n/a"


def fraction(value: float, digits: int = 3) -> str:
    """A score; ``n/a`` for NaN, and no minus before what rounds to zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}" if np.isfinite(value) else "n/a"


def score_text(task: Task, value: float, sign: str = "") -> str:
    """The primary metric, or with ``sign="+"`` a difference of it: percent, or a number.

    Examples
    --------
    >>> from mvemo.fuse.tasks.registry import task_of
    >>> score_text(task_of("multiclass"), 0.7186), score_text(task_of("regression"), 0.05, "+")
    ('71.9', '+0.050')
    """
    if not np.isfinite(value):
        return "n/a"
    digits, factor = (1, 100.0) if task.in_percent else (3, 1.0)
    return f"{round(factor * value, digits) + 0.0:{sign}.{digits}f}"


def interval_text(ends: tuple[float, float] | None, *, in_percent: bool = False) -> str:
    """A 95 % interval in percent, ``63-81``, or in fractions; empty where there is none."""
    if ends is None or not np.isfinite(ends).all():
        return ""
    if in_percent:
        return f"{100 * ends[0]:.0f}-{100 * ends[1]:.0f}"
    return f"{fraction(ends[0])} to {fraction(ends[1])}"


def difference_text(task: Task, ends: tuple[float, float]) -> str:
    """An interval of a difference of the primary metric; empty where there is none."""
    if not np.isfinite(ends).all():
        return ""
    return f"{score_text(task, ends[0], '+')} to {score_text(task, ends[1], '+')}"


def p_text(p: float) -> str:
    """A p-value for a table."""
    if not np.isfinite(p):
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(n: int, one: str, many: str | None = None) -> str:
    """A number and its noun.

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
    """Lines of a table with rules around its body."""
    lines = align_columns([*body, *foot], left=range(left))
    rule = "-" * max(map(len, lines))
    table = [lines[0], rule, *lines[1 : len(body)]]
    return [*table, rule, *lines[len(body) :]] if foot else table


def wrap(text: str, mark: str = "") -> str:
    """Lines of the terminal's width, each after `mark`."""
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent=mark,
        subsequent_indent=mark,
        break_on_hyphens=False,
        break_long_words=False,
    )


def clean(text: str) -> str:
    """Without control characters, which could drive the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)

"""Text of reports: numbers, lines of 79 columns, and templates of pages."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvemo.fuse.results import ModelResult
from mvemo.fuse.tasks.base import Task
from mvemo.manifests.text_table import align_columns

if TYPE_CHECKING:
    import jinja2

WIDTH = 79
TEMPLATES = Path(__file__).with_name("templates")


# --- numbers


def percent(value: float, digits: int = 1) -> str:
    """Format a fraction as a percentage without the % sign; ``n/a`` for NaN."""
    return f"{100.0 * value:.{digits}f}" if np.isfinite(value) else "n/a"


def fraction(value: float, digits: int = 3) -> str:
    """Format a score; ``n/a`` for NaN, and no minus sign before zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}" if np.isfinite(value) else "n/a"


def score_text(task: Task, value: float, sign: str = "") -> str:
    """Format a primary metric, or with ``sign="+"`` a difference, in the task's unit."""
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


def primary_interval_text(task: Task, model: ModelResult) -> str:
    """Format the interval of a model's primary metric; '' if there is none."""
    ends = model.intervals.get(task.primary_interval[0])
    return interval_text(ends, in_percent=task.in_percent)


def difference_text(task: Task, ends: tuple[float, float]) -> str:
    """Format the interval of a difference of the primary metric; '' if there is none."""
    if not np.isfinite(ends).all():
        return ""
    return f"{score_text(task, ends[0], '+')} to {score_text(task, ends[1], '+')}"


def p_text(p: float) -> str:
    if not np.isfinite(p):
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one}" if n == 1 else f"{n} {many or one + 's'}"


# --- lines


def columns(
    body: Sequence[Sequence[str]], foot: Sequence[Sequence[str]] = (), *, left: int = 1
) -> list[str]:
    """Return the lines of a table with rules around `body[1:]`; `left` columns are text."""
    lines = align_columns([*body, *foot], left=range(left))
    rule = "-" * max(map(len, lines))
    above = [lines[0], rule, *lines[1 : len(body)]]
    return [*above, rule, *lines[len(body) :]] if foot else above


def wrap(text: str, mark: str = "") -> str:
    """Wrap text to the terminal's width, with `mark` at the start of each line."""
    whole: Any = {"break_on_hyphens": False, "break_long_words": False}
    return textwrap.fill(text, WIDTH, initial_indent=mark, subsequent_indent=mark, **whole)


@functools.cache
def page_templates(folder: Path) -> jinja2.Environment:
    """Return the templates of a folder and of reports; they escape all text.

    Undefined names are refused.
    """
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([folder, TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

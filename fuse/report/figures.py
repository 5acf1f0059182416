"""Figures of one evaluation as SVG text that can be put into a page.

Each function returns one ``<svg>`` element: no prolog, ids with a prefix so that many fit
into one page, text as text (searchable, in the page's font), ink in ``currentColor`` so
that light and dark pages both work. Equal results give equal bytes. Matplotlib is imported
only when a figure is drawn, and its global state and the user's style play no part.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.metrics.multiclass import roc_auc, roc_curve
from mvemo.fuse.report.summary import fraction, spread
from mvemo.fuse.results import ModelResult, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Middle tones: all have a contrast of 3 or more with white and with near-black.
COLOURS = (
    "#3b82c4",
    "#d06d1c",
    "#2f9e58",
    "#d6455d",
    "#8f6ad1",
    "#a4724a",
    "#d158ae",
    "#858f1d",
    "#1697a5",
    "#808894",
)
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)))
# Stands for the page's text colour until the SVG is written; no other ink has it.
INK = "#010203"
_FILL = "#1d5fa8"
# Text stays text, and names with dollar signs are no formulas.
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mvemo",
    "text.parse_math": False,
    "font.size": 9.5,
    "legend.fontsize": 9,
    "axes.linewidth": 0.7,
    "figure.constrained_layout.use": True,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}
GRID: dict[str, Any] = {"color": "#80808a", "alpha": 0.3, "linewidth": 0.6}
# Inches: what a phone shows without much shrinking of the text.
WIDE = 4.2
# Wider screens show a figure larger by this much.
_ZOOM = 1.15
_RATES = np.linspace(0.0, 1.0, 201)
# Counts are left out of cells from this number of classes on: they would not be legible.
_MANY_CLASSES = 16


def accuracy_figure(results: Results) -> str:
    """Accuracy of each model in each fold (dots), its mean (bar), the majority baseline."""
    return fold_figure(
        [(model.name, 100 * results.primary_per_fold(model)) for model in results.models],
        100 * results.primary_per_fold(results.baseline),
        score="accuracy",
        unit=" (%)",
        baseline="majority class",
        limits=(0, 100),
    )


def fold_figure(
    models: Sequence[tuple[str, NDArray[np.float64]]],
    base_per_fold: NDArray[np.float64],
    *,
    score: str,
    unit: str = "",
    baseline: str,
    limits: tuple[float, float],
) -> str:
    """A score of each model in each fold (dots), its mean (bar), and a baseline (band).

    Parameters
    ----------
    models
        Name and float64 (folds,), as drawn.
    base_per_fold
        float64 (folds,), of the baseline.
    score, unit, baseline
        What they are called.
    limits
        Of the axis of scores.
    """
    names = [short(name) for name, _ in models]
    with drawing(WIDE, 1.25 + 0.3 * max(len(models), 1)) as (figure, finish):
        ax = figure.add_subplot()
        base = spread(base_per_fold)
        if np.isfinite(base.mean):
            ax.axvspan(base.min, base.max, color="#80808a", alpha=0.18, linewidth=0)
            ax.axvline(
                base.mean,
                color=INK,
                linestyle=(0, (4, 2)),
                linewidth=1.2,
                label=f"{baseline} (band: its range over folds)",
            )
        for row, (_, per_fold) in enumerate(models):
            colour = COLOURS[row % len(COLOURS)]
            values = per_fold[np.isfinite(per_fold)]
            # Folds are set apart a little, or equal scores would hide each other.
            offsets = np.linspace(-0.2, 0.2, len(values)) if len(values) > 1 else np.zeros(1)
            ax.plot(
                values,
                row + offsets[: len(values)],
                linestyle="",
                marker="o",
                markersize=4.5,
                color=colour,
                alpha=0.75,
                markeredgewidth=0,
                clip_on=False,
            )
            if len(values):
                ax.plot([values.mean()] * 2, [row - 0.36, row + 0.36], color=INK, linewidth=2.2)
        ax.set_yticks(range(len(models)), names)
        ax.set_ylim(max(len(models), 1) - 0.5, -0.5)
        ax.set_xlim(*limits)
        ax.set_xlabel(f"{score} of a fold{unit}; bar: mean")
        ax.grid(axis="x", **GRID)
        bare(ax)
        if ax.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", frameon=False)
        return finish(f"{score[0].upper()}{score[1:]} of each model in each fold")


def roc_figure(results: Results) -> str:
    """Macro one-vs-rest ROC curve of each model, of the pooled out-of-fold predictions."""
    with drawing(WIDE, 3.9 + 0.22 * -(-len(results.models) // 2)) as (figure, finish):
        ax = figure.add_subplot()
        for i, model in enumerate(results.models):
            curves = [curve for curve, _ in _class_curves(model, results.y_true) if len(curve)]
            if not curves:
                continue
            last = model.name == "integrated"
            ax.plot(
                _RATES,
                np.mean(curves, axis=0),
                color=COLOURS[i % len(COLOURS)],
                linestyle=_DASHES[1] if len(model.features) == 1 else "-",
                linewidth=2.2 if last else 1.4,
                label=f"{short(model.name)}  {fraction(model.scores['roc_auc_macro_ovr_pooled'])}",
            )
        _roc_axes(ax)
        _legend_below(figure, ax)
        return finish("ROC curve of each model, mean over classes; pooled AUC in the legend")


def class_roc_figure(results: Results, model: ModelResult) -> str:
    """One-vs-rest ROC curve of each class (thin) and their mean (thick), pooled."""
    return roc_of_each(
        results.classes,
        _class_curves(model, results.y_true),
        model.scores["roc_auc_macro_ovr_pooled"],
        f"ROC curve of each class, {model.name}",
    )


def roc_of_each(
    names: Sequence[str],
    curves: Sequence[tuple[NDArray[np.float64], float]],
    mean_auc: float,
    title: str,
) -> str:
    """ROC curves of classes or tags (thin) and their mean (thick).

    Parameters
    ----------
    names
        Of the curves.
    curves
        Of `curves_of`.
    mean_auc
        For the legend.
    title
        Of the figure.
    """
    n_rows = -(-(len(names) + 1) // 2)
    with drawing(WIDE, 3.9 + 0.22 * n_rows) as (figure, finish):
        ax = figure.add_subplot()
        for c, (curve, area) in enumerate(curves):
            if len(curve):
                ax.plot(
                    _RATES,
                    curve,
                    color=COLOURS[c % len(COLOURS)],
                    linestyle=_DASHES[c // len(COLOURS) % 3],
                    linewidth=1.1,
                    label=f"{short(names[c])}  {fraction(area)}",
                )
        held = [curve for curve, _ in curves if len(curve)]
        if held:
            ax.plot(
                _RATES,
                np.mean(held, axis=0),
                color=INK,
                linewidth=2.4,
                label=f"mean  {fraction(mean_auc)}",
            )
        _roc_axes(ax)
        _legend_below(figure, ax)
        return finish(title)


def confusion_figure(model: ModelResult, classes: Sequence[str]) -> str:
    """Counts of (true, predicted) pairs; a cell's colour is its share of its row."""
    assert model.confusion is not None
    return matrix_figure(model.confusion, classes, model.name)


def matrix_figure(confusion: NDArray[np.int64], classes: Sequence[str], name: str) -> str:
    """As `confusion_figure`, of int64 (classes, classes) and a name for its title."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    n = len(classes)
    totals = confusion.sum(axis=1, keepdims=True)
    share = confusion / np.maximum(totals, 1)
    cell = 0.46 if n <= 8 else max(3.7 / n, 0.12)
    with drawing(1.15 + cell * n, 1.2 + cell * n) as (figure, finish):
        ax = figure.add_subplot()
        cells = [Rectangle((j - 0.5, i - 0.5), 1, 1) for i in range(n) for j in range(n)]
        colours = [(*_rgb(_FILL), round(float(s), 3)) for s in share.ravel()]
        ax.add_collection(
            PatchCollection(cells, facecolors=colours, edgecolors=(0.5, 0.5, 0.55, 0.35))
        )
        if n < _MANY_CLASSES:
            size = 9 if n <= 8 else 7
            for i in range(n):
                for j in range(n):
                    ax.text(
                        j,
                        i,
                        str(int(confusion[i, j])),
                        ha="center",
                        va="center_baseline",
                        fontsize=size,
                        # Below, the page shows through and its own ink reads better.
                        color="#ffffff" if share[i, j] > 0.75 else INK,
                    )
        names = [short(c, 14) for c in classes]
        if n < 2 * _MANY_CLASSES:
            size = 9 if n <= 8 else 7
            ax.set_xticks(range(n), names, rotation=40, ha="right", rotation_mode="anchor")
            ax.set_yticks(range(n), names)
            ax.tick_params(length=0, labelsize=size)
        else:
            ax.set_xticks([])
            ax.set_yticks([])
        ax.set_xlim(-0.5, n - 0.5)
        ax.set_ylim(n - 0.5, -0.5)
        ax.set_aspect("equal")
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
        for side in ax.spines.values():
            side.set_visible(False)
        return finish(f"Confusion matrix, {name}")


def loss_figures(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> dict[str, str]:
    """Training and validation loss by epoch, one figure a net, one line a fold.

    Parameters
    ----------
    curves
        ``net@fold`` to lists under ``epoch``, ``train_loss`` and ``val_loss``; a list that
        is absent, of another length or without a finite value is left out.

    Returns
    -------
    Net name to SVG, in the order of the nets' first curve.
    """
    nets: dict[str, list[tuple[str, Mapping[str, Sequence[float]]]]] = {}
    for key, curve in curves.items():
        net, _, fold = key.rpartition("@")
        nets.setdefault(net or fold, []).append((fold if net else "", curve))
    return {net: _loss_figure(net, listed) for net, listed in nets.items()}


def _loss_figure(net: str, listed: list[tuple[str, Mapping[str, Sequence[float]]]]) -> str:
    with drawing(3.7, 2.8) as (figure, finish):
        from matplotlib.lines import Line2D

        ax = figure.add_subplot()
        longest = 1.0
        for i, (_, curve) in enumerate(listed):
            epochs = np.asarray(curve.get("epoch", ()), dtype=np.float64)
            colour = COLOURS[i % len(COLOURS)]
            for name, dash, width in (("train_loss", (0, (3, 1.5)), 1.0), ("val_loss", "-", 1.5)):
                losses = np.array(
                    [np.nan if v is None else v for v in curve.get(name, ())], dtype=np.float64
                )
                if len(losses) != len(epochs) or not np.isfinite(losses).any():
                    continue
                longest = max(longest, float(epochs.max()))
                # A lone epoch makes no line: a marker shows it.
                marker = "." if len(losses) == 1 else ""
                ax.plot(epochs, losses, color=colour, ls=dash, lw=width, marker=marker)
                if name == "val_loss":
                    low = int(np.nanargmin(losses))
                    ax.plot(epochs[low], losses[low], "o", ms=4, color=colour, mew=0)
        ax.set_xlabel("epoch")
        ax.set_ylabel("loss")
        ax.set_ylim(bottom=0)
        ax.locator_params(axis="x", integer=True)
        ax.grid(**GRID)
        bare(ax)
        kinds = [
            Line2D([], [], color=INK, ls=(0, (3, 1.5)), lw=1.0, label="training"),
            Line2D([], [], color=INK, lw=1.5, marker="o", ms=4, label="validation, lowest"),
        ]
        figure.legend(handles=kinds, loc="outside lower center", ncols=2, frameon=False)
        folds = len(listed)
        what = "one net" if folds == 1 else f"{folds} nets, one colour each"
        return finish(f"Loss by epoch, {net} ({what})")


def _class_curves(
    model: ModelResult, labels: NDArray[np.int64]
) -> list[tuple[NDArray[np.float64], float]]:
    """True positive rates at `_RATES` and AUC of each class; empty and NaN without a curve."""
    classes = np.arange(model.outputs.shape[1])
    return curves_of(labels[:, None] == classes, model.outputs)


def curves_of(
    truth: NDArray[np.bool_], scores: NDArray[np.float64]
) -> list[tuple[NDArray[np.float64], float]]:
    """True positive rates at even false ones, and AUC, of each column.

    Empty and NaN of a column that is true everywhere or nowhere.

    Parameters
    ----------
    truth
        bool (clips, columns).
    scores
        float64 (clips, columns); NaN rows are left out.
    """
    there = np.isfinite(scores).all(axis=1)
    found = []
    for c in range(scores.shape[1]):
        positive, score = truth[there, c], scores[there, c]
        if positive.all() or not positive.any():
            found.append((np.empty(0), float("nan")))
            continue
        false, true = roc_curve(positive, score)
        # At a vertical step np.interp takes the upper end; each curve starts in (0, 0).
        rates = np.interp(_RATES, false, true)
        rates[0] = 0.0
        found.append((rates, roc_auc(positive, score)))
    return found


def _roc_axes(ax: Axes) -> None:
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (2, 3)), alpha=0.6)
    ax.set_xlim(-0.01, 1.0)
    ax.set_ylim(0.0, 1.01)
    ax.set_aspect("equal")
    ax.set_xlabel("false positive rate")
    ax.set_ylabel("true positive rate")
    ax.grid(**GRID)
    bare(ax)


def _legend_below(figure: Figure, ax: Axes) -> None:
    """One entry a line where two would not fit beside each other."""
    labels = ax.get_legend_handles_labels()[1]
    if labels:
        figure.legend(
            loc="outside lower center",
            ncols=2 if max(map(len, labels)) <= 24 else 1,
            frameon=False,
            handlelength=1.6,
            columnspacing=1.2,
        )


def bare(ax: Axes) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.set_axisbelow(True)


def _rgb(colour: str) -> tuple[float, float, float]:
    r, g, b = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return r, g, b


def short(text: str, length: int = 20) -> str:
    """A label that fits, without characters that XML forbids."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= length else text[: length - 1] + "…"


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Figure, Callable[[str], str]]]:
    """A figure (inches) and the function that turns it into an SVG element with a title."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A glyph that the measuring font lacks is the reader's browser's to find.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), facecolor="none")

        def finish(title: str) -> str:
            for ax in figure.axes:
                ax.set_facecolor("none")
            buffer = io.StringIO()
            figure.savefig(
                buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True
            )
            return _element(buffer.getvalue(), title)

        yield figure, finish


def _element(svg: str, title: str) -> str:
    """Matplotlib's SVG file as an element of a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Its style rule would hold for the whole page.
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r" id=\"(?:\w+_\d+|matplotlib\.\w+_\d+)\"", "", svg)
    # Clip paths and markers keep their ids, told apart by what the figure shows.
    shown = f"{title}\n{svg}".encode("utf-8", "backslashreplace")
    prefix = "f" + hashlib.sha256(shown).hexdigest()[:8]
    svg = re.sub(r" id=\"(\w+)\"", rf' id="{prefix}\1"', svg)
    svg = re.sub(r"(xlink:href=\"#|url\(#)(\w+)", rf"\g<1>{prefix}\2", svg)
    svg = svg.replace(INK, "currentColor")
    head, rest = svg.split(">", 1)
    match = re.search(r'width="([\d.]+)pt" height="[\d.]+pt"', head)
    assert match is not None
    # A point is 4/3 px; smaller where the screen is.
    head = head.replace(match.group(0), "").replace(
        "<svg",
        f'<svg role="img" aria-label={quoteattr(title)} style="width: 100%; max-width: '
        f"{float(match.group(1)) * 4 / 3 * _ZOOM:.0f}px; height: auto; stroke-linejoin: round; "
        'stroke-linecap: butt"',
        1,
    )
    return f"{head}>\n <title>{escape(title)}</title>{rest}".strip()

"""Figures drawn as SVG elements for a page.

A figure is one ``<svg>`` element without a prolog. Its ids have a unique prefix, so that one page
can hold many figures. Text is not drawn as paths: it is searchable and uses the page's font. Ink
is ``currentColor``, which works on light and dark pages. Equal drawings give equal bytes.
Matplotlib is imported only when a figure is drawn; its global state and style have no effect.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from mvemo.manifests.array_types import Ints
from mvemo.manifests.text_table import escaped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of medium lightness: each has a contrast of at least 3 with white and near-black.
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
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)))
# Placeholder for the page's text colour; no other colour has this value.
INK = "#010203"
FILL = "#1d5fa8"
# Text is not drawn as paths, and names with dollar signs are not parsed as formulas.
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
# Width in inches that a phone shows without shrinking the text much.
WIDE = 4.2
# Factor by which figures are enlarged on wider screens.
_ZOOM = 1.15
# With this many classes or more, counts in cells would not be legible.
_MANY_CLASSES = 16


# Matplotlib's names of the writers of files.
_BACKENDS = {"svg": "SVG", "pdf": "Pdf", "png": "Agg"}

_pdfs: ContextVar[list[bytes] | None] = ContextVar("_pdfs", default=None)


@dataclass(frozen=True)
class Picture:
    """A figure with the text above and below it.

    Parameters
    ----------
    svg
        One ``<svg>`` element.
    head, caption
        Text above and text below the figure; '' for none.
    """

    svg: str
    head: str = ""
    caption: str = ""

    def _repr_svg_(self) -> str:
        """Show the figure in a notebook."""
        return self.svg


def short(text: str, length: int = 20) -> str:
    """Cut a label to `length` characters and escape characters that XML forbids."""
    text = escaped(text)
    return text if len(text) <= length else text[: length - 1] + "…"


class Drawing:
    """A figure being drawn: its axes, and its rendering as a titled SVG element."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        self.figure: Figure = Figure(figsize=(width, height), facecolor="none")
        self.ax: Axes = self.figure.add_subplot()
        self.ax.set_facecolor("none")

    def line(self, xs: Any, ys: Any, **style: Any) -> None:
        """Draw a line in the colour of the text: an axis, a diagonal or a level."""
        self.ax.plot(xs, ys, **{"color": INK, "linewidth": 1.0, **style})

    def points(self, xs: Any, ys: Any, colour: str, **style: Any) -> None:
        """Draw points without a line."""
        self.ax.plot(xs, ys, color=colour, ls="", marker="o", markeredgewidth=0, **style)

    def svg(
        self,
        title: str,
        x: str,
        y: str = "",
        *,
        grid: Literal["", "x", "both"] = "both",
        legend: Mapping[str, Any] | None = None,
    ) -> str:
        """Label the axes, add a grid and a legend, and return the figure as an SVG element."""
        self.ax.set_xlabel(x)
        if y:
            self.ax.set_ylabel(y)
        if grid:
            self.ax.grid(axis=grid, color="#80808a", alpha=0.3, linewidth=0.6)
            self.ax.spines[["top", "right"]].set_visible(False)
            self.ax.set_axisbelow(True)
        if legend is not None and self.ax.get_legend_handles_labels()[1]:
            self.figure.legend(loc="outside lower center", frameon=False, **legend)
        if (pages := _pdfs.get()) is not None:
            pages.append(render(self.figure, "pdf"))
        return _element(render(self.figure, "svg").decode(), title)


@contextmanager
def drawing(width: float, height: float) -> Iterator[Drawing]:
    """Yield a figure of the given size (inches), in the style of the page."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # If the font used for measuring lacks a glyph, the browser takes it from another font.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        warnings.filterwarnings("ignore", message=r"Matplotlib currently does not support")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield Drawing(width, height)


def matrix_figures(confusions: Mapping[str, Ints], classes: Sequence[str]) -> list[str]:
    """Draw confusion matrices (rows true, columns predicted), coloured by shares of rows.

    The keys are names for the titles. All are drawn in one figure, which is laid out only once.
    """
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    n = len(classes)
    cell = 0.46 if n <= 8 else max(3.7 / n, 0.12)
    size = 9 if n <= 8 else 7
    with drawing(1.15 + cell * n, 1.2 + cell * n) as drawn:
        ax = drawn.ax
        cells = [Rectangle((j - 0.5, i - 0.5), 1, 1) for i in range(n) for j in range(n)]
        grid = PatchCollection(cells, edgecolors=(0.5, 0.5, 0.55, 0.35))
        ax.add_collection(grid)
        place: Any = {"ha": "center", "va": "center_baseline", "fontsize": size}
        counted = np.ndindex(n, n) if n < _MANY_CLASSES else ()
        texts = {(i, j): ax.text(j, i, "", **place) for i, j in counted}
        if n < 2 * _MANY_CLASSES:
            names = [short(c, 14) for c in classes]
            ax.set_xticks(range(n), names, rotation=40, ha="right", rotation_mode="anchor")
            ax.set_yticks(range(n), names)
            ax.tick_params(length=0, labelsize=size)
        else:
            ax.set_xticks([])
            ax.set_yticks([])
        ax.set(xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5), aspect="equal")
        ax.spines[:].set_visible(False)
        svgs = []
        for name, confusion in confusions.items():
            share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
            grid.set_facecolor([to_rgba(FILL, round(float(s), 3)) for s in share.ravel()])
            for cell_of, text in texts.items():
                # On paler cells, the page's text colour is easier to read.
                text.set_color("#ffffff" if share[cell_of] > 0.75 else INK)
                text.set_text(str(int(confusion[cell_of])))
            svgs.append(drawn.svg(f"Confusion matrix, {name}", "predicted", "true", grid=""))
        return svgs


def render(figure: Figure, kind: Literal["svg", "pdf", "png"], dpi: int = 72) -> bytes:
    """Render a figure as the content of a file, without changing its colours."""
    backend = import_module(f"matplotlib.backends.backend_{_BACKENDS[kind].lower()}")
    canvas = getattr(backend, f"FigureCanvas{_BACKENDS[kind]}")(figure)
    # Axes and legends are placed here, as `Figure.savefig` would draw twice.
    figure.set_dpi(dpi)
    if layout := figure.get_layout_engine():
        layout.execute(figure)
        figure.set_layout_engine("none")
    buffer = io.BytesIO()
    dates = "Date", "Creator", "CreationDate", "Producer", "Software"
    known = {"svg": dates[:2], "pdf": dates[1:4], "png": dates[4:]}[kind]
    getattr(canvas, f"print_{kind}")(buffer, metadata=dict.fromkeys(known))
    return buffer.getvalue()


@contextmanager
def collected_pdfs() -> Iterator[list[bytes]]:
    """Yield a list to which each figure that is drawn is added as a PDF, too."""
    pages: list[bytes] = []
    token = _pdfs.set(pages)
    try:
        yield pages
    finally:
        _pdfs.reset(token)


def _element(svg: str, title: str) -> str:
    """Turn the text of Matplotlib's SVG file into an element for a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # The style rule of the file would apply to the whole page.
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r" id=\"(?:\w+_\d+|matplotlib\.\w+_\d+)\"", "", svg)
    # Clip paths and markers keep their ids, with a prefix made from the figure's content.
    shown = f"{title}\n{svg}".encode("utf-8", "backslashreplace")
    prefix = "f" + hashlib.sha256(shown).hexdigest()[:8]
    svg = re.sub(r" id=\"(\w+)\"", rf' id="{prefix}\1"', svg)
    svg = re.sub(r"(xlink:href=\"#|url\(#)(\w+)", rf"\g<1>{prefix}\2", svg)
    svg = svg.replace(INK, "currentColor")
    head, rest = svg.split(">", 1)
    match = re.search(r'width="([\d.]+)pt" height="[\d.]+pt"', head)
    assert match is not None
    # A point (pt) is 4/3 px; narrow screens shrink the figure.
    head = head.replace(match.group(0), "").replace(
        "<svg",
        f'<svg role="img" aria-label={quoteattr(title)} style="width: 100%; max-width: '
        f"{float(match.group(1)) * 4 / 3 * _ZOOM:.0f}px; height: auto; stroke-linejoin: round; "
        'stroke-linecap: butt"',
        1,
    )
    return f"{head}>\n <title>{escape(title)}</title>{rest}".strip()


def standalone(svg: str) -> str:
    """Return the text of an SVG file for an element of a page: black ink, any sans-serif font."""
    svg = svg.replace("currentColor", "#000000")
    svg = svg.replace("font-family: inherit", "font-family: sans-serif")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{svg}\n'

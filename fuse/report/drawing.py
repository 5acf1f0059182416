"""Drawing of figures as SVG elements that can be put into a page.

Each is one ``<svg>`` element: no prolog, ids with a prefix so that many fit into one page,
text as text (searchable, in the page's font), ink in ``currentColor`` so that light and dark
pages both work. Equal drawings give equal bytes. Matplotlib is imported only when a figure
is drawn, and its global state and the user's style play no part.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

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
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)))
# Stands for the page's text colour until the SVG is written; no other ink has it.
INK = "#010203"
FILL = "#1d5fa8"
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


@dataclass(frozen=True)
class Picture:
    """A figure and what stands above and below it.

    Parameters
    ----------
    svg
        One ``<svg>`` element.
    head, caption
        Text above and below; may be empty.
    """

    svg: str
    head: str = ""
    caption: str = ""


def legend_below(figure: Figure, ax: Axes) -> None:
    """A legend under the axes, one entry a line where two would not fit beside each other."""
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
    """Leave out the upper and right edge."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    ax.set_axisbelow(True)


def rgb(colour: str) -> tuple[float, float, float]:
    """Red, green and blue from 0 to 1, of ``#rrggbb``."""
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
            return _element(render_svg(figure), title)

        yield figure, finish


def render_svg(figure: Figure) -> str:
    """A figure as an SVG file, in the colours that it has."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    canvas: Any = FigureCanvasSVG(figure)
    figure.set_dpi(72)
    _lay_out(figure)
    buffer = io.StringIO()
    canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def render_png(figure: Figure, dpi: int = 150) -> bytes:
    """A figure as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    figure.set_dpi(dpi)
    _lay_out(figure)
    buffer = io.BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _lay_out(figure: Figure) -> None:
    """Place axes and legends once for all files of a figure.

    `Figure.savefig` draws a figure with a layout twice, the first time only to lay it out.
    """
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")


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

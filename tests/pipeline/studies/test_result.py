"""A study's tables and plots as text and files."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from mvemo.pipeline.studies.result import (
    Column,
    Plot,
    StudyResult,
    Table,
    cell_text,
    render,
    without_empty_figures,
)


def test_a_table_puts_published_columns_behind_a_bar():
    table = Table(
        "t",
        "A title",
        (Column("net"), Column("acc", "percent"), Column("J22", "percent", published=True)),
        (("cnn", 0.5, 0.6919), ("crnn", float("nan"), None)),
    )
    lines = table.text().splitlines()
    assert lines[0] == "A title"
    bar = lines[1].index("| published, other data")
    assert lines[2][bar] == lines[4][bar] == "|"
    assert lines[4].split() == ["cnn", "50.00", "|", "69.19"]
    assert lines[5].split() == ["crnn", "-", "|", "-"]
    assert table.csv().splitlines() == [
        'net,acc,"J22 (published, other data)"',
        "cnn,0.5,0.6919",
        "crnn,,",
    ]
    assert table.record()["rows"] == [["cnn", 0.5, 0.6919], ["crnn", None, None]]
    assert [cell_text(x, "number") for x in (23000, 0.98)] == ["23,000", "0.980"]


def test_a_table_for_a_paper_has_intervals_in_cells_and_the_best_strong():
    names = ("accuracy", "sd", "low", "high")
    columns = [
        Column("net"),
        *(Column(n, "percent") for n in names),
        Column("J22", "percent", True),
    ]
    rows = (("a", 0.5, 0.1, 0.4, 0.6, 0.9), ("b", 0.75, 0.1, 0.7, 0.8, None), ("c", *[None] * 5))
    paper = Table("t", "Title", columns, rows).for_paper()
    titles = ["net", "accuracy", "sd", "J22 (published, other data)"]
    assert [head.title for head in paper.head] == titles
    assert [(row[1].text, row[1].below, row[1].strong) for row in paper.rows] == [
        ("50.00", "40.00 to 60.00", False),
        ("75.00", "70.00 to 80.00", True),
        ("-", "", False),
    ]


def test_columns_without_a_figure_are_left_out_and_the_page_says_why():
    columns = (Column("net"), Column("J22", "percent", published=True))
    with_figure = StudyResult("s", "S", (Table("t", "T", columns, (("crnn", 0.9),)),), ())
    assert without_empty_figures(with_figure) is with_figure
    empty = replace(with_figure, tables=(Table("t", "T", columns, (("crnn", None),)),))
    (table,), (note,) = without_empty_figures(empty).tables, without_empty_figures(empty).notes
    assert (table.columns, table.rows) == ([columns[0]], [["crnn"]])
    assert note.startswith("Published values are shown only next to scores with the papers'")


@pytest.mark.figures
def test_a_plot_is_the_same_picture_as_svg_and_as_png():
    plot = Plot("bars", "cost in $ and $", lambda axes: axes.bar([0, 1], [1.0, 3.0]), (4.0, 2.0))
    svg, png = render(plot)
    text = svg.decode()
    assert 'width="288pt" height="144pt"' in text
    assert ">cost in $ and $</text>" in text
    picture = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (300, 600, 3)
    assert (picture[0, 0] == 255).all()
    # The bars, in Matplotlib's first colour, lie where the SVG has them.
    bars = re.findall(r'<path d="([^"]*)"[^>]*style="fill: #1f77b4"', text)
    assert len(bars) == 2
    corners = np.asarray(re.findall(r"[ML] (\S+) (\S+)", " ".join(bars)), float) * 150 / 72
    rows, columns = np.nonzero((picture == (0xB4, 0x77, 0x1F)).all(axis=2))
    pixels = np.stack([columns, rows], axis=1)
    assert np.abs(pixels.min(axis=0) - corners.min(axis=0)).max() < 3
    assert np.abs(pixels.max(axis=0) - corners.max(axis=0)).max() < 3
    assert render(plot) == (svg, png)

"""A study's plots, and its tables without published values."""

import re

import cv2
import numpy as np
import pytest
from study_samples import opened

from mvemo.fuse.report.drawing import COLOURS, drawing
from mvemo.fuse.report.tables import Column, table
from mvemo.pipeline.studies.comparison import Draft
from mvemo.pipeline.studies.plots import _plot
from mvemo.pipeline.studies.runner import _without_empty_figures
from mvemo.pipeline.studies.study_file import built_in


def test_columns_without_a_figure_are_left_out_and_a_note_says_why(tmp_path):
    columns = ("net", Column("J22", "percent", published=True))
    for value, titles in ((0.9, ["net", "J22"]), (None, ["net"])):
        draft = Draft(opened(tmp_path), built_in()["segments"], {})
        draft.tables.append(table(columns, [("crnn", value)]))
        (made,), notes = _without_empty_figures(draft).tables, draft.notes
        assert [column.title for column in made.columns] == titles
        assert (value is None) == any("only next to scores with the papers'" in n for n in notes)


@pytest.mark.figures
def test_a_plot_is_the_same_picture_as_svg_and_as_png():
    with drawing(6.4, 2.3) as drawn:
        drawn.ax.barh([0, 1], [25, 75], height=0.6, color=COLOURS[0])
        drawn.ax.set_yticks([0, 1], ["cost in $ and $", "b"])
        plot = _plot(drawn, "bars", "A title", "accuracy, %")
    assert ">cost in $ and $</text>" in plot.svg
    assert "currentColor" in plot.picture.svg
    width, height = (float(x) for x in re.findall(r'="([\d.]+)pt"', plot.svg)[:2])
    picture = cv2.imdecode(np.frombuffer(plot.png, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[:2] == pytest.approx((height * 150 / 72, width * 150 / 72), abs=1)
    assert (picture[0, 0] == 255).all()
    # The bars lie where the SVG has them; the shorter one is a third of the longer.
    bars = re.findall(r'<path d="([^"]*)"[^>]*style="fill: #3b82c4', plot.svg)
    first, second = (np.asarray(re.findall(r"[ML] (\S+) (\S+)", bar), float) for bar in bars)
    assert np.ptp(second[:, 0]) == pytest.approx(3 * np.ptp(first[:, 0]), rel=1e-3)
    blue = picture[..., 0].astype(int) - picture[..., 2] > 60
    rows, columns = np.nonzero(blue)
    corners = np.concatenate([first, second]) * 150 / 72
    assert abs(columns.min() - corners[:, 0].min()) < 3
    assert abs(rows.max() - corners[:, 1].max()) < 3

"""A study's plots as files."""

import re

import cv2
import numpy as np
import pytest

from mvemo.pipeline.studies.result import Plot, render


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

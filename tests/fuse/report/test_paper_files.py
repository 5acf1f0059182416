"""Figures as files, and the style of tables for a paper."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

import mvemo
from mvemo.fuse.report.figures import draw_figures, write_figures
from mvemo.fuse.report.score_tables import results_tables
from mvemo.fuse.report.tables import TableStyle, write_paper
from mvemo.manifests.errors import BadOption


@pytest.fixture(scope="module")
def results():
    y = np.tile([0, 1, 2], 20)
    X = (y[:, None] + np.random.default_rng(0).normal(size=(60, 3))).astype(np.float32)
    options = {"folds": 3, "n_resamples": 20, "audit": False, "kernel": False}
    return mvemo.evaluate({"audio": X, "lyrics": X[:, :1]}, y, **options)


@pytest.mark.figures
def test_each_figure_is_an_svg_and_a_pdf_file(results, tmp_path):
    files = write_figures(results, tmp_path / "figures")
    n_pictures = sum(map(len, draw_figures(results).values()))
    assert len(files) == 2 * n_pictures > 4
    for svg, pdf in zip(files[::2], files[1::2], strict=True):
        assert svg.stem == pdf.stem
        text = svg.read_text()
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "currentColor" not in text
        content = pdf.read_bytes()
        assert content.startswith(b"%PDF-")
        assert len(re.findall(rb"/Type /Page\b", content)) == 1
    assert draw_figures(results)["folds"][0]._repr_svg_().startswith("<svg")


def test_tables_have_the_columns_label_and_caption_that_are_asked_for(results, tmp_path):
    tables = results_tables(results)
    style = TableStyle(("mean", "MCC"), "tab:scores", "Scores of 50 % noise")
    write_paper(tables, tmp_path / "t.tex", tmp_path / "t.md", style)
    latex, markdown = (tmp_path / "t.tex").read_text(), (tmp_path / "t.md").read_text()
    assert "\\caption{Scores of 50 \\% noise}\n  \\label{tab:scores" in latex
    assert "model & mean & MCC \\\\" in latex
    assert "| model | mean | MCC |" in markdown
    write_paper(tables, tmp_path / "all.tex", None)
    assert "\\label" not in (tmp_path / "all.tex").read_text()


def test_an_unknown_column_is_named_with_the_known_ones(results, tmp_path):
    with pytest.raises(BadOption, match=r"unknown column 'MC'; expected .*MCC"):
        write_paper(results_tables(results), tmp_path / "t.tex", None, TableStyle(("MC",)))
    assert not (tmp_path / "t.tex").exists()

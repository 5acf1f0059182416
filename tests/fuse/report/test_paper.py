"""Tables for a paper: the figures of the report, the best in bold, and text from outside."""

import dataclasses

import pytest
from fuse_samples import make_results, nasty_results

from mvemo.fuse.crossval.uncertainty import with_uncertainty
from mvemo.fuse.report.paper import Cell, Head, table, write_paper
from mvemo.fuse.report.score_tables import results_tables
from mvemo.fuse.report.text import interval_text, p_text
from mvemo.fuse.results import best_model


@pytest.fixture(scope="module")
def results():
    return with_uncertainty(make_results(), n_resamples=50)


def written(tables, tmp_path):
    write_paper(tables, tmp_path / "t.tex", tmp_path / "t.md")
    return (tmp_path / "t.tex").read_text(), (tmp_path / "t.md").read_text()


def test_a_row_has_the_mean_its_interval_and_the_corrected_test(results, tmp_path):
    latex, markdown = written(results_tables(results), tmp_path)
    comparison, key = results.comparisons[0], results.task.primary_interval[0]
    model = next(m for m in results.models if m.name == comparison.model)
    ends = interval_text(model.intervals[key], in_percent=True)
    (line,) = (x for x in markdown.splitlines() if x.startswith(f"| {model.name} |"))
    mean = f"{100 * results.primary_mean(model):.1f}"
    assert f"{mean} [{ends}]" in line.replace("*", "")
    assert line.endswith(f"| {p_text(comparison.p_holm)} |".replace("<", "\\<"))
    top = best_model(results)
    mean = f"{100 * results.primary_mean(top):.1f}"
    assert markdown.count("**") == 2
    assert f"**{mean}**" in markdown
    assert (
        f"\\textbf{{{mean}}} [{interval_text(top.intervals[key], in_percent=True)}".replace(
            "-", "--"
        )
        in latex
    )
    for rule in (
        "\\toprule",
        "\\bottomrule",
        "\\begin{tabular}{ll",
        "95 \\% interval",
        "F1 (published",
    ):
        assert rule in latex


def test_warnings_come_first(results, tmp_path):
    latex, _ = written(results_tables(dataclasses.replace(results, synthetic=True)), tmp_path)
    assert "\\caption{SYNTHETIC DATA: " in latex


def test_text_from_outside_is_no_command(tmp_path):
    cells = [Cell("a_b & 5 % of #1 {x} \\y < -0.5 to 3-4 | *z*")]
    latex, markdown = written([("c", table([Head("n", "")], [cells]))], tmp_path)
    assert "a\\_b \\& 5 \\% of \\#1 \\{x\\} \\textbackslash{}y $<$ $-$0.5 to 3--4 | *z*" in latex
    assert "| a\\_b & 5 % of #1 {x} \\\\y \\< -0.5 to 3-4 \\| \\*z\\* |" in markdown
    written(results_tables(nasty_results()), tmp_path)

"""Tables as LaTeX and Markdown: bold cells, alignment, and text from outside."""

from fuse_samples import nasty_results

from mvemo.fuse.report.score_tables import results_tables
from mvemo.fuse.report.text import Cell, table, write_paper


def written(tables, folder):
    write_paper(tables, folder / "t.tex", folder / "t.md")
    return (folder / "t.tex").read_text(), (folder / "t.md").read_text()


def test_cells_alignment_and_rules(tmp_path):
    cells = [["a", Cell("71.9", below="63-81", strong=True)], ["b", "60.0"], ["none", "16.7"]]
    latex, markdown = written([("Scores", table(["m", "mean"], cells, n_foot=1))], tmp_path)
    assert "\\caption{Scores}\n  \\begin{tabular}{lr}\n    \\toprule\n    m & mean \\\\" in latex
    assert "    a & \\textbf{71.9} [63--81] \\\\\n    b & 60.0 \\\\\n    \\midrule\n" in latex
    assert latex.count("\\midrule") == 2
    assert markdown.splitlines()[:5] == [
        "Scores",
        "",
        "| m | mean |",
        "|---|---:|",
        "| a | **71.9** [63-81] |",
    ]
    write_paper([], None, None)


def test_text_from_outside_is_no_command(tmp_path):
    cells = [Cell("a_b & 5 % of #1 {x} \\y < -0.5 to 3-4 | *z*")]
    latex, markdown = written([("c", table(["n"], [cells]))], tmp_path)
    assert "a\\_b \\& 5 \\% of \\#1 \\{x\\} \\textbackslash{}y $<$ $-$0.5 to 3--4 | *z*" in latex
    assert "| a\\_b & 5 % of #1 {x} \\\\y \\< -0.5 to 3-4 \\| \\*z\\* |" in markdown
    written(results_tables(nasty_results()), tmp_path)

"""Tables as text, CSV, JSON, LaTeX and Markdown."""

import pytest
from fuse_samples import nasty_results

from mvemo.fuse.report.score_tables import results_tables
from mvemo.fuse.report.tables import PERCENT, TEXT, Cell, Column, cell_of, table, write_paper

NAN = float("nan")


def written(tables, folder):
    write_paper(tables, folder / "t.tex", folder / "t.md")
    return (folder / "t.tex").read_text(), (folder / "t.md").read_text()


def test_cells_alignment_and_rules_in_a_paper(tmp_path):
    cells = [["a", Cell("71.9", below="63-81", strong=True)], ["b", "60.0"], ["none", "16.7"]]
    latex, markdown = written([table(["m", "mean"], cells, n_foot=1, title="Scores")], tmp_path)
    assert "\\caption{Scores}\n  \\begin{tabular}{lr}\n    \\toprule\n    m & mean \\\\" in latex
    assert "    a & \\textbf{71.9} [63--81] \\\\\n    b & 60.0 \\\\\n    \\midrule\n" in latex
    assert latex.count("\\midrule") == 2
    rows = ["Scores", "", "| m | mean |", "|---|---:|", "| a | **71.9** [63-81] |"]
    assert markdown.splitlines()[:5] == rows
    write_paper([], None, None)


def test_text_from_outside_is_no_command(tmp_path):
    cells = [Cell("a_b & 5 % of #1 {x} \\y < -0.5 to 3-4 | *z*")]
    latex, markdown = written([table(["n"], [cells], title="c")], tmp_path)
    assert "a\\_b \\& 5 \\% of \\#1 \\{x\\} \\textbackslash{}y $<$ $-$0.5 to 3--4 | *z*" in latex
    assert "| a\\_b & 5 % of #1 {x} \\\\y \\< -0.5 to 3-4 \\| \\*z\\* |" in markdown
    written(results_tables(nasty_results()), tmp_path)


def test_published_columns_are_behind_a_bar_and_marked():
    columns = ["net", Column("acc", PERCENT), Column("J22", PERCENT, published=True)]
    made = table(columns, [("cnn", 0.5, 0.6919), ("crnn", NAN, None)], title="A title", n_foot=1)
    lines = str(made).splitlines()
    bar = lines[1].index("| published, other data")
    assert (lines[0], lines[2][bar], lines[4][bar]) == ("A title", "|", "|")
    assert lines[4].split() == ["cnn", "50.00", "|", "69.19"]
    assert lines[5].split() == ["crnn", "-", "|", "-"]
    assert made.csv() == 'net,acc,"J22 (published, other data)"\ncnn,0.5,0.6919\ncrnn,,\n'
    assert made.record()["rows"] == [["cnn", 0.5, 0.6919], ["crnn", None, None]]
    assert [column.title for column in made.without([1]).columns] == ["net", "J22"]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [(23000, "number", "23,000"), (0.98, "number", "0.980"), (0.5, PERCENT, "50.00")],
)
def test_a_value_has_the_text_of_its_kind(value, kind, text):
    assert cell_of(value, kind) == Cell(text, value=value)


def test_intervals_are_in_the_cells_of_their_scores_and_the_best_is_strong():
    scores = ("accuracy", "sd", "low", "high", "songs", "low", "high")
    columns = [Column("net", TEXT), *(Column(name, PERCENT) for name in scores)]
    rows = [
        ("a", 0.5, 0.1, 0.4, 0.6, 0.9, 0.8, 1.0),
        ("b", 0.75, 0.1, 0.7, 0.8, 0.5, NAN, NAN),
        ("c", *[None] * 7),
    ]
    folded = table(columns, rows).with_intervals()
    assert [column.title for column in folded.columns] == ["net", "accuracy", "sd", "songs"]
    of = [[(row[i].text, row[i].below, row[i].strong) for row in folded.rows] for i in (1, 3)]
    assert of[0] == [("50.00", "40.00 to 60.00", False), ("75.00", "70.00 to 80.00", True),
                     ("-", "", False)]  # fmt: skip
    assert of[1] == [("90.00", "80.00 to 100.00", True), ("50.00", "", False), ("-", "", False)]

"""Benches report to one table."""

import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
BENCHES = sorted(BENCH.glob("bench_*.py"))


@pytest.fixture
def figures(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    import figures

    yield figures
    sys.modules.pop("figures")


@pytest.mark.parametrize("path", BENCHES, ids=lambda path: path.stem)
def test_every_bench_has_the_options_of_all_and_gives_rows(path):
    source = path.read_text(encoding="utf-8")
    assert "bench_parser(__doc__)" in source
    assert "finish(" in source


def test_the_table_and_what_is_kept(figures, tmp_path, capsys):
    rows = [
        figures.Row("read", 120.0, "ms", "np.load", 100.0, 1.2, "<= 1.5"),
        figures.Row("train", 5.0, "clips/s", "plain", 4.0, 1.25, ">= 2"),
        figures.Row("peak", 12345.0, "MiB"),
    ]
    assert [row.met for row in rows] == [True, False, None]
    kept = tmp_path / "rows.json"
    chosen = figures.bench_parser("A bench.\n\nMore.").parse_args(["--json", str(kept)])
    figures.finish(chosen, rows)
    read, train, peak = capsys.readouterr().out.splitlines()[1:]
    assert read.split() == ["read", "120", "ms", "np.load", "100", "ms", "1.20", "<=", "1.5", "met"]
    assert train.endswith("MISSED")
    assert peak.split() == ["peak", "12,345", "MiB"]
    chosen.quick = True
    figures.finish(chosen, rows)
    # Small sizes are not judged.
    assert "MISSED" not in capsys.readouterr().out
    assert kept.read_text(encoding="utf-8").count('"what"') == 3

"""Benches report to one table."""

import importlib.util
import json
import subprocess
import sys
from collections import defaultdict
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


def test_the_table_shows_an_earlier_run_and_marks_what_became_slower(figures):
    rows = [
        figures.Row("read", 130.0, "ms", limit=65.0, share=0.5),
        figures.Row("train", 5.0, "clips/s", limit=20.0),
        figures.Row("peak", 200.0, "MiB"),
        figures.Row("write", 1.0, "s"),
    ]
    before = {"read": 100.0, "train": 5.9, "peak": 100.0}
    lines = figures.table_lines(rows, judged=True, before=before)
    header, read, train, peak, write = lines
    # Without alternatives and goals, their columns are left out.
    assert header.split() == ["measured", "value", "share", "limit", "times", "limit", "before"]
    assert read.split() == ["read", "130", "ms", "50%", "65", "2.00", "100", "SLOWER"]
    # Of rates, more is better. Memory is not time.
    assert train.split() == ["train", "5", "clips/s", "20", "4.00", "5.9"]
    assert peak.split() == ["peak", "200", "MiB", "100"]
    assert write.split() == ["write", "1", "s"]


def test_a_part_within_another_counts_once(figures, monkeypatch):
    now = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    monkeypatch.setattr(figures.time, "thread_time", lambda: next(now))

    class Reader:
        def values(self):
            yield 1

    clock = figures.Stopwatch(defaultdict(float))
    clock.watch(Reader, "values", "inner")
    with clock.part("outer"):
        values = Reader().values()
        next(values)
    assert clock.seconds == {"": 1.0, "outer": 2.0 + 4.0, "inner": 3.0}


@pytest.mark.parametrize(("processor", "known"), [("this", True), ("another", False)])
def test_only_a_run_of_the_same_machine_and_sizes_is_compared(figures, tmp_path, processor, known):
    spec = importlib.util.spec_from_file_location("bench_main", BENCH / "__main__.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    kept = tmp_path / "bench.json"
    facts = {"processor": "this", "cores": 2, "sizes": "quick"}
    assert bench.earlier_run(kept, facts) == {}
    benches = {"cache": {"seconds": 1.0, "rows": []}}
    kept.write_text(json.dumps({**facts, "processor": processor, "benches": benches}))
    assert bench.earlier_run(kept, facts) == (benches if known else {})


@pytest.fixture
def queue_events(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("queue_events")
    sys.modules.pop("queue_events")


def test_the_simulated_queue_gives_hand_computed_times(queue_events):
    simulate, costs = queue_events.simulate, queue_events.Costs()
    # Three equal tasks on two cores: one core is idle in the second half.
    run = simulate([1.0, 1.0, 1.0], 2, costs)
    assert (run.wall, run.idle, run.tail) == pytest.approx((2.0, 1 / 4, 1 / 2))
    # A long task last, and the same first.
    assert simulate([1.0, 1.0, 4.0], 2, costs).wall == pytest.approx(5.0)
    assert simulate([4.0, 1.0, 1.0], 2, costs).wall == pytest.approx(4.0)
    # A process without a task is not started.
    assert simulate([3.0], 8, costs).wall == pytest.approx(3.0)


def test_the_simulated_queue_has_starts_and_a_serial_command(queue_events):
    simulate, costs = queue_events.simulate, queue_events.Costs
    # Command and processes start at once; the first tasks wait for the slower one.
    start = costs(command=3.0, process=1.0, first=0.5)
    assert simulate([1.0, 1.0], 4, start).wall == pytest.approx(4.5)
    # Three programs share two cores for 1.5 s; then the command goes on alone for 1 s.
    assert simulate([1.0, 1.0], 2, costs(command=2.0, process=1.0)).wall == pytest.approx(3.5)
    # The second result waits until the command has taken up the first.
    run = simulate([1.0, 1.0, 1.0, 1.0], 4, costs(take_up=0.25, close=1.0))
    assert run.wall == pytest.approx(1.0 + 4 * 0.25 + 1.0)
    assert run.idle == pytest.approx(1 - (4 + 4 * 0.25 + 1) / (4 * 3))
    # Two busy cores slow each other down, one alone does not.
    assert simulate([2.0, 1.0], 2, costs(slowdown=1.5)).wall == pytest.approx(1.5 + 1.0)


def test_simulated_clips_are_shared_as_stage_one_shares_them(queue_events):
    clips, costs = [1.0] * 6, queue_events.Costs(command=1.0, process=5.0, task=0.5)
    # A single process is the command itself, and has one task.
    assert queue_events.share(clips, 1, costs).wall == pytest.approx(1.0 + 0.5 + 6.0)
    # On two cores, tasks have one clip each.
    run = queue_events.share(clips, 2, costs)
    assert run.wall == pytest.approx(5.5 + 3 * 1.5)
    lost = queue_events.losses(clips, 2, costs)
    assert lost == pytest.approx(
        {"start": 5.5, "tasks": 1.5, "command": 0, "memory": 0, "last clips": 0}
    )
    # A long clip at the end of the manifest comes first.
    assert queue_events.share([1.0] * 4 + [4.0], 2, queue_events.Costs()).wall == pytest.approx(4.0)


# A machine that is lent for its GPU may have none of the media libraries. What torch traces is run
# without generated code, whose compilation takes half a minute: test_gpu.py compares that.
WITHOUT_MEDIA = """
import functools, runpy, sys
for name in ("av", "librosa", "soundfile", "soxr"):
    sys.modules[name] = None
import torch
torch.compile = functools.partial(torch.compile, backend="aot_eager")
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_a_day_on_a_gpu_runs_at_toy_size_without_media_libraries(tmp_path):
    parts = ["profile", "train", "loader", "memory", "tune", "embed", "compiled"]
    command = [sys.executable, "-c", WITHOUT_MEDIA, str(BENCH / "gpu_day.py"), "--toy"]
    command += ["--out", str(tmp_path), "--nets", "music1d", "--only", ",".join(parts)]
    done = subprocess.run(command, check=False, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu_day.json").read_text(encoding="utf-8"))
    assert list(found["parts"]) == parts
    assert all(part["rows"] and not part["error"] for part in found["parts"].values())
    assert found["left out"] == []
    page = (tmp_path / "gpu_day.html").read_text(encoding="utf-8")
    assert all(f"<h2>{part}</h2>" in page for part in parts)


CALIBRATIONS = sorted({*BENCH.glob("calibration/*.py")} - {*BENCH.glob("calibration/[_r]*.py")})


@pytest.mark.parametrize("path", CALIBRATIONS, ids=lambda path: path.stem)
def test_every_calibration_gives_rows(path, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(path.parent))
    row = next(importlib.import_module(path.stem).rows(tmp_path, None, 2))
    assert 0 <= row.measured <= 1
    assert len(row.cells()) == 4


def test_conformal_sets_hold_what_they_state(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH / "calibration"))
    for row in importlib.import_module("conformal").rows(tmp_path, None, 40):
        # Usual sets state nothing of all ratings at once, nor of a single class.
        if row.stated == "0.900":
            assert abs(row.measured - 0.9) < 0.015 + 3 * row.error, row.what
        else:
            assert row.measured < 0.85, row.what

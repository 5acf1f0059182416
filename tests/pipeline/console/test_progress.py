"""Progress where stderr is no terminal."""

import itertools
import queue
from types import SimpleNamespace

from mvemo.pipeline.console import progress
from mvemo.pipeline.console.messages import silenced
from mvemo.pipeline.console.progress import Progress, told_as_parts


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    minutes = itertools.count(step=60.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=minutes.__next__))
    with Progress("decode", 4) as bar:
        bar.step(failed=1)
        bar.note("clip 2")
        bar.step(3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("decode: 1 of 4 clips, 1 failed, about ")
    assert lines[1].endswith(" left, clip 2")
    assert lines[2:] == ["decode: 4 of 4 clips, 1 failed, clip 2", "decode: 4 done, 1 failed"]


def test_a_log_gets_lines_while_a_step_takes_long(monkeypatch):
    lines: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(progress, "tell", lines.put)
    monkeypatch.setattr(progress, "LINE_INTERVAL", 0.001)
    with Progress("decode", 4) as bar:
        assert lines.get(timeout=60) == "decode: 0 of 4 clips"
        bar.step(4)
    with silenced(), Progress("decode", 4) as bar:
        assert not bar._in_lines


def test_short_work_is_told_once(capsys):
    with Progress("decode", 4) as bar:
        bar.step(4)
    assert capsys.readouterr().err == "decode: 4 done\n"


def test_parts_of_a_work_move_its_bar(monkeypatch, capsys):
    minutes = itertools.count(step=60.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=minutes.__next__))
    with Progress("clips", 8) as bar:
        with told_as_parts(4, 2, bar.ahead):
            with Progress("digest media", 4, "file") as part:
                part.step(4)
            for title in ("decode", "musicnn"):
                with Progress(title, 2) as part:
                    part.step()
                    part.step(failed=1)
        # What is done is counted once, however far its parts were.
        bar.step(4, failed=1)
    lines = [line.partition(", about")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        *(f"clips: {n} of 8 clips" for n in (1, 2, 3, 4)),
        "clips: 4 of 8 clips, 1 failed",
        "clips: 4 done, 1 failed",
    ]


def test_lines_of_a_long_run_are_few(monkeypatch, capsys):
    minutes = itertools.count(step=60.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=minutes.__next__))
    with Progress("clips", 600) as bar:
        for _ in range(600):
            bar.step()
    assert 30 < len(capsys.readouterr().err.splitlines()) < 60

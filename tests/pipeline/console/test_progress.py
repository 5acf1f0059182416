"""Progress where stderr is no terminal."""

import itertools
import math
import queue
import re
from itertools import pairwise
from types import SimpleNamespace

import pytest

from mvemo.pipeline.console import progress
from mvemo.pipeline.console.messages import silenced
from mvemo.pipeline.console.progress import Progress, duration_text, epoch_text, told_as_parts
from mvemo.pipeline.prediction import page
from mvemo.pipeline.prediction.timeline import TimelineSettings
from mvemo.pipeline.stage_one.division import clip_batches
from mvemo.pipeline.work_folder import size_text


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set, in `seconds`."""
    made = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: made.seconds))
    return made


@pytest.fixture
def minutes(monkeypatch):
    """A clock that goes on by a minute whenever it is read."""
    seconds = itertools.count(step=60.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=seconds.__next__))


def test_a_log_gets_a_line_now_and_then(minutes, capsys):
    with Progress("decode", 4) as bar:
        bar.step(failed=1)
        bar.note("clip 2")
        bar.step(3)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("decode: 1 of 4 clips, 1 failed, ")
    assert " clips/h, about " in lines[0]
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


def test_parts_of_a_work_move_its_bar(minutes, capsys):
    with Progress("clips", 8) as bar:
        with told_as_parts(4, ["encode", "musicnn"], bar.ahead, {}):
            with Progress("digest media", 4, "file") as part:
                part.step(4)
            for title in ("encode", "musicnn"):
                with Progress(title, 2) as part:
                    part.step()
                    part.step(failed=1)
        # What is done is counted once, however far its parts were.
        bar.step(4, failed=1)
    said = re.sub(r", \d+ clips/h, about [\d:]+ left", "", capsys.readouterr().err)
    lines = said.splitlines()
    assert lines == [
        *(f"clips: {n} of 8 clips" for n in (1, 2, 3, 4)),
        "clips: 4 of 8 clips, 1 failed",
        "clips: 4 done, 1 failed",
    ]


def test_rate_and_time_left_are_of_new_clips(clock):
    with Progress("musicnn", 110) as bar:
        bar.kept = 10
        bar.step(10)
        assert bar.pace() == (0.0, 0.0)
        clock.seconds = 50.0
        bar.step(25)
        assert bar.pace() == (1800.0, 150.0)
        bar.ahead(0.5)
        assert bar.pace()[1] == pytest.approx(50 / 25.5 * 74.5)


def test_neither_kept_clips_nor_the_start_count_in_the_pace(clock):
    with Progress("decode", 110) as bar:
        for _ in range(10):
            clock.seconds += 0.01
            bar.step()
        bar.keep(10)
        assert bar.pace() == (0.0, 0.0)
        # Workers start, and libraries are imported.
        clock.seconds += 20.0
        bar.step()
        assert bar.pace()[1] == pytest.approx(20 * 99)
        for _ in range(10):
            clock.seconds += 1.0
            bar.step()
            assert bar.pace() == pytest.approx((3600.0, 110 - bar.done))


# Seconds per clip of each part: decoding is a sixth of the work.
PARTS = {"decode": 0.3, "describe": 0.1, "musicnn": 0.4, "i3d": 1.0}


def test_the_time_left_is_known_after_a_tenth_of_the_work(clock):
    seconds, seen = {}, []
    with Progress("clips", 136) as bar:
        for n_clips in (8, *5 * [24], 8):
            # Workers start, and files are opened.
            clock.seconds += 0.5
            with told_as_parts(n_clips, list(PARTS), bar.ahead, seconds):
                for title, of_clip in PARTS.items():
                    with Progress(title, n_clips) as part:
                        for _ in range(n_clips):
                            clock.seconds += of_clip
                            part.step()
                            seen.append((clock.seconds, int(bar._reached + 1e-6), *bar.pace()))
            bar.step(n_clips)
    # The bar moves clip by clip, also inside a batch.
    shown = [n for _, n, *_ in seen]
    assert {after - before for before, after in pairwise(shown)} <= {0, 1}
    for now, _, per_hour, left in seen:
        if now > clock.seconds / 10:
            assert left == pytest.approx(clock.seconds - now, rel=0.2, abs=2.0)
            assert per_hour == pytest.approx(3600 * 136 / clock.seconds, rel=0.2)


def test_a_bar_whose_steps_turn_out_to_be_kept_has_no_pace(minutes):
    with Progress("nets", 3, "net") as bar:
        bar.step()
        bar.kept = 1
        assert bar.pace() == (0.0, 0.0)
        bar.keep(1)
        assert bar.pace() == (0.0, 0.0)
        bar.step()
        per_hour, left = bar.pace()
        assert per_hour > 0
        assert left > 0


def test_the_time_left_of_trainings_is_known_after_two_epochs(clock, capsys):
    with Progress("c3d", 3, "net") as bar:
        # Kernels are compiled in the first epoch.
        for seconds, left in ((60.0, 60 * 29), (20.0, 20 * 28), (20.0, 20 * 27)):
            clock.seconds += seconds
            for state in (0.1, "c3d@fold0 epoch 1/10"):
                bar.report(state)
            assert bar.pace()[1] == pytest.approx(left)
    assert "c3d@fold0 epoch 1/10" in capsys.readouterr().err


def test_reading_counts_less_than_nets_before_any_batch_was_timed():
    # Of 40 clips, two processes get 8 each at first, so a tenth of the work is inside a batch.
    shares = {}
    titles = ["decode", "describe", "musicnn", "effnet"]
    with told_as_parts(8, titles, lambda steps, title: shares.update({title: steps}), {}):
        for title in titles:
            with Progress(title, 1) as part:
                part.step()
    assert sum(shares.values()) == pytest.approx(8)
    assert shares["musicnn"] == shares["effnet"] == 2 * shares["decode"] == 4 * shares["describe"]


def test_lines_of_a_long_run_are_few(minutes, capsys):
    with Progress("clips", 600) as bar:
        for _ in range(600):
            bar.step()
    assert 30 < len(capsys.readouterr().err.splitlines()) < 60


def test_numbers_are_told_as_people_write_them():
    spoken = ["1.3 s", "12 s", "2 min", "2 h 5 min"]
    assert [duration_text(s) for s in (1.26, 12.3, 95, 7500)] == spoken
    assert epoch_text("i3d@fold0", 2, 20, 1.25) == "i3d@fold0 epoch 2/20, validation loss 1.250"
    assert epoch_text("i3d@fold0", 2, 20, math.nan) == "i3d@fold0 epoch 2/20"
    assert [size_text(n) for n in (1.26 * 2**30, 2.6 * 2**20, 100)] == ["1.3 GiB", "3 MiB", "0 MiB"]
    assert [page.clock(s) for s in (4.6, 75, 3723)] == ["0:04", "1:15", "1:02:03"]
    assert page.ticks(240.0) == [0.0, 60.0, 120.0, 180.0, 240.0]


def test_windows_and_tasks_divide_all():
    windows = TimelineSettings(window=4.0, hop=2.0).windows
    assert windows(7.0) == ((0.0, 4.0), (2.0, 6.0), (4.0, 7.0))
    assert windows(3.0) == ((0.0, 3.0),)
    batches = clip_batches(200 * [1], 2, 4)
    assert [row for rows in batches for row in rows] == [*range(200)]
    assert [*map(len, batches)] == [8, 8, 32, 32, 28, 20, 16, 12, 8, 8, *7 * [4]]
    assert clip_batches(7 * [1], 1, 5) == [[0, 1, 2, 3, 4], [5, 6]]
    # Long clips come first, in small tasks.
    assert clip_batches([1, 1, 9, 1, 1, 7], 2, 1) == [[2], [5], [0], [1], [3], [4]]
    # Clips of unknown weight are shared, too.
    assert clip_batches(3 * [0], 2, 1) == [[0], [1], [2]]

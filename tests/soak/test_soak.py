"""A short, seeded part of the soak: `make soak` runs the whole of it for an hour and a half."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import soak_mutations
from soak_mutations import KINDS, attack, mutate, sources
from soak_samples import write_cache
from soak_tally import Outcome, Tally, judge, left_over

from mvemo.cache import verify_cache

# Changed files of each kind.
COUNT = {"cache": 12, "manifest": 120, "predictions": 120, "array": 120, "weights": 60}


@pytest.mark.parametrize("kind", KINDS)
def test_changed_files_end_in_an_error_of_ours_or_a_value(kind: str, tmp_path: Path) -> None:
    (tmp_path / "sound").mkdir()
    paths = sources(kind, tmp_path / "sound")
    contents = [path.read_bytes() for path in paths]
    faults = []
    for number in range(COUNT[kind]):
        draw = random.Random(f"{kind}{number}")
        i = draw.randrange(len(paths))
        if what := attack(kind, mutate(contents[i], draw), paths[i].name, tmp_path):
            faults.append(f"seed {number}: {what}")
    assert faults == []


@pytest.mark.parametrize("kind", KINDS)
def test_unchanged_files_are_read(kind: str, tmp_path: Path) -> None:
    for path in sources(kind, tmp_path):
        soak_mutations.READERS[kind](path)


def test_errors_that_are_not_ours_are_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> None:
        raise ZeroDivisionError("in the reader")

    monkeypatch.setitem(soak_mutations.READERS, "array", broken)
    assert attack("array", b"", "a.npy", tmp_path) == "ZeroDivisionError: in the reader"


def test_commands_are_judged_by_how_they_end(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally()
    assert judge(tally, "done", Outcome(0, "fine"))
    assert judge(tally, "bad input", Outcome(2, "mvemo: a.csv: no such file"))
    for outcome in (
        Outcome(None, "…"),
        Outcome(-11, "Segmentation fault"),
        Outcome(1, "Traceback (most recent call last):\nKeyError"),
    ):
        assert not judge(tally, "wrong", outcome)
    assert len(tally.faults) == 3
    assert tally.lines()[-1].split() == ["3", "faults"]
    assert "hung" in capsys.readouterr().out


def test_samples_are_sound(tmp_path: Path) -> None:
    write_cache(tmp_path / "features.h5", 8)
    assert verify_cache(tmp_path / "features.h5") == []
    assert left_over(tmp_path) == []


def test_a_batch_that_hangs_is_ended_and_its_rest_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "hangs.py"
    script.write_text("import time\nprint(7, flush=True)\ntime.sleep(1000)\n")
    monkeypatch.setattr(soak_mutations, "__file__", str(script))
    monkeypatch.setattr(soak_mutations, "LOST_SECONDS", 0.3)
    tally = Tally()
    assert soak_mutations.attack_apart(tally, "cache", 7, 400) == 7
    assert tally.faults == ["mutated cache: seed 7: hung, and did not listen to an alarm"]

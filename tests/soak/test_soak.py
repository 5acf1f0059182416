"""A short, seeded part of the soak; `make soak` runs all of it."""

import pytest
import soak_mutations
from soak_mutations import READERS, attack, attack_many, sources
from soak_tally import Outcome, Tally, judge

# Number of changed files of each kind.
COUNT = {"cache": 12, "manifest": 120, "predictions": 120, "array": 120, "weights": 60}


@pytest.mark.parametrize("kind", READERS)
def test_changed_files_end_in_an_error_of_ours_or_a_value(kind, tmp_path):
    assert [fault for _, fault in attack_many(kind, range(COUNT[kind]), tmp_path) if fault] == []


@pytest.mark.parametrize("kind", READERS)
def test_unchanged_files_are_read(kind, tmp_path):
    for path in sources(kind, tmp_path):
        READERS[kind](path)


def test_errors_that_are_not_ours_are_faults(tmp_path, monkeypatch):
    def broken(path):
        raise ZeroDivisionError("in the reader")

    monkeypatch.setitem(READERS, "array", broken)
    assert attack("array", b"", "a.npy", tmp_path) == "ZeroDivisionError: in the reader"


def test_commands_are_judged_by_how_they_end(capsys):
    tally = Tally()
    assert judge(tally, "done", Outcome(0, "fine"))
    assert judge(tally, "bad input", Outcome(2, "mvemo: a.csv: no such file"))
    traceback = "Traceback (most recent call last):\nKeyError"
    for outcome in (Outcome(None, "…"), Outcome(-11, "a crash"), Outcome(1, traceback)):
        assert not judge(tally, "wrong", outcome)
    assert len(tally.faults) == 3
    assert tally.lines()[-1].split() == ["3", "faults"]
    assert "hung" in capsys.readouterr().out


def test_a_batch_that_hangs_is_ended_and_its_rest_is_tried(tmp_path, monkeypatch):
    script = tmp_path / "hangs.py"
    script.write_text("import time\nprint(7, flush=True)\ntime.sleep(1000)\n")
    monkeypatch.setattr(soak_mutations, "__file__", str(script))
    monkeypatch.setattr(soak_mutations, "LOST_SECONDS", 0.3)
    tally = Tally()
    assert soak_mutations.attack_apart(tally, "cache", 7, 400) == 7
    assert tally.faults == ["mutated cache: seed 7: hung, and did not listen to an alarm"]

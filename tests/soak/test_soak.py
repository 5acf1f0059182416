"""A short, seeded part of the soak; `make soak` runs all of it."""

import time

import pytest
import soak_mutations
from soak_mutations import READERS, attack, attack_all, sources
from soak_tally import Outcome, Tally, judge

# Number of changed files of each kind.
COUNT = {"cache": 12, "manifest": 120, "predictions": 120, "array": 120, "weights": 60}


@pytest.mark.parametrize("kind", READERS)
def test_changed_files_end_in_an_error_of_ours_or_a_value(kind):
    # A busy machine may take long to start the worker that reads.
    tally = Tally(patience=30)
    attack_all(tally, kind, range(COUNT[kind]))
    assert (tally.faults, tally.tried[f"mutated {kind}"]) == ([], COUNT[kind])


@pytest.mark.parametrize("kind", READERS)
def test_unchanged_files_are_read(kind, tmp_path):
    for path in sources(kind, tmp_path):
        READERS[kind](path)


def test_errors_that_are_not_ours_are_faults(monkeypatch):
    def broken(path):
        raise ZeroDivisionError("in the reader")

    monkeypatch.setitem(READERS, "array", broken)
    assert attack("array", 7).endswith(": ZeroDivisionError: in the reader")


def hang_once(kind, number):
    time.sleep(3600 if number == 0 else 0)


def test_a_reader_that_hangs_is_a_fault_and_the_rest_is_tried(monkeypatch):
    monkeypatch.setattr(soak_mutations, "READ_SECONDS", 1.0)
    tally = Tally()
    attack_all(tally, "weights", range(2), "test_soak:hang_once")
    assert tally.tried["mutated weights"] == 2
    assert "took longer" in tally.faults[0]


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

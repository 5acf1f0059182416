"""The comparison of goldens forgives what differs from run to run, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden_texts import differences, json_text, lasting_text, page_text

TIGHT = {"rtol": 1e-6, "atol": 1e-9}
LOOSE = {"rtol": 1e-3, "atol": 2e-3}


@pytest.mark.parametrize(
    ("before", "after", "tolerance", "differ"),
    [
        ("accuracy 0.712", "accuracy 0.7120001", TIGHT, False),
        ("accuracy 0.712", "accuracy 0.713", TIGHT, True),
        ("accuracy 0.712", "accuracy 0.713", LOOSE, False),
        ("accuracy 0.712", "accuracy 0.812", LOOSE, True),
        ("3 of 4 clips", "3 of 5 clips", LOOSE, True),
        ("macro F1 0.5", "micro F1 0.5", LOOSE, True),
        ("one line", "one line\nand one more", LOOSE, True),
    ],
)
def test_numbers_may_differ_by_the_tolerance_and_words_may_not(before, after, tolerance, differ):
    assert bool(differences(before, after, **tolerance)) == differ


def test_what_differs_from_run_to_run_is_replaced():
    digest = "0123456789abcdef"
    text = f"/tmp/x/out: 12.5 MB, digest {digest}, done in about 3 min 12 s, 2026-01-31 12:00\n\n"
    expected = "FOLDER/out: SIZE, digest {}, done in TIME, DATE\n"
    folder = Path("/tmp/x")
    assert lasting_text(text, folder, digests=True) == expected.format(digest)
    assert lasting_text(text, folder, digests=False) == expected.format("DIGEST")


def test_a_page_is_its_words_line_by_line():
    page = "<style>p {}</style><h1>A &amp; B</h1><p>one <b>two</b></p><svg>no</svg><p> </p>"
    assert page_text(page) == "A & B\none two\n"


def test_json_keeps_all_but_times_and_versions():
    text = json_text(json.dumps({"b": [1, 2], "a": {"time": 3, "x": 1.5}, "versions": {}}))
    assert json.loads(text) == {"a": {"x": 1.5}, "b": [1, 2]}

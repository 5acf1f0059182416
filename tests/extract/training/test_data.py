"""Decoded media in batches, read ahead or kept in memory."""

import numpy as np
import pytest
import torch
from toy_net import problem

from mvemo.extract.errors import BadMedia
from mvemo.extract.nets import AudioInput, SequenceInput, VideoInput
from mvemo.extract.training import data
from mvemo.extract.training.data import RawBatches, ResidentBatches, batches_for, split_rows


def reader(clips, n_frames=4):
    return RawBatches(lambda row: clips[row], SequenceInput(("mel",), n_frames))


def test_short_sequences_end_in_nan_rows_and_long_ones_are_cut():
    clips = [np.full((n, 3), n, np.float32) for n in (2, 4, 9)]
    batch = reader(clips).load([2, 0, 1])
    assert batch.dtype == torch.float32
    expected = np.stack([np.full((4, 3), n, np.float32) for n in (9, 2, 4)])
    expected[1, 2:] = np.nan
    np.testing.assert_array_equal(batch.numpy(), expected)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((0, 3), np.float32), r"row 1: expected descriptors .*, got shape \(0, 3\)"),
        (np.zeros((2, 5), np.float32), r"row 1: expected .* of 3 numbers, got shape \(2, 5\)"),
        (np.zeros(7, np.float32), r"row 1: expected .*, got shape \(4,\)"),
    ],
)
def test_sequences_that_do_not_fit_name_their_row(bad, says):
    with pytest.raises(BadMedia, match=says):
        reader([np.zeros((4, 3), np.float32), bad]).load([0, 1])


def test_frames_of_another_size_are_refused():
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    reader = RawBatches(lambda row: frames, VideoInput(n_frames=4, size=16))
    with pytest.raises(BadMedia, match=r"\(4, 8, 8, 3\)"):
        reader.load([0])


def test_batches_kept_on_a_device_are_the_same():
    waves, _ = problem()
    read = RawBatches(lambda row: waves[row], AudioInput(sr=100, seconds=0.2))
    rows = [*range(5, 30), 50]
    resident = ResidentBatches(read, rows, torch.device("cpu"))
    groups = split_rows(rows[::-1], 7)
    for batches in (read, resident):
        for group, (taken, raw) in zip(groups, batches.ahead(groups), strict=True):
            assert taken == group
            assert np.array_equal(raw.numpy(), waves[group])
    assert batches_for(read, rows, torch.device("cpu")) is read


def test_a_processor_keeps_descriptors_that_it_has_room_for(monkeypatch):
    sequences = np.random.default_rng(0).normal(size=(6, 5, 3)).astype(np.float32)
    n_read = []
    read = RawBatches(
        lambda row: n_read.append(row) or sequences[row, : row + 1],
        SequenceInput(("mfcc",), n_frames=4),
    )
    rows, groups = [0, 2, 4, 5], [[5, 0], [4, 2]]
    kept = batches_for(read, rows, torch.device("cpu"))
    expected = [raw for _, raw in read.ahead(groups)]
    n_read.clear()
    for wanted, (_, raw) in zip(expected, kept.ahead(groups), strict=True):
        torch.testing.assert_close(raw, wanted, rtol=0, atol=0, equal_nan=True)
    assert not n_read
    size = sum(raw.nbytes for raw in expected)
    for room, is_kept in ((size, True), (size - 1, False)):
        monkeypatch.setattr(data, "MAIN", room)
        assert (batches_for(read, rows, torch.device("cpu")) is not read) == is_kept

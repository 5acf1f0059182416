"""Decoded media in batches, read ahead or kept in memory."""

import numpy as np
import pytest
import torch
from toy_net import Toy, problem

from mvemo.extract.errors import BadMedia
from mvemo.extract.nets import AudioInput, SequenceInput, VideoInput
from mvemo.extract.training import data
from mvemo.extract.training.data import RawBatches, ResidentBatches, batches_for, split_rows


def reader(clips, n_frames=4):
    return RawBatches(lambda row: clips[row], SequenceInput(("mel",), n_frames))


def test_short_sequences_end_in_nan_rows_and_long_ones_are_cut():
    clips = [np.full((n, 3), n, np.float32) for n in (2, 4, 9)]
    batch = reader(clips).load([2, 0, 1])
    assert batch.shape == (3, 4, 3)
    assert batch.dtype == torch.float32
    assert (batch[0] == 9).all()
    assert (batch[1, :2] == 2).all()
    assert batch[1, 2:].isnan().all()
    assert (batch[2] == 4).all()


def test_short_waveforms_are_padded_and_long_ones_cut():
    clips = [np.ones(5, np.float32), np.full(40, 2, np.float32)]
    batch = RawBatches(lambda row: clips[row], AudioInput(sr=10, seconds=1.0)).load([0, 1])
    assert batch.shape == (2, 10)
    assert batch[0].tolist() == [1.0] * 5 + [0.0] * 5
    assert batch[1].tolist() == [2.0] * 10


def test_batches_come_ahead_in_order():
    clips = [np.full((3, 2), i, np.float32) for i in range(5)]
    seen = [
        raw[:, 0, 0].tolist() for _, raw in reader(clips, 3).ahead(split_rows(list(range(5)), 2))
    ]
    assert seen == [[0, 1], [2, 3], [4]]


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
    net = Toy(3)
    read = RawBatches(lambda row: waves[row], net.input)
    rows = [*range(5, 30), 50]
    resident = ResidentBatches(read, rows, torch.device("cpu"))
    groups = split_rows(rows[::-1], 7)
    pairs = zip(read.ahead(groups), resident.ahead(groups), strict=True)
    for (rows_read, raw), (rows_kept, kept) in pairs:
        assert rows_read == rows_kept
        assert torch.equal(raw, kept)
    assert batches_for(read, rows, torch.device("cpu")) is read


def test_a_processor_keeps_descriptors_that_it_has_room_for(monkeypatch):
    sequences = np.random.default_rng(0).normal(size=(6, 5, 3)).astype(np.float32)
    n_read = []
    read = RawBatches(
        lambda row: n_read.append(row) or sequences[row, : row + 1],
        SequenceInput(("mfcc",), n_frames=4),
    )
    rows, groups = [0, 2, 4, 5], [[5, 0], [4, 2]]
    expected = [raw for _, raw in read.ahead(groups)]
    kept = batches_for(read, rows, torch.device("cpu"))
    n_read.clear()
    for wanted, (_, raw) in zip(expected, kept.ahead(groups), strict=True):
        assert torch.equal(raw.nan_to_num(9.0), wanted.nan_to_num(9.0))
    assert not n_read
    monkeypatch.setattr(data, "MAIN", 100)
    assert batches_for(read, rows, torch.device("cpu")) is read

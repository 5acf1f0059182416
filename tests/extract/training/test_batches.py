"""Descriptor sequences in batches."""

import numpy as np
import pytest
import torch

from mvemo.extract.errors import BadMedia
from mvemo.extract.nets import SequenceInput
from mvemo.extract.training.data import RawBatches, split_rows


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


def test_batches_come_ahead_in_order():
    clips = [np.full((3, 2), i, np.float32) for i in range(5)]
    seen = [
        raw[:, 0, 0].tolist() for _, raw in reader(clips, 3).ahead(split_rows(list(range(5)), 2))
    ]
    assert seen == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((0, 3), np.float32), r"row 1: descriptors are \(0, 3\)"),
        (np.zeros((2, 5), np.float32), r"row 1: descriptors are \(2, 5\): .* of 3 numbers"),
        (np.zeros(7, np.float32), r"row 1: descriptors are \(4,\)"),
    ],
)
def test_sequences_that_do_not_fit_name_their_row(bad, says):
    with pytest.raises(BadMedia, match=says):
        reader([np.zeros((4, 3), np.float32), bad]).load([0, 1])

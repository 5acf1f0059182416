"""Predictions in words and numbers: doubt of tags and of ratings."""

from types import SimpleNamespace

import numpy as np
import pytest

from mvemo.fuse.final.formats import RatingFormat, format_of

PREDICTOR = SimpleNamespace(expected={})


def test_the_doubt_of_tags_is_their_mean_entropy():
    tags = format_of(SimpleNamespace(task="multilabel", coverage=None))
    assert tags.doubt(np.array([0.5, 0.0, 1.0])) == pytest.approx(1 / 3)
    assert tags.doubt(np.array([0.5, 0.5])) == 1.0


@pytest.mark.parametrize(
    ("errors", "doubt"),
    [([2.0, 0.1], 0.25), ([2.0, np.nan], 0.4), ([99.0, 99.0], 1.0), (None, None)],
)
def test_the_doubt_of_ratings_is_the_mean_width_of_their_intervals(errors, doubt):
    ends = {"energy": (0.0, 10.0), "tension": (-1.0, 1.0)}
    model = SimpleNamespace(task="regression", classes=tuple(ends), predictors=(), coverage=None)
    model.ends, model.limit = ends.__getitem__, lambda *_: errors and np.array(errors)
    assert isinstance(format_of(model), RatingFormat)
    fields = format_of(model)._fields(PREDICTOR, np.array([5.0, 0.5]))
    assert fields["doubt"] == (doubt if doubt is None else pytest.approx(doubt))

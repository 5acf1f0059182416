"""The error of this package, and its concrete kinds."""

from __future__ import annotations


class FuseError(Exception):
    """Base of every error that features, folds or settings of stage two cause."""


class BadFeatures(FuseError, ValueError):
    """The features cannot be evaluated as asked; the message says why and what would do."""


class LeakError(FuseError, ValueError):
    """A clip would be scored by a net that saw it, or its group, in training."""

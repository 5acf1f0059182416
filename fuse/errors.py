"""Errors of stage two."""

from __future__ import annotations


class FuseError(Exception):
    """Base of all errors that features, folds or settings of stage two cause."""


class BadFeatures(FuseError, ValueError):
    """Features that cannot be evaluated as asked; the message states the problem and the fix."""


class LeakError(FuseError, ValueError):
    """Leak: a net would score a clip that it, or a clip of its group, was trained on."""

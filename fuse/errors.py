"""Errors of stage two."""

from mvemo.manifests.errors import MvemoError


class BadFeatures(MvemoError, ValueError):
    """Features or settings that cannot be evaluated; the message states problem and fix."""


class LeakError(MvemoError, ValueError):
    """Refused evaluation: a net was trained on a clip that it would score, or on its group."""

"""Errors of stage two."""

from mvemo.manifests.errors import MvemoError


class BadFeatures(MvemoError, ValueError):
    """Features or settings that cannot be evaluated; the message states problem and fix."""


class LeakError(MvemoError, ValueError):
    """Leak: a net would score a clip that it, or a clip of its group, was trained on."""

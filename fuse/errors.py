"""Errors of stage two."""


class FuseError(Exception):
    """Base of all errors caused by features, folds or settings of stage two."""


class BadFeatures(FuseError, ValueError):
    """Features or settings that cannot be evaluated; the message states problem and fix."""


class BadPredictions(FuseError, ValueError):
    """A file that is not what ``mvemo predict`` writes; the message names file and value."""


class LeakError(FuseError, ValueError):
    """Leak: a net would score a clip that it, or a clip of its group, was trained on."""

"""Errors of the pipeline."""

from mvemo.manifests.errors import MvemoError


class WrongType(MvemoError, TypeError):
    """Argument of a function that is of another type than expected."""


class ClipFailed(MvemoError, RuntimeError):
    """Failure of a clip in a run that ends at the first failure."""


class TaskFailed(MvemoError, RuntimeError):
    """Failure of a task in another process; the message names the task."""

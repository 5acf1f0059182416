"""Errors of the pipeline."""

from mvemo.manifests.errors import MvemoError


class WrongType(MvemoError, TypeError):
    """Argument of a function with an unexpected type."""


class ClipFailed(MvemoError, RuntimeError):
    """Failure of a clip that ends a run with ``fail_fast``."""


class TaskFailed(MvemoError, RuntimeError):
    """Failure of a task in another process; the message names the task."""

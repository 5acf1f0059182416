"""Errors of the pipeline."""


class PipelineError(Exception):
    """Base class of the errors of this package."""


class BadOption(PipelineError, ValueError):
    """Wrong option or setting; the message gives its value and the allowed values."""


class WrongType(PipelineError, TypeError):
    """Argument of a function that is of another type than expected."""


class DiskFailed(PipelineError, OSError):
    """Failure to read or write a file of a work folder, such as on a full disk."""


class ClipFailed(PipelineError, RuntimeError):
    """Failure of a clip in a run that ends at the first failure."""


class TaskFailed(PipelineError, RuntimeError):
    """Failure of a task in another process; the message names the task."""

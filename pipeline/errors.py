"""The error of this package, and its concrete kinds."""

from __future__ import annotations


class PipelineError(Exception):
    """Base of every error that an option or a profile causes."""


class BadOption(PipelineError, ValueError):
    """An option or a setting is wrong; the message gives the value and those allowed."""


class ClipFailed(PipelineError, RuntimeError):
    """A clip failed, and the user had asked to end there."""


class TaskFailed(PipelineError, RuntimeError):
    """A part of a run that another process did has failed; the message names it."""

"""The errors of this package: one base, and a class for each kind of problem."""

from __future__ import annotations


class ExtractError(Exception):
    """Base of every error that media, weights or settings of stage one cause."""


class BadMedia(ExtractError, ValueError):
    """A media file cannot be read; the message names the file and the reason."""


class BadWeights(ExtractError, ValueError):
    """A weight file does not fit the net; the message names the file and the tensors."""


class BadSetting(ExtractError, ValueError):
    """A setting of stage one is out of range; the message gives the allowed values."""


class TrainingDiverged(ExtractError, ArithmeticError):
    """Training gave no finite loss.

    Parameters
    ----------
    problem
        Names the net, the fold and the epoch.
    advice
        What the user can do.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem, advice)
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.problem}: {self.advice}"


class MediaUnavailable(ExtractError, OSError):
    """A media file cannot be read now, for want of memory or by a disk's error; it may be later."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "unavailable"


class OutOfMemory(ExtractError, MemoryError):
    """A clip needs more memory than it may have."""


class WorkerDied(ExtractError, RuntimeError):
    """A worker process ended before it had answered.

    Parameters
    ----------
    reason
        Of what it was given: "it crashes its decoder (SIGSEGV)".
    passing
        Whether it may succeed at another time.
    """

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason, passing)
        self.reason = reason
        self.passing = passing

    def __str__(self) -> str:
        return self.reason


class MissingFile(ExtractError, FileNotFoundError):
    """A media or weight file does not exist or may not be opened."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "missing"


class FetchFailed(ExtractError, ConnectionError):
    """Pretrained weights could not be fetched; the message says what to do instead."""

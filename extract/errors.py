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


class MissingFile(ExtractError, FileNotFoundError):
    """A media or weight file does not exist or may not be opened."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "missing"


class FetchFailed(ExtractError, ConnectionError):
    """Pretrained weights could not be fetched; the message says what to do instead."""

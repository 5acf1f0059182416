"""Errors of this package: a base class, and a class for each kind of problem."""


class ExtractError(Exception):
    """Base class of all errors that media, weights or settings cause in stage one."""


class BadMedia(ExtractError, ValueError):
    """Error for a media file that cannot be read; the message names the file and the reason."""


class BadWeights(ExtractError, ValueError):
    """Error for weights that do not fit the net; the message names the file and the tensors."""


class BadSetting(ExtractError, ValueError):
    """Error for a setting that is out of range; the message gives the allowed values."""


class TrainingDiverged(ExtractError, ArithmeticError):
    """Error for a training run whose loss is NaN or infinite."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem, advice)
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.problem}: {self.advice}"


class MediaUnavailable(ExtractError, OSError):
    """Error for a media file that may be readable later: memory ran out, or a disk failed."""


class OutOfMemory(ExtractError, MemoryError):
    """Error for a clip that needs more memory than its limit."""


class WorkerDied(ExtractError, RuntimeError):
    """Error for a worker process that ended before it answered; "it" in `reason` is the file."""

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing  # True if it may not occur again


class MissingFile(ExtractError, FileNotFoundError):
    """Error for a media or weight file that does not exist or cannot be opened."""


class FetchFailed(ExtractError, ConnectionError):
    """Error for pretrained weights that cannot be downloaded; the message says what to do."""

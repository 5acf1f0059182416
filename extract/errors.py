"""Errors of this package: a base class, and a class for each kind of problem."""

from mvemo.manifests.errors import MvemoError


class BadMedia(MvemoError, ValueError):
    """Error for a media file that cannot be read; the message names the file and the reason."""


class BadWeights(MvemoError, ValueError):
    """Error for weights that do not fit the net; the message names the file and the tensors."""


class TrainingDiverged(MvemoError, ArithmeticError):
    """Error for a training run whose loss is NaN or infinite."""

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(problem, advice)
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.problem}: {self.advice}"


class MediaUnavailable(MvemoError, OSError):
    """Error for a media file that may be readable later: memory ran out, or a disk failed."""


class OutOfMemory(MvemoError, MemoryError):
    """Error for a clip that needs more memory than its limit."""


class WorkerDied(MvemoError, RuntimeError):
    """Error for a worker process that ended before it answered; "it" in `reason` is the file."""

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing  # True if it may not occur again


class FetchFailed(MvemoError, ConnectionError):
    """Error for pretrained weights that cannot be downloaded; the message says what to do."""


class ClipFailed(MvemoError, RuntimeError):
    """Failure of a clip that ends a run with ``fail_fast``."""


class TaskFailed(MvemoError, RuntimeError):
    """Failure of a task in another process; the message names the task."""

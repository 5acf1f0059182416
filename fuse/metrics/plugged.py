"""Metrics of plug-ins, which reports show next to the metrics of the task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.manifests.array_types import F64
from mvemo.manifests.labels import TASKS
from mvemo.manifests.plugins import Plugin, plugins


@dataclass(frozen=True)
class Metric:
    """Metric of a plug-in.

    Parameters
    ----------
    score
        Function ``score(y_true, y_pred, proba)`` of clips with predictions, which returns one
        number; NaN is allowed where a fold leaves it undefined. Classes: int64 (clips,). Tags:
        int64 and bool (clips, tags). Ratings: float64 (clips, targets). ``proba`` has the outputs
        of the model, float64 (clips, outputs).
    tasks
        Tasks of the metric, of ``multiclass``, ``multilabel`` and ``regression``.
    title
        Title of its column in tables.

    Examples
    --------
    >>> Metric(lambda y_true, y_pred, proba: (y_true == y_pred).mean(), ("multiclass",), "hits")
    Metric(score=<function <lambda> at 0x...>, tasks=('multiclass',), title='hits')
    """

    score: Callable[[NDArray[Any], NDArray[Any], F64], float]
    tasks: tuple[str, ...]
    title: str


def plugged_metrics(task: str) -> dict[str, Metric]:
    """Return the metrics of plug-ins for a task, by the key of their scores."""
    found = {name: plugin.load(_problem) for name, plugin in plugins("metrics").items()}
    return {name: metric for name, metric in found.items() if task in metric.tasks}


def _problem(value: Any) -> str:
    if not isinstance(value, Metric):
        return f"expected a mvemo.fuse.Metric, got {value!r}"
    unknown = set(value.tasks) - set(TASKS)
    return f"its tasks are {value.tasks}: expected some of {', '.join(TASKS)}" if unknown else ""


def plugged_scores(
    task: str, y_true: NDArray[Any], outputs: F64, y_pred: NDArray[Any], *, whole: bool
) -> Mapping[str, float]:
    """Return the scores of plug-ins; raise `BadOption` if one is not a number.

    If the clips are not `whole`, but those of a fold, a score may be undefined (NaN).
    """
    scores = {}
    for name, metric in plugged_metrics(task).items():
        plugin = plugins("metrics")[name]
        scores[name] = _score(plugin, metric, (y_true, y_pred, outputs)) if len(y_true) else np.nan
        if whole and len(y_true) and not np.isfinite(scores[name]):
            raise plugin.failure(f"its score of {len(y_true)} clips is {scores[name]}")
    return scores


def _score(plugin: Plugin, metric: Metric, arguments: tuple[Any, ...]) -> float:
    try:
        value = metric.score(*arguments)
    except Exception as error:
        raise plugin.failure(f"{type(error).__name__}: {error}") from error
    if np.ndim(value) or not np.issubdtype(np.asarray(value).dtype, np.number):
        raise plugin.failure(f"expected one number, got {value!r}"[:200])
    return float(value)

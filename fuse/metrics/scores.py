"""Scores of classes, tags and targets, and metrics of plug-ins; NaN if a score is undefined.

scikit-learn is too slow here: every fold of every model is scored, and its functions check the
input and rank one column at a time, which took longer than fitting the heads. The tests compare
the results with those of scikit-learn.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.numeric import Measures, complete, mean_of_finite, ratio
from mvemo.manifests.array_types import F64, Bools, Ints
from mvemo.manifests.labels import TASKS
from mvemo.manifests.plugins import Plugin, plugins

# Threshold of a tag that no training clip has.
DEFAULT_THRESHOLD = 0.5


# --- classes and tags


def confusion_matrix(y_true: Ints, y_pred: Ints, n_classes: int) -> Ints:
    """Count clips by true class (rows) and predicted class (columns), int64."""
    cells = np.bincount(y_true * n_classes + y_pred, minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def precision_recall_f1(n_true: F64, n_predicted: F64, n_right: F64) -> dict[str, F64]:
    """Return precision, recall and F1 of each column from counts of clips; NaN for 0 / 0."""
    return {
        "precision": ratio(n_right, n_predicted),
        "recall": ratio(n_right, n_true),
        "f1": ratio(2.0 * n_right, n_true + n_predicted),
    }


def decision_scores(n_true: F64, n_predicted: F64, n_right: F64) -> dict[str, F64]:
    """Return `precision_recall_f1` with 0 for 0 / 0, but NaN for a column without clips."""
    seen = n_true + n_predicted > 0
    scores = precision_recall_f1(n_true, n_predicted, n_right)
    return {name: np.where(seen, np.nan_to_num(score), np.nan) for name, score in scores.items()}


def kappa_of_counts(n_true: F64, n_predicted: F64, n_right: F64) -> F64:
    """Return Cohen's kappa (Cohen 1960, eq. 1) from counts (..., classes); NaN for 0 / 0."""
    n = n_true.sum(axis=-1)
    by_chance = ratio((n_true * n_predicted).sum(axis=-1), n * n)
    return ratio(ratio(n_right.sum(axis=-1), n) - by_chance, 1.0 - by_chance)


def mcc_of_counts(n_true: F64, n_predicted: F64, n_right: F64) -> F64:
    """Return Matthews' correlation of counts (..., classes); 0 for constant decisions.

    For more than two classes it is Gorodkin's R_K (Gorodkin 2004, eq. 8).
    """
    n = n_true.sum(axis=-1)
    covariance = n_right.sum(axis=-1) * n - (n_true * n_predicted).sum(axis=-1)
    variances = [n * n - np.square(counts).sum(axis=-1) for counts in (n_true, n_predicted)]
    mcc = ratio(covariance, np.sqrt(variances[0]) * np.sqrt(variances[1]))
    return np.where(n > 0, np.nan_to_num(mcc), np.nan)


def mcc_of_tags(n_true: F64, n_predicted: F64, n_right: F64, n: F64 | int) -> F64:
    """Return Matthews' correlation of each tag (Matthews 1975), from counts of `n` clips."""
    others = n - n_true - n_predicted + n_right
    true, predicted, right = (
        np.stack(np.broadcast_arrays(*pair), axis=-1)
        for pair in ((n_true, n - n_true), (n_predicted, n - n_predicted), (n_right, others))
    )
    return mcc_of_counts(true, predicted, right)


def multiclass_scores(y_true: Ints, proba: F64, y_pred: Ints) -> Measures:
    """Score probabilities (clips, classes) and the predicted classes (clips,).

    Balanced accuracy is the mean recall over the classes that occur; macro F1 is the mean F1 over
    the classes that occur or are predicted. The AUC is the mean one-vs-rest ROC-AUC over the
    classes that some but not all clips have, as in the AUC published by PL20's authors.
    """
    n_classes = proba.shape[1]
    counts = confusion_matrix(y_true, y_pred, n_classes).astype(float)
    by_class = counts.sum(axis=1), counts.sum(axis=0), counts.diagonal()
    per_class = precision_recall_f1(*by_class)
    auc = roc_auc(y_true[:, None] == np.arange(n_classes), proba)
    overall = {
        "accuracy": float(ratio(counts.diagonal().sum(), counts.sum())),
        "balanced_accuracy": mean_of_finite(per_class["recall"]),
        "cohen_kappa": float(kappa_of_counts(*by_class)),
        "mcc": float(mcc_of_counts(*by_class)),
        "f1_macro": mean_of_finite(per_class["f1"]),
        "roc_auc_macro_ovr": mean_of_finite(auc),
    }
    return Measures(overall, per_class)


def multilabel_scores(y_true: Ints, proba: F64, y_pred: Bools) -> Measures:
    """Score probabilities and decisions (clips, tags): means over tags (macro), and micro."""
    true = y_true.astype(bool)
    per_tag = _column_scores(true, proba, y_pred)
    column = (-1, 1)
    pairs = _column_scores(true.reshape(column), proba.reshape(column), y_pred.reshape(column))
    return Measures(
        {
            **{f"{name}_macro": mean_of_finite(values) for name, values in per_tag.items()},
            **{f"{name}_micro": float(values[0]) for name, values in pairs.items()},
        },
        per_tag,
    )


def _column_scores(y_true: Bools, proba: F64, y_pred: Bools) -> dict[str, F64]:
    true, predicted, right = (
        values.sum(axis=0, dtype=float) for values in (y_true, y_pred, y_true & y_pred)
    )
    return {
        **decision_scores(true, predicted, right),
        "mcc": mcc_of_tags(true, predicted, right, len(y_true)),
        "roc_auc": roc_auc(y_true, proba),
        "average_precision": average_precision(y_true, proba),
    }


def best_thresholds(proba: F64, y_true: Ints) -> F64:
    """Return for each tag the threshold with the highest F1 on inner predictions, float64 (tags,).

    A threshold is the mean of two neighbouring probabilities; of equally good ones the highest.
    """
    valid = complete(proba)
    positive, p = y_true[valid].astype(bool), proba[valid]
    thresholds = np.full(p.shape[1], DEFAULT_THRESHOLD)
    if not len(p):
        return thresholds
    ranking = rank_columns(positive, p)
    n_positive = positive.sum(axis=0)
    f1 = 2 * ranking.hits / (ranking.n_clips + n_positive)
    best = np.where(ranking.ends, f1, -1.0).argmax(axis=0)
    columns = np.arange(p.shape[1])
    lowest_chosen = ranking.scores[best, columns]
    next_down = ranking.scores[np.minimum(best + 1, len(p) - 1), columns]
    middle = (lowest_chosen + next_down) / 2
    # The mean of two neighbouring floats may round down to the lower one.
    middle = np.where(middle > next_down, middle, lowest_chosen)
    seen = n_positive > 0
    thresholds[seen] = middle[seen]
    return thresholds


# --- ranking


@dataclass(frozen=True)
class Ranking:
    """Clips of each column, sorted from the highest score down."""

    scores: F64  # (clips, columns), descending
    hits: F64  # (clips, columns): number of positive clips so far
    ends: Bools  # (clips, columns): True at the end of a run of equal scores; use counts there

    @property
    def n_clips(self) -> F64:
        """Return the number of clips so far, float64 (clips, 1)."""
        return np.arange(1.0, len(self.scores) + 1.0)[:, None]

    def before(self, counts: F64) -> F64:
        """Return ascending counts (clips, columns) at the end of the previous run of scores."""
        at_ends = np.maximum.accumulate(np.where(self.ends, counts, 0.0), axis=0)
        return np.vstack([np.zeros((1, counts.shape[1])), at_ends[:-1]])


def rank_columns(positive: Bools, scores: F64) -> Ranking:
    """Sort the clips of each column by descending score; scores must not contain NaN."""
    order = np.argsort(-scores, axis=0, kind="stable")
    descending = np.take_along_axis(scores, order, axis=0)
    hits = np.cumsum(np.take_along_axis(positive, order, axis=0), axis=0).astype(float)
    last = np.ones((min(len(scores), 1), scores.shape[1]), bool)
    return Ranking(descending, hits, np.vstack([descending[1:] != descending[:-1], last]))


def roc_auc(positive: Bools, scores: F64) -> F64:
    """Return the ROC-AUC of each column, ties count half; NaN if all or no clips are positive."""
    n_positive = positive.sum(axis=0).astype(float)
    n_negative = len(positive) - n_positive
    ranking = rank_columns(positive, scores)
    misses = ranking.n_clips - ranking.hits
    hits_before, misses_before = ranking.before(ranking.hits), ranking.before(misses)
    # Negative clips of a run rank below the hits before the run and tie with the hits in it.
    correct = (misses - misses_before) * (hits_before + ranking.hits) / 2.0
    return ratio(np.where(ranking.ends, correct, 0.0).sum(axis=0), n_positive * n_negative)


def average_precision(positive: Bools, scores: F64) -> F64:
    """Return the average precision of each column, without interpolation; NaN without positives."""
    ranking = rank_columns(positive, scores)
    precision = ranking.hits / ranking.n_clips
    gained = np.where(ranking.ends, ranking.hits - ranking.before(ranking.hits), 0.0)
    n_positive = positive.sum(axis=0).astype(float)
    return ratio((gained * precision).sum(axis=0), n_positive)


# --- targets


def regression_scores(y_true: F64, y_pred: F64) -> Measures:
    """Score predictions (clips, targets) for each target, and by means over targets.

    ``ccc`` is Lin's concordance correlation coefficient (Lin 1989, eq. 1), with variances over n,

        CCC = 2 cov(y, p) / (var(y) + var(p) + (mean(y) - mean(p))^2).

    R2 is NaN if labels are constant, Pearson's correlation also if predictions are constant.
    """
    if not len(y_true):
        nothing = np.full(y_true.shape[1], np.nan)
        per_target = dict.fromkeys(("r2", "rmse", "ccc", "pearson_r", "mae"), nothing)
    else:
        errors = y_true - y_pred
        squares = np.square(errors)
        y, p = y_true - y_true.mean(axis=0), y_pred - y_pred.mean(axis=0)
        spread = y_true.var(axis=0) + y_pred.var(axis=0)
        spread = spread + (y_true.mean(axis=0) - y_pred.mean(axis=0)) ** 2
        # A constant column may have deviations other than 0, because its mean is rounded.
        varies = (np.ptp(y_true, axis=0) > 0) & (np.ptp(y_pred, axis=0) > 0)
        scale = np.sqrt(np.square(y).sum(axis=0) * np.square(p).sum(axis=0))
        per_target = {
            "r2": 1.0 - ratio(squares.sum(axis=0), np.square(y).sum(axis=0)),
            "rmse": np.sqrt(squares.mean(axis=0)),
            "ccc": ratio(2.0 * (y * p).mean(axis=0), spread),
            "pearson_r": ratio((y * p).sum(axis=0), np.where(varies, scale, 0.0)),
            "mae": np.abs(errors).mean(axis=0),
        }
    means = {f"{name}_macro": mean_of_finite(values) for name, values in per_target.items()}
    return Measures(means, per_target)


# --- plug-ins


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

"""Labels that are probably wrong, ranked by predictions of heads that never saw them.

The doubt in a label is the loss of its out-of-fold prediction: for a class, minus the logarithm
of its probability (the self-confidence of confident learning, Northcutt et al. 2021, section 3.2).
How good the ranking is depends on the features. Predictions do not depend on the clip's own label,
so they show how doubtful a wrong label would be: the losses of all other labels. The share of wrong
labels cannot be measured, as a label that is merely unusual looks the same; only a bound is known
(of a mixture whose other component may be anything: Blanchard et al. 2010, section 3). So the
precision is stated for an assumed share: if so many labels are wrong, it is the share of wrong
labels among as many of the most doubtful ones.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache, ClipTable
from mvemo.fuse.crossval.evaluation import evaluate_once
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.metrics.scores import roc_auc
from mvemo.fuse.numeric import Link
from mvemo.fuse.results import Results, recommended_model
from mvemo.manifests.array_types import F64
from mvemo.manifests.relabel import format_label

# Share of wrong labels that is assumed, and exchanges of ratings that show wrong ones.
SHARE, EXCHANGES = 0.1, 20
# Shares of the most doubtful labels that bound the share of wrong ones, and standard errors above.
TAILS, ERRORS = np.geomspace(0.005, 0.5, 50), 3.0
FIELDS = ("clip_id", "label", "suggested", "probability", "doubt")
# Smallest probability in the logarithm.
LEAST = 1e-6
DEFAULT = EvaluationSettings()


@dataclass(frozen=True)
class LabelErrors:
    """Doubt in the label of each clip."""

    results: Results
    model: str  # model whose predictions are compared with the labels
    outputs: F64  # float64 (clips, outputs): its out-of-fold predictions
    doubt: F64  # float64 (clips, columns): of the class, of each tag, or of each rating
    suspects: int  # number of wrong labels that is assumed
    precision: float  # share of wrong ones among as many of the most doubtful, if so many are wrong
    at_most: float  # upper bound of the share of wrong labels
    auroc: float  # probability that a wrong label is more doubtful than a given one

    def ranking(self) -> NDArray[np.intp]:
        """Return the rows of the predicted clips, most doubtful label first."""
        doubt = self.doubt.max(axis=1)
        return np.argsort(-np.nan_to_num(doubt, nan=-np.inf))[: int(np.isfinite(doubt).sum())]

    def records(self, table: ClipTable) -> list[dict[str, Any]]:
        """Return a dict per predicted clip, most doubtful first.

        Keys: ``clip_id``; ``label`` and ``suggested`` as `format_label` writes them;
        ``probability`` of the label, of tags that of the least probable one, None for ratings;
        ``doubt``, of tags and ratings the largest one.
        """
        task, link = self.results.task.name, self.results.task.link
        records = []
        for i in self.ranking().tolist():
            y, outputs, doubt = self.results.y_true[i], self.outputs[i], self.doubt[i].max()
            if link == "sigmoid":
                pair = [[table.classes[j] for j in np.flatnonzero(v >= 0.5)] for v in (y, outputs)]
            elif link == "softmax":
                pair = [[table.classes[j]] for j in (y, outputs.argmax())]
            else:
                pair = [y.tolist(), outputs.tolist()]
            cells = [format_label(tuple(label), task) for label in pair]
            probability = None if link == "identity" else float(np.exp(-doubt))
            values = (table.clip_ids[i], *cells, probability, float(doubt))
            records.append(dict(zip(FIELDS, values, strict=True)))
        return records


def find_label_errors(
    cache: Cache, settings: EvaluationSettings = DEFAULT, share: float = SHARE
) -> LabelErrors:
    """Rank the clips by how doubtful their labels are under the recommended model.

    `share` is the share of wrong labels for which the precision is stated.
    """
    # Linear heads rank doubtful labels a little better than the kernel head (on EmoMV).
    settings = replace(settings, n_resamples=0, refit=False, temperature=False, kernel=False)
    results = evaluate_once(cache, settings)
    model = recommended_model(results)
    if model is None:
        raise BadFeatures(
            f"{cache.path}: no model predicts these clips: give more clips or --models"
        )
    link = results.task.link
    doubt = label_doubt(results.y_true, model.outputs, link)
    given = doubt[np.isfinite(doubt)]
    wrong = _wrong_doubts(results.y_true, model.outputs, link)
    both = np.concatenate([given, wrong])[:, None]
    return LabelErrors(
        results,
        model.name,
        model.outputs,
        doubt,
        round(share * len(given)),
        _precision(given, wrong, share, {"softmax": len(results.classes), "sigmoid": 2}.get(link)),
        _bound(given, wrong),
        float(roc_auc((np.arange(len(both)) >= len(given))[:, None], both)[0]),
    )


def _precision(given: F64, wrong: F64, share: float, n_classes: int | None) -> float:
    """Return the share of wrong labels that is among the `share` most doubtful ones."""
    least = np.quantile(given, 1 - share)
    level = np.mean(given == least)
    part = (share - np.mean(given > least)) / level if level else 0.0
    found = float(np.mean(wrong > least) + part * np.mean(wrong == least))
    if n_classes is not None:
        # If a given label is wrong, one of the others is right: `wrong` has so many right ones.
        right = share / (n_classes - 1) / (1 - share)
        found = (found - right * share) / (1 - right)
    return min(max(found, 0.0), 1.0)


def _bound(given: F64, wrong: F64) -> float:
    """Return the largest share of wrong labels that leaves no tail with too few labels."""
    least = np.quantile(given, 1 - TAILS)
    tail, of_wrong = ((doubt > least[:, None]).mean(axis=1) for doubt in (given, wrong))
    tail += ERRORS * np.sqrt(tail * (1 - tail) / len(given))
    return float(min(1.0, np.min(tail / np.maximum(of_wrong, 1e-9))))


def _wrong_doubts(y_true: NDArray[Any], outputs: F64, link: Link) -> F64:
    """Return the doubt in wrong labels: other classes, flipped tags, ratings of other clips."""
    if link == "softmax":
        k = outputs.shape[1]
        others = [(y_true + step) % k for step in range(1, k)]
    elif link == "sigmoid":
        others = [1 - y_true]
    else:
        rng = np.random.default_rng(0)
        others = [rng.permutation(y_true) for _ in range(EXCHANGES)]
    doubts = np.concatenate([label_doubt(y, outputs, link).ravel() for y in others])
    return doubts[np.isfinite(doubts)]


def label_doubt(y_true: NDArray[Any], outputs: F64, link: Link) -> F64:
    """Return the loss of each label, float64 (clips, columns); NaN without a prediction."""
    if link == "identity":
        deviation = y_true.std(axis=0)
        # Ratings that are all equal have no doubt.
        deviation = np.where(deviation > 0, deviation, np.inf)
        return np.asarray(np.abs(y_true - outputs) / deviation, dtype=np.float64)
    if link == "softmax":
        true = outputs[np.arange(len(outputs)), y_true][:, None]
    else:
        true = np.where(y_true > 0, outputs, 1.0 - outputs)
    return np.asarray(-np.log(np.maximum(true, LEAST)), dtype=np.float64)

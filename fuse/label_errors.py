"""Labels that are probably wrong, ranked by predictions of heads that never saw them.

The doubt in a label is the loss of its out-of-fold prediction: for a class, minus the logarithm
of its probability (the self-confidence of confident learning, Northcutt et al. 2021, section 3.2).
How good the ranking is depends on the features, so it is measured: some labels are changed on
purpose, and the share of them among as many of the most doubtful clips is the expected precision.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache, ClipTable
from mvemo.fuse.crossval.evaluation import evaluate_once
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.metrics.scores import roc_auc
from mvemo.fuse.numeric import F64, Bools, Link
from mvemo.fuse.results import Results, recommended_model
from mvemo.manifests.relabel import format_label

# Share of the labels that are changed to measure the ranking.
PLANTED = 0.1
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
    planted: int  # number of labels that were changed to measure the ranking
    precision: float  # share of them among as many of the most doubtful
    auroc: float  # probability that a changed label is more doubtful than another one

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
    cache: Cache, settings: EvaluationSettings = DEFAULT, share: float = PLANTED, seed: int = 0
) -> LabelErrors:
    """Rank the clips of a cache by how doubtful their labels are.

    Parameters
    ----------
    cache, settings
        Open cache, and settings of the evaluation; the recommended model predicts.
    share, seed
        Share of the labels that are changed to measure the ranking, and the seed of the choice.

    Raises
    ------
    BadFeatures
        No model predicts the clips, or the clips have no labels.
    """
    # Linear heads rank doubtful labels a little better than the kernel head (on EmoMV).
    settings = replace(settings, n_resamples=0, refit=False, temperature=False, kernel=False)
    results = evaluate_once(cache, settings)
    model = recommended_model(results)
    if model is None:
        raise BadFeatures(
            f"{cache.path}: no model predicts these clips: give more clips or --models"
        )
    link, rng = results.task.link, np.random.default_rng(seed)
    changed, flipped = _plant(results.y_true, len(results.classes), link, share, rng)
    table = replace(cache.table, labels=changed)
    planted = copy(cache)
    planted.table = table
    again = evaluate_once(planted, replace(settings, choose_model=False))
    outputs = next(m.outputs for m in again.models if m.name == model.name)
    doubt = label_doubt(changed, outputs, link)
    known = np.isfinite(doubt)
    n = int((flipped & known).sum())
    order = np.argsort(-doubt[known])[:n]
    return LabelErrors(
        results,
        model.name,
        model.outputs,
        label_doubt(results.y_true, model.outputs, link),
        int(flipped.sum()),
        float(flipped[known][order].mean()) if n else float("nan"),
        float(roc_auc(flipped[known][:, None], doubt[known][:, None])[0]),
    )


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


def _plant(
    y_true: NDArray[Any], n_outputs: int, link: Link, share: float, rng: np.random.Generator
) -> tuple[NDArray[Any], Bools]:
    """Return labels of which a share is changed, and a mask of the changed entries, by column."""
    y = y_true.reshape(len(y_true), -1).copy()
    flipped = rng.random(y.shape) < share
    if link == "softmax":
        y[flipped] = (y[flipped] + rng.integers(1, n_outputs, int(flipped.sum()))) % n_outputs
    elif link == "sigmoid":
        y[flipped] = 1 - y[flipped]
    else:
        for column, mask in zip(y.T, flipped.T, strict=True):
            # A rating is exchanged for that of another clip.
            column[mask] = rng.permutation(column[mask])
    return y.reshape(y_true.shape), flipped

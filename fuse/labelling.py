"""Labels that are probably wrong, and clips to label next.

Wrong labels are ranked by predictions of heads that never saw them.

The doubt in a label is the loss of its out-of-fold prediction: for a class, minus the logarithm
of its probability (the self-confidence of confident learning, Northcutt et al. 2021, section 3.2).
How good the ranking is depends on the features. Predictions do not depend on the clip's own label,
so they show how doubtful a wrong label would be: the losses of all other labels. The share of wrong
labels cannot be measured, as a label that is merely unusual looks the same; only a bound is known
(of a mixture whose other component may be anything: Blanchard et al. 2010, section 3). So the
precision is stated for an assumed share: if so many labels are wrong, it is the share of wrong
labels among as many of the most doubtful ones.

Clips to label next are uncertain under a model of the labelled clips, and unlike each other.
The most uncertain clips are often near copies of each other; each choice therefore also counts the
distance to the labelled clips and to those chosen before (greedy k-centre: Sener and Savarese
2018, "Active learning for convolutional neural networks: a core-set approach").
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances_argmin_min

from mvemo.cache import TEST, TRAIN, Cache, ClipTable
from mvemo.fuse import models, numeric
from mvemo.fuse.crossval.evaluation import evaluate_once
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.metrics.scores import roc_auc
from mvemo.fuse.results import Results, recommended_model
from mvemo.fuse.scaling import fit_scaling
from mvemo.fuse.stores import FeatureStore, MemoryStore, joined, selected
from mvemo.fuse.tasks import task_of
from mvemo.manifests.array_types import F64
from mvemo.manifests.schemes import format_label

# Assumed share of wrong labels, and number of permutations of ratings that simulate wrong labels.
SHARE, EXCHANGES = 0.1, 20
# Shares of most doubtful labels from which the bound is computed, and its margin (standard errors).
TAILS, ERRORS = np.geomspace(0.005, 0.5, 50), 3.0
ERROR_FIELDS = ("clip_id", "label", "suggested", "probability", "doubt")
# Smaller probabilities are raised to this before taking logarithms.
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
    precision: float  # estimated share of wrong labels among the `suspects` most doubtful
    at_most: float  # upper bound of the share of wrong labels
    auroc: float  # probability that a wrong label is more doubtful than a given one

    def ranking(self) -> NDArray[np.intp]:
        """Return the rows of the predicted clips, most doubtful label first."""
        doubt = self.doubt.max(axis=1)
        return np.argsort(-np.nan_to_num(doubt, nan=-np.inf))[: int(np.isfinite(doubt).sum())]

    def records(self, table: ClipTable) -> list[dict[str, Any]]:
        """Return a dict per predicted clip, most doubtful first.

        Keys: ``clip_id``; ``label`` and ``suggested`` as `format_label` writes them;
        ``probability`` of the label (of the least probable tag; None for ratings); ``doubt`` (the
        largest one of several tags or ratings).
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
            records.append(dict(zip(ERROR_FIELDS, values, strict=True)))
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
    """Return the fraction of wrong labels found by flagging the `share` most doubtful labels."""
    least = np.quantile(given, 1 - share)
    level = np.mean(given == least)
    part = (share - np.mean(given > least)) / level if level else 0.0
    found = float(np.mean(wrong > least) + part * np.mean(wrong == least))
    if n_classes is not None:
        # `wrong` has all classes other than the given one. If that is wrong, one of them is right.
        right = share / (n_classes - 1) / (1 - share)
        found = (found - right * share) / (1 - right)
    return min(max(found, 0.0), 1.0)


def _bound(given: F64, wrong: F64) -> float:
    """Return the largest share of wrong labels that no tail of doubtful labels contradicts."""
    least = np.quantile(given, 1 - TAILS)
    tail, of_wrong = ((doubt > least[:, None]).mean(axis=1) for doubt in (given, wrong))
    tail += ERRORS * np.sqrt(tail * (1 - tail) / len(given))
    return float(min(1.0, np.min(tail / np.maximum(of_wrong, 1e-9))))


def _wrong_doubts(y_true: NDArray[Any], outputs: F64, link: numeric.Link) -> F64:
    """Return the doubt in simulated errors: other classes, flipped tags, other clips' ratings."""
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


def label_doubt(y_true: NDArray[Any], outputs: F64, link: numeric.Link) -> F64:
    """Return the loss of each label, float64 (clips, columns); NaN without a prediction."""
    if link == "identity":
        deviation = y_true.std(axis=0)
        # If all ratings of a target are equal, their doubt is 0.
        deviation = np.where(deviation > 0, deviation, np.inf)
        return np.abs(y_true - outputs) / deviation
    if link == "softmax":
        true = outputs[np.arange(len(outputs)), y_true][:, None]
    else:
        true = np.where(y_true > 0, outputs, 1.0 - outputs)
    return -np.log(np.maximum(true, LEAST))


# --- clips to label next

NEXT_FIELDS = ("clip_id", "path", "label", "uncertainty")


@dataclass(frozen=True)
class NextLabel:
    """Clip to label: id, path or group, predicted label, uncertainty in 0..1."""

    clip_id: str
    path: str
    label: str
    uncertainty: float


def next_labels(
    labelled: FeatureStore, unlabelled: FeatureStore, n: int | None = None
) -> list[NextLabel]:
    """Rank unlabelled clips, such as those of a catalogue, by how useful their labels would be.

    Features that both stores have (same name and size) are compared. `n` is the number of clips.
    """
    known, new = _common(labelled, unlabelled)
    names, link, table = np.array(known.table.classes), task_of(known.table.task).link, new.table
    uncertainty, predicted = np.ones(len(table)), [""] * len(table)
    if link != "identity":
        p = np.clip(_outputs(known, new), 1e-12, 1 - 1e-12)
        if link == "softmax":
            predicted = names[p.argmax(axis=1)].tolist()
            uncertainty = -np.sum(p * np.log(p), axis=1) / np.log(len(names))
        else:
            predicted = [";".join(names[row > 0.5]) for row in p]
            uncertainty = -(p * np.log2(p) + (1 - p) * np.log2(1 - p)).mean(axis=1)
    return [
        NextLabel(table.clip_ids[i], table.groups[i], predicted[i], float(uncertainty[i]))
        for i in _k_centre(*_standardised(known, new), uncertainty, n)
    ]


def _common(labelled: FeatureStore, unlabelled: FeatureStore) -> tuple[MemoryStore, MemoryStore]:
    """Return the clips of both stores that have all features common to the stores."""
    stores = labelled, unlabelled
    forms = [{(s.name, s.kind, s.fold, s.modality, s.dim) for s in of.specs} for of in stores]
    both = {
        name for name, kind, fold, *_ in forms[0] & forms[1] if (kind, fold) == ("vector", None)
    }
    if not both:
        first, second = (
            f"{of.path} ({', '.join(spec.name for spec in of.specs) or 'no features'})"
            for of in stores
        )
        raise BadFeatures(f"{first} and {second} share no feature: embed both with the same nets")
    parts = []
    for of in stores:
        specs = [spec for spec in of.specs if spec.name in both]
        rows = np.logical_and.reduce([of.present(spec.name) for spec in specs])
        if not rows.any():
            listing = ", ".join(sorted(both))
            raise BadFeatures(f"{of.path}: no clip has all of the features {listing}")
        parts.append(selected(of, specs, np.flatnonzero(rows)))
    return parts[0], parts[1]


def _outputs(known: MemoryStore, new: MemoryStore) -> F64:
    """Train a head on all features of the labelled clips, and return its outputs for new clips."""
    table, n = known.table, len(new.table)
    (*_, model) = models.models_of({spec.name: spec.modality for spec in known.specs})
    settings = EvaluationSettings(
        models=(model.name,), choose_model=False, temperature=False, missing_modality=False
    )
    # The labels of tested clips are not read, so they may have any value.
    unknown = np.zeros((n, *table.labels.shape[1:]), table.labels.dtype)
    facts = {"task": table.task, "classes": table.classes, "labels": unknown}
    parts = [known, selected(new, new.specs, np.arange(n), **facts)]
    (result,) = evaluate_once(joined(parts, (TRAIN, TEST)), settings).models
    return result.outputs[len(table) :]


def _standardised(known: MemoryStore, new: MemoryStore) -> tuple[F64, F64]:
    """Return all features of the labelled and of the new clips, float64 (clips, dim)."""
    x, z = (np.hstack([of.vectors(spec.name)[0] for spec in of.specs]) for of in (known, new))
    scaling, _ = fit_scaling(x, np.ones(len(x), np.bool_))
    return scaling.apply(x).astype(np.float64), scaling.apply(z).astype(np.float64)


def _k_centre(x: F64, z: F64, weight: F64, n: int | None) -> list[int]:
    """Choose rows of `z` one by one, by weight times distance to `x` and to earlier choices."""
    nearest = pairwise_distances_argmin_min(z, x)[1]
    chosen = list[int]()
    for _ in range(len(z) if n is None else min(n, len(z))):
        score = weight * nearest
        score[chosen] = -1.0
        chosen.append(int(score.argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(z - z[chosen[-1]], axis=1))
    return chosen

"""The final model: heads fitted on all clips, with the scores to expect of them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import FeatureSpec
from mvemo.cache.spec import row_key
from mvemo.fuse.arrays import F64
from mvemo.fuse.crossval.saving import SavedHeads
from mvemo.fuse.matrices.scaling import CONSTANT
from mvemo.manifests.text_table import listed

# Share of the training clips that count as typical: a clip is unlike them if it lies farther
# from them than this share of them does, each compared with the others.
TYPICAL_SHARE = 0.99
# Share of training residuals inside the interval of a predicted value.
INTERVAL_SHARE = 0.9

# Types of a head's arrays in files: a few hundred kB for some thousand numbers per clip.
HEAD_DTYPES: dict[str, type[np.floating]] = {
    "coef": np.float16,
    "mean": np.float32,
    "scale": np.float32,
}

# A feature's name, and the fold whose net made it (None if all folds share one).
FeatureKey = tuple[str, int | None]


@dataclass(frozen=True)
class Predictor:
    """One way of a model to predict a clip, from some of its features."""

    name: str  # of the evaluated model, or of what is left of it with a modality missing
    features: tuple[str, ...]  # cached features that it needs
    modalities: tuple[str, ...]  # modalities that it needs
    # JSON values: ``metric``, its cross-validated ``mean`` over folds (None if it was not
    # evaluated), the mean's 95 % ``interval``, all ``scores``, and those of each output
    # (``per_output``).
    expected: Mapping[str, Any]
    # Temperature of the probabilities, fitted on out-of-fold predictions; 1 if none was fitted.
    temperature: float = 1.0
    # Regression: (low, high) of each target, the quantiles of out-of-fold residuals that hold
    # `INTERVAL_SHARE` of them; empty for other tasks.
    residuals: tuple[tuple[float, float], ...] = ()
    # Bases of a product of some of the model's single features; otherwise empty.
    bases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reference:
    """Location of the training clips in one feature."""

    mean: F64  # float64 (dim,): of the training clips
    scale: F64  # float64 (dim,): of the training clips
    threshold: float  # largest usual distance; infinite if all training clips are equal
    # Number of training clips that mean, scale and threshold were fitted on; 0 in models of
    # earlier versions.
    compared: int = 0

    @property
    def rank(self) -> int:
        """Return the rank, from 1, of the largest usual distance among the training clips.

        A new clip of their kind lies farther with a probability of 1 - rank / (compared + 1).
        """
        return min(self.compared, math.ceil(TYPICAL_SHARE * (self.compared + 1)))

    def distance(self, x: NDArray[np.floating]) -> F64:
        """Return the root mean square of standardised values (clips, dim): float64 (clips,)."""
        z = (x - self.mean) / self.scale
        return np.asarray(np.sqrt(np.mean(z * z, axis=1)), dtype=np.float64)

    def distance_from_others(self, x: NDArray[np.floating]) -> F64:
        """Return the distance of each of some training clips from all others, float64 (clips,).

        Without the clip itself, a coordinate z of n clips is z √(n / (n - 1 - z²)). The deviation
        of a column that is constant in the others is 1.
        """
        n, off = self.compared, x - self.mean
        rest = n - 1 - np.square(off / self.scale)
        constant = rest < CONSTANT * n
        variance = np.where(constant, (1 - 1 / n) ** 2, self.scale**2 * rest / n)
        return np.asarray(np.sqrt(np.mean(off * off / variance, axis=1)), dtype=np.float64)


@dataclass(frozen=True)
class FinalModel:
    """Everything that a prediction of new clips needs, except for the nets."""

    name: str  # of the data set
    task: str  # ``multiclass``, ``multilabel`` or ``regression``
    heads: SavedHeads  # fitted on all clips
    # Origin of each feature, as in the cache, without the clips that a net was trained on.
    specs: tuple[FeatureSpec, ...]
    # Best first, by the primary metric's mean over folds; each predicts clips that lack a feature
    # that all predictors before it need.
    predictors: tuple[Predictor, ...]
    reference: Mapping[FeatureKey, Reference]  # by feature and net
    # Regression: target to ``minimum``, ``maximum``, ``mean`` and ``deviation`` of its labels.
    scale: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    # JSON values: number of clips and groups, protocol, digests, settings, record of stage one,
    # remarks (``notes``).
    facts: Mapping[str, Any] = field(default_factory=dict)
    # uint64 (keys,), sorted: `short_keys` of the rows that the heads were fitted on; empty in
    # models of earlier versions.
    training_keys: NDArray[np.uint64] = field(default_factory=lambda: short_keys(()))

    def __repr__(self) -> str:
        """Return one line."""
        names = listed([predictor.name for predictor in self.predictors])
        return f"<FinalModel {self.name!r}, {self.task}: {listed(self.classes)}; by {names}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the outputs, in their order."""
        return self.heads.classes

    @property
    def within_groups(self) -> bool:
        """Return True if features are standardised within groups before heads read them."""
        return bool(self.facts.get("within_groups"))

    def best(self, modalities: tuple[str, ...], without: Collection[str] = ()) -> Predictor | None:
        """Return the best predictor for these modalities that reads no feature of `without`."""
        for predictor in self.predictors:
            readable = set(predictor.modalities) <= set(modalities)
            if readable and not set(predictor.features) & set(without):
                return predictor
        return None

    def best_of(self, features: Collection[str]) -> Predictor | None:
        """Return the best predictor that needs only these features, or None."""
        return next((p for p in self.predictors if set(p.features) <= set(features)), None)

    def expected_of(self, predictor: Predictor) -> Mapping[str, Any]:
        """Return the scores to expect of a predictor.

        For the recommended model, `metric`, `mean` and `interval` are those that the report
        states, including the cost of the choice (`mvemo.fuse.crossval.choice`).
        """
        nested = self.facts.get("nested") or {"model": None}
        chosen = nested["model"] == predictor.name and nested["mean"] is not None
        return nested if chosen else predictor.expected

    def variants(self, feature: str) -> tuple[FeatureSpec, ...]:
        """Return the specs of a feature: one, or one per fold's net."""
        return tuple(spec for spec in self.specs if spec.name == feature)

    def false_alarms(self, predictor: Predictor) -> float:
        """Return an upper bound of the share of ordinary clips that are called unlike.

        Shares of features add up. The bound is 1 for models of earlier versions.
        """
        shares = {
            name: 1 - reference.rank / (reference.compared + 1)
            for (name, _), reference in self.reference.items()
            if name in predictor.features
        }
        return min(1.0, sum(shares.values()))

    def trained_on(self, content: str, start: float, duration: float | None) -> bool:
        """Return True if the heads were fitted on this stretch of a file with this digest."""
        digests = [stored_as(spec)[1] for spec in self.specs]
        keys = short_keys(row_key(d, content, start, duration).encode() for d in digests)
        return bool(np.isin(keys, self.training_keys).any())


def stored_as(spec: FeatureSpec) -> tuple[str, str]:
    """Return name and digest of a cached feature; for statistics, those of the first sequence."""
    if "descriptors" not in spec.params:
        return spec.name, spec.digest
    name = spec.params["order"][0]
    return name, spec.params["descriptors"][name]


def short_keys(keys: Iterable[bytes]) -> NDArray[np.uint64]:
    """Return the first 64 bits of keys of cached rows, sorted and unique."""
    return np.unique(np.array([int(key[:16], 16) for key in keys if key], dtype=np.uint64))

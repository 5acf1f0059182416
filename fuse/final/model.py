"""A final model: heads fitted on all clips, their predictions, and the scores to expect."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.spec import FeatureSpec, row_key
from mvemo.fuse import models, numeric, scaling
from mvemo.fuse.conformal import GRID, JOINTLY, OPTIONS, PER_CLASS, Asked, few_groups_warning
from mvemo.fuse.crossval.saving import SavedHeads
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.final.reference import Reference
from mvemo.fuse.heads.head import Head
from mvemo.fuse.metrics.calibration import apply_temperature
from mvemo.fuse.tasks import task_of
from mvemo.manifests.array_types import F64
from mvemo.manifests.labels import parse_scale
from mvemo.manifests.text_table import listed

# Share of new clips whose rating is inside the interval of a predicted value.
INTERVAL_SHARE = 0.9

# A feature's name, and the fold whose net made it (None if all folds share one net).
FeatureKey = tuple[str, int | None]
# Values of each feature and net, float64 (clips, dim).
Vectors = Mapping[FeatureKey, F64]


@dataclass(frozen=True)
class Predictor:
    """Part of a model that predicts clips from some of the model's features."""

    name: str  # of the evaluated model, or of its fallback if a modality is missing
    features: tuple[str, ...]  # cached features that it needs
    modalities: tuple[str, ...]  # modalities that it needs
    # JSON values: ``metric``, its ``mean`` over folds (None if not evaluated), the mean's 95 %
    # ``interval``, all ``scores``, and those of each output (``per_output``).
    expected: Mapping[str, Any]
    # Temperature of the probabilities, fitted on out-of-fold predictions; 1 if none was fitted.
    temperature: float = 1.0
    # Bases of a product, if it multiplies only some of the single features; otherwise empty.
    bases: tuple[str, ...] = ()
    # `mvemo.fuse.conformal.limits` of the calibrated out-of-fold outputs: a row for each coverage
    # in `GRID`; empty if there was no evaluation. `optional` are the limits for the sets of
    # `OPTIONS`, in single precision.
    nonconformity: tuple[tuple[float, ...], ...] = ()
    optional: tuple[tuple[float, ...], ...] = ()
    limit_groups: int | None = None  # number of groups behind these limits


@dataclass(frozen=True)
class FinalModel:
    """Everything that a prediction of new clips needs, except for the nets."""

    name: str  # of the data set
    task: str  # ``multiclass``, ``multilabel`` or ``regression``
    heads: SavedHeads  # fitted on all clips
    # Origin of each feature, as in the cache, without the clips that a net was trained on.
    specs: tuple[FeatureSpec, ...]
    predictors: tuple[Predictor, ...]  # best first; the first with all features predicts
    reference: Mapping[FeatureKey, Reference]  # by feature and net
    # Regression: target to ``minimum``, ``maximum``, ``mean`` and ``deviation`` of its labels.
    scale: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)  # JSON values from `building._facts`
    # uint64 (keys,), sorted: `short_keys` of the training rows
    training_keys: NDArray[np.uint64] = field(default_factory=lambda: short_keys(()))
    digest: str = ""  # SHA-256 of everything in the folder; empty for a model not yet saved
    date: str = ""  # time at which the folder was written, ISO 8601 in UTC
    # Coverage of the sets; None for predictions without sets.
    asked: Asked | None = None
    # Cached `spread_of` the training clips, by predictor.
    spreads: dict[str, F64] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        """Describe the model in one line."""
        names = listed([predictor.name for predictor in self.predictors])
        return f"<FinalModel {self.name!r}, {self.task}: {listed(self.classes)}; by {names}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the outputs, in their order."""
        return self.heads.classes

    @property
    def coverage(self) -> float | None:
        """Return the share of new clips whose sets must contain the label, or None."""
        return None if self.asked is None else self.asked.share

    @property
    def within_groups(self) -> bool:
        """Return True if heads read features that are standardised within groups."""
        return bool(self.facts.get("within_groups"))

    def ends(self, target: str) -> tuple[float, float]:
        """Return the ends of a target's rating scale; if none is stated, of the training clips."""
        trained = self.scale[target]["minimum"], self.scale[target]["maximum"]
        if not self.facts.get("scale"):
            return trained
        low, high = parse_scale(self.facts["scale"])
        # The scale holds for valence and arousal; other targets may have another one.
        return (low, high) if low <= trained[0] and trained[1] <= high else trained

    def best(self, modalities: tuple[str, ...], without: Collection[str] = ()) -> Predictor | None:
        """Return the best predictor for these modalities that reads no feature of `without`."""
        readable = (p for p in self.predictors if set(p.modalities) <= set(modalities))
        return next((p for p in readable if not set(p.features) & set(without)), None)

    def best_of(self, features: Collection[str]) -> Predictor | None:
        """Return the best predictor that needs only these features, or None."""
        return next((p for p in self.predictors if set(p.features) <= set(features)), None)

    def expected_of(self, predictor: Predictor) -> Mapping[str, Any]:
        """Return the expected scores; for the recommended model, with the cost of choosing it."""
        nested = self.facts.get("nested") or {"model": None}
        chosen = nested["model"] == predictor.name and nested["mean"] is not None
        return nested if chosen else predictor.expected

    def limit(self, predictor: Predictor, default: float | None = None) -> F64 | None:
        """Return the largest nonconformity in a set, float64 (1,) or (outputs,).

        `default` is the coverage if the user asked for none. The limit is None if there is no
        coverage, or if the predictor has no thresholds.
        """
        coverage = self.coverage or default
        optional = self.asked is not None and self.asked.option
        rows = predictor.optional if optional else predictor.nonconformity
        if coverage is None or not rows:
            return None
        return np.array(rows[int(np.searchsorted(GRID, coverage - 1e-9))], dtype=np.float64)

    def few_groups(self, predictor: Predictor) -> str:
        """Return a warning if the sets or intervals come from few groups, otherwise ''."""
        kind = "intervals" if self.task == "regression" else "sets"
        n = predictor.limit_groups or self.facts["n_groups"]
        return few_groups_warning(kind, n) if predictor.nonconformity else ""

    def variants(self, feature: str) -> tuple[FeatureSpec, ...]:
        """Return the specs of a feature: one, or one per fold's net."""
        return tuple(spec for spec in self.specs if spec.name == feature)

    def alarm(self, predictor: Predictor) -> Mapping[str, Any]:
        """Return a predictor's alarm from `reference.fit_references`, or {}."""
        return self.facts.get("alarm", {}).get(predictor.name, {})

    def trained_on(self, content: str, start: float, duration: float | None) -> bool:
        """Return True if the heads were fitted on this time range of a file with this digest."""
        return any(self.knows(row_key(d, content, start, duration)) for d in self.digests)

    def knows(self, key: str | bytes) -> bool:
        """Return True if the heads were fitted on the cached row with this key."""
        return bool(key) and int(key[:16], 16) in self._trained

    @cached_property
    def digests(self) -> frozenset[str]:
        """Digests under which the features that the heads read are cached."""
        return frozenset(stored_as(spec)[1] for spec in self.specs)

    @cached_property
    def _trained(self) -> frozenset[int]:
        return frozenset(self.training_keys.tolist())


def stored_as(spec: FeatureSpec) -> tuple[str, str]:
    """Return the name and digest of a feature (of statistics: the first sequence) in caches."""
    if "descriptors" not in spec.params:
        return spec.name, spec.digest
    name = spec.params["order"][0]
    return name, spec.params["descriptors"][name]


def short_keys(keys: Iterable[bytes]) -> NDArray[np.uint64]:
    """Return the first 64 bits of the keys of cached rows, sorted, without duplicates."""
    return np.unique(np.array([int(key[:16], 16) for key in keys if key], dtype=np.uint64))


def asked_of(coverage: float | None, *, per_class: bool, jointly: bool) -> Asked | None:
    """Return the coverage that these options ask for, or None; raise `BadFeatures` if invalid."""
    options = [PER_CLASS] * per_class + [JOINTLY] * jointly
    if len(options) > 1:
        raise BadFeatures(f"{PER_CLASS}, {JOINTLY}: expected one of them, got both")
    if coverage is None and options:
        raise BadFeatures(f"{options[0]} needs a coverage: add --coverage 0.9")
    return None if coverage is None else Asked(coverage, *options)


def with_coverage(model: FinalModel, asked: Asked | None) -> FinalModel:
    """Return the model with a coverage asked of its sets; None asks for predictions only."""
    if asked is None:
        return model
    if not GRID[0] <= asked.share <= GRID[-1]:
        raise BadFeatures(f"--coverage {asked.share:g}: expected {GRID[0]:g} to {GRID[-1]:g}")
    fitting = OPTIONS[task_of(model.task).link]
    if asked.option not in ("", fitting):
        kinds = "ratings" if asked.option == JOINTLY else "classes or tags"
        raise BadFeatures(
            f"{asked.option} is for models of {kinds}, but {model.name} is not one: leave it out, "
            f"or give {fitting}"
        )
    found = [p.optional if asked.option else p.nonconformity for p in model.predictors]
    if not any(found):
        raise BadFeatures(
            f"the model {model.name} has no thresholds for {asked.option or '--coverage'}, as it "
            "is of an earlier version: make it again with 'mvemo fuse FEATURES --final'"
        )
    return replace(model, asked=asked)


def predict_clips(model: FinalModel, predictor: Predictor, vectors: Vectors) -> F64:
    """Return calibrated probabilities, or predicted values, float64 (clips, outputs)."""
    outputs = _outputs(model, predictor, vectors)
    if task_of(model.task).exclusive:
        return apply_temperature(outputs, predictor.temperature)
    return outputs


def _outputs(model: FinalModel, predictor: Predictor, vectors: Vectors) -> F64:
    layer = second_layer(model, predictor)
    if layer is None:
        # The mean over the nets of all folds.
        heads = feature_heads(model, predictor)
        return np.mean([head.predict(head_inputs(head, vectors)) for head in heads], axis=0)
    by_name = {m.name: Predictor(m.name, m.features, m.modalities, {}) for m in model.heads.models}
    bases = [_outputs(model, by_name[base], vectors) for base in layer.features]
    x = [numeric.decision_inputs(values, layer.link) for values in bases]
    return layer.predict(np.concatenate(x, axis=1))


def second_layer(model: FinalModel, predictor: Predictor) -> Head | None:
    """Return a predictor's head over other heads' outputs; None if it reads features."""
    if predictor.bases:
        (product,) = model.heads.select(models.LATE)
        return late_part(product, predictor.bases)
    if predictor.name in models.SECOND_LAYERS:
        (head,) = model.heads.select(predictor.name)
        return head
    return None


def standardise_folders(model: FinalModel, vectors: Vectors, groups: Sequence[str]) -> Vectors:
    """Standardise vectors (clips, dim) within groups if the model's heads require it."""
    if not model.within_groups:
        return vectors
    scaled = {}
    for key, values in vectors.items():
        present = numeric.complete(values)
        others = scaling.Scaling(model.reference[key].mean, model.reference[key].scale)
        x = np.where(present[:, None], values, 0.0).astype(np.float32)
        within = scaling.standardise_within(x, present, groups, others)
        scaled[key] = np.where(present[:, None], within, np.nan)
    return scaled


def tag_thresholds(model: FinalModel, predictor: Predictor) -> F64:
    """Return the threshold of each tag's probability, float64 (tags,); 0.5 if not fitted."""
    layer = second_layer(model, predictor)
    heads = feature_heads(model, predictor) if layer is None else (layer,)
    fitted = [head.thresholds for head in heads if head.thresholds is not None]
    return np.mean(fitted or [np.full(len(model.classes), 0.5)], axis=0)


def feature_heads(model: FinalModel, predictor: Predictor) -> tuple[Head, ...]:
    """Return a predictor's heads over features, one for each fold's nets."""
    if models.is_named(predictor.name):
        return model.heads.select(predictor.name)
    return model.heads.select_features(predictor.features)


def head_inputs(head: Head, vectors: Vectors) -> F64:
    """Return the concatenated features that a head reads, float64 (clips, dim)."""
    keys = [(name, head.net_fold) for name in head.features]
    x = [vectors[key] if key in vectors else vectors[key[0], None] for key in keys]
    return np.concatenate(x, axis=1, dtype=np.float64)


def late_part(head: Head, names: Sequence[str]) -> Head:
    """Return the head of a product that multiplies only the outputs of the bases in `names`."""
    n_outputs = len(head.intercept)
    # Shape (outputs, bases, outputs): only the diagonals over outputs are not zero.
    blocks = head.coef.astype(np.float64).reshape(n_outputs, len(head.features), n_outputs)
    part = blocks[:, [head.features.index(name) for name in names]]
    if head.link == "identity":
        share = part.sum(axis=(1, 2))
    else:
        share = np.full(n_outputs, len(names) / len(head.features))
    coef = (part / share[:, None, None]).reshape(n_outputs, -1)
    zeros, ones = np.zeros(coef.shape[1]), np.ones(coef.shape[1])
    return replace(
        head, features=tuple(names), mean=zeros, scale=ones, coef=coef.astype(np.float32)
    )

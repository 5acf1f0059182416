"""Fusion models: sets of features whose vectors are concatenated.

A model's name states its features: ``c3d+music1d`` joins C3D and the 1D music net (PL20
section 3.4), ``integrated`` joins all features.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from math import prod

from mvemo.cache import MODALITIES
from mvemo.fuse.errors import BadFeatures

# Order of features in reports; other features follow, sorted by name.
AUDIO = ("music1d", "music2d")
VIDEO = ("c3d", "i3d")
FIRST = dict(zip(MODALITIES, (AUDIO, VIDEO), strict=True))
INTEGRATED = "integrated"
STACKED = "integrated-stacked"
LATE = "integrated-late"
# Kernel head over all features.
KERNEL = "kernel"
# Mean of the values of the kernel head and of the best linear model.
BLENDED = "integrated-blended"
WITH_KERNEL = (KERNEL, BLENDED)
# Models over the predictions of other models (or of an earlier model in this list), without a head
# over features.
SECOND_LAYERS = (BLENDED, STACKED, LATE)
# Models whose heads are found by name; heads of all other models are found by their features.
NAMED = (*SECOND_LAYERS, KERNEL)
# Maximum number of fusions per set of three or more modalities that are made by default.
MOST_FUSIONS = 16
# Ends of the names of models over all layers of an encoder (`mvemo.fuse.crossval.layer_models`).
WEIGHTED, BEST_LAYER = ":weighted", ":best-layer"
Key = tuple[str, ...]
# Modalities that a clip lacks, in the order of reports.
Missing = tuple[str, ...]


@dataclass(frozen=True)
class Model:
    """A head over concatenated features.

    Parameters
    ----------
    name
        Name in reports.
    features, modalities
        Features in the order of concatenation, and modalities in the order of reports.
    by_net, by_estimator
        True if the outputs are those of a net's own last layer, without a head; True for an
        estimator of scikit-learn.
    """

    name: str
    features: tuple[str, ...]
    modalities: tuple[str, ...]
    by_net: bool = False
    by_estimator: bool = False

    @property
    def key(self) -> Key:
        """Return the key of the outputs; models with the same features share a head."""
        return (self.name,) if is_named(self.name) or self.by_estimator else self.features


def is_named(name: str) -> bool:
    """Return True for a model whose heads are found by its name, not by its features."""
    return name in NAMED or name.endswith((WEIGHTED, BEST_LAYER))


def models_of(modality: Mapping[str, str]) -> tuple[Model, ...]:
    """Return all models that a set of features allows, single features first.

    These are each single feature, each fusion of one feature per modality (of three or more
    modalities only if at most `MOST_FUSIONS` are possible), and all features as ``integrated``
    (PL20 3.4, understood as one head on all features).

    Parameters
    ----------
    modality
        Feature name to ``audio``, ``video`` or another modality.

    Raises
    ------
    BadFeatures
        A feature's name is the name of a model, or contains ``+`` or ``,``.

    Examples
    --------
    >>> [m.name for m in models_of({"bert": "lyrics", "i3d": "video", "music1d": "audio"})]
    ['music1d', 'i3d', 'bert', 'i3d+music1d', 'music1d+bert', 'i3d+bert', 'i3d+music1d+bert', \
'integrated']
    """
    for name in modality:
        check_feature_name(name)
    kinds = modality_order(modality.values())
    names = {
        kind: in_order((n for n in modality if modality[n] == kind), FIRST.get(kind, ()))
        for kind in kinds
    }
    models = [Model(name, (name,), (kind,)) for kind in kinds for name in names[kind]]
    for size in range(2, len(kinds) + 1):
        for some in combinations(kinds, size):
            if size == 2 or prod(len(names[kind]) for kind in some) <= MOST_FUSIONS:
                for parts in product(*(names[kind] for kind in some)):
                    if some[:2] == MODALITIES:
                        # In names the video feature is first, as in PL20.
                        parts = (parts[1], parts[0], *parts[2:])
                    models.append(Model("+".join(parts), parts, some))
    if len(models) > 1:
        everything = tuple(name for kind in kinds for name in names[kind])
        models.append(Model(INTEGRATED, everything, kinds))
    return _in_one_order(models)


def _in_one_order(models: Iterable[Model]) -> tuple[Model, ...]:
    """Give models of the same features the same order of features, so that they share a head."""
    orders: dict[frozenset[str], Key] = {}
    return tuple(
        replace(m, features=orders.setdefault(frozenset(m.features), m.features)) for m in models
    )


def check_feature_name(name: str) -> None:
    """Raise `BadFeatures` if a feature has the name of a model, or contains ``+`` or ``,``."""
    if name == INTEGRATED or is_named(name) or "+" in name or "," in name:
        raise BadFeatures(
            f"invalid feature name {name!r}: it must not contain '+' or ',', nor be the name of "
            f"a model ({', '.join((INTEGRATED, *NAMED))})"
        )


def chosen_models(modality: Mapping[str, str], names: Sequence[str] | None) -> tuple[Model, ...]:
    """Return the models in `names`, which may join features with ``+``; None means all."""
    models = models_of(modality)
    if names is None:
        return models
    known = {model.name: model for model in models}
    for name in names:
        parts = tuple(name.split("+"))
        if name in known:
            continue
        if len(parts) < 2 or len(set(parts)) < len(parts) or not set(parts) <= set(modality):
            raise BadFeatures(
                f"unknown model {name!r}: expected one of "
                f"{', '.join([*(m.name for m in models), *NAMED])}, or features joined by '+'"
            )
        known[name] = Model(name, parts, modality_order(modality[part] for part in parts))
    return _in_one_order(known[name] for name in dict.fromkeys(names))


def modalities_of(models: Sequence[Model]) -> tuple[str, ...]:
    """Return the modalities that the models need, in the order of reports."""
    return modality_order(kind for model in models for kind in model.modalities)


def modality_order(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return each modality once, in the order of reports: audio, video, others by name."""
    return tuple(in_order(set(kinds), MODALITIES))


def missing_of(kinds: Missing) -> list[Missing]:
    """Return the sets of modalities that a predicted clip may lack, smallest first."""
    return [
        missing
        for size in range(1, len(kinds))
        for missing in reversed(list(combinations(kinds, size)))
    ]


Parts = Mapping[str, Mapping[Missing, Model]]


def parts_of(models: Sequence[Model], modality: Mapping[str, str]) -> Parts:
    """Return, for each fusion of modalities, the models to use if some are missing (PL20 3.6)."""
    return {
        model.name: {
            missing: Model(
                f"{model.name} without {' and '.join(missing)}",
                tuple(name for name in model.features if modality[name] not in missing),
                tuple(kind for kind in model.modalities if kind not in missing),
            )
            for missing in missing_of(model.modalities)
        }
        for model in models
        if len(model.modalities) > 1
    }


def in_order(names: Iterable[str], first: Sequence[str]) -> list[str]:
    """Return `names`: first those in `first`, in its order, then all others, sorted."""
    rest = sorted(names)
    return [name for name in first if name in rest] + [n for n in rest if n not in first]

"""Which features a fusion model concatenates: one feature, one of several modalities, or all.

A model's name says what is in it: ``c3d+music1d`` is C3D and the 1D music net (PL20
section 3.4), ``integrated`` is all there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import prod
from typing import Protocol, TypeVar

from mvemo.cache import MODALITIES
from mvemo.fuse.errors import BadFeatures

# The order of report; features that are not the papers' follow, by name.
AUDIO = ("music1d", "music2d")
VIDEO = ("c3d", "i3d")
FIRST = dict(zip(MODALITIES, (AUDIO, VIDEO), strict=True))
INTEGRATED = "integrated"
STACKED = "integrated-stacked"
LATE = "integrated-late"
# Models over what other models predict: no head of features is theirs.
SECOND_LAYERS = (STACKED, LATE)
# So many fusions of one set of three modalities or more are made without being asked for.
MOST_FUSIONS = 16
Key = tuple[str, ...]
# Modalities that a clip lacks, in the order of report.
Missing = tuple[str, ...]


class _OfFeatures(Protocol):
    @property
    def features(self) -> tuple[str, ...]: ...


M = TypeVar("M", bound=_OfFeatures)


@dataclass(frozen=True)
class Model:
    """A head over concatenated features.

    Parameters
    ----------
    name
        Of the report.
    features
        In the order of concatenation.
    modalities
        Those it needs, in the order of report.
    by_net
        Its outputs are those of a net's own last layer: no head is fitted.
    """

    name: str
    features: tuple[str, ...]
    modalities: tuple[str, ...]
    by_net: bool = False

    @property
    def key(self) -> Key:
        """What its outputs are known by: its features, as models of the same are one head."""
        return (self.name,) if self.name in SECOND_LAYERS else self.features


def models_of(modality: Mapping[str, str]) -> tuple[Model, ...]:
    """All models that a set of features allows, unimodal ones first.

    Each feature alone; each fusion of one feature of each of two modalities or more; and all
    together as ``integrated`` (PL20 3.4, read as one head on all features), where there are
    two or more. Fusions of three modalities and more are left out where there would be over
    `MOST_FUSIONS` of the same ones; each can be had by name (`chosen_models`).

    Parameters
    ----------
    modality
        Feature name to ``audio``, ``video`` or another modality.

    Raises
    ------
    BadFeatures
        A name that `check_feature_name` refuses.

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
                models += [
                    _one_of_each(one, some) for one in product(*(names[kind] for kind in some))
                ]
    if len(models) > 1:
        everything = tuple(name for kind in kinds for name in names[kind])
        models.append(Model(INTEGRATED, everything, kinds))
    return tuple(models)


def _one_of_each(names: Sequence[str], kinds: Missing) -> Model:
    """The fusion of a feature of each modality; PL20 names that of the pictures first."""
    if kinds[:2] == MODALITIES:
        names = (names[1], names[0], *names[2:])
    return Model("+".join(names), tuple(names), kinds)


def check_feature_name(name: str) -> None:
    """Raise `BadFeatures` for a feature whose name is that of a model, or joins names."""
    if name in (INTEGRATED, *SECOND_LAYERS) or "+" in name or "," in name:
        raise BadFeatures(
            f"feature {name!r}: a name has no '+' and no ',' and is none of {INTEGRATED}, "
            f"{STACKED}, {LATE}, which are models"
        )


def chosen_models(modality: Mapping[str, str], names: Sequence[str] | None) -> tuple[Model, ...]:
    """The models of `names`, or all.

    A name may join any features by ``+``: one head on all of them, as of two audio features.

    Examples
    --------
    >>> (model,) = chosen_models({"layer2": "audio", "layer3": "audio"}, ["layer2+layer3"])
    >>> model.features, model.modalities
    (('layer2', 'layer3'), ('audio',))
    """
    models = models_of(modality)
    if names is None:
        return models
    known = {model.name: model for model in models}
    chosen = [known.get(name) or _fusion(name, modality) for name in dict.fromkeys(names)]
    for name, model in zip(dict.fromkeys(names), chosen, strict=True):
        if model is None:
            raise BadFeatures(
                f"model {name!r} is not among those that the features allow: {', '.join(known)}, "
                "or any of their features joined by '+'"
            )
    return tuple(model for model in chosen if model is not None)


def _fusion(name: str, modality: Mapping[str, str]) -> Model | None:
    """The model of the features that a name joins; None where it joins no two of them."""
    parts = tuple(name.split("+"))
    if len(parts) < 2 or len(set(parts)) < len(parts) or not set(parts) <= set(modality):
        return None
    kinds = {modality[part] for part in parts}
    return Model(name, parts, modality_order(kinds))


def with_nets(models: Sequence[M], nets: Sequence[M]) -> tuple[M, ...]:
    """The models in the order of report, those of nets themselves after single features."""
    n_single = sum(len(model.features) == 1 for model in models)
    return (*models[:n_single], *nets, *models[n_single:])


def modalities_of(models: Sequence[Model]) -> tuple[str, ...]:
    """Those that any of the models needs, in the order of report."""
    return modality_order(kind for model in models for kind in model.modalities)


def modality_order(kinds: Iterable[str]) -> tuple[str, ...]:
    """Each modality once in the order of report: audio, video, then others by name.

    Examples
    --------
    >>> modality_order(["lyrics", "video", "eeg", "video"])
    ('video', 'eeg', 'lyrics')
    """
    return tuple(in_order(set(kinds), MODALITIES))


def missing_of(kinds: Missing) -> list[Missing]:
    """What a clip may lack of these modalities and still be predicted: fewest first.

    Examples
    --------
    >>> missing_of(("audio", "video"))
    [('video',), ('audio',)]
    >>> missing_of(("audio", "video", "lyrics"))[:4]
    [('lyrics',), ('video',), ('audio',), ('video', 'lyrics')]
    """
    return [
        missing
        for size in range(1, len(kinds))
        for missing in reversed(list(combinations(kinds, size)))
    ]


Parts = Mapping[str, Mapping[Missing, Model]]


def parts_of(models: Sequence[Model], modality: Mapping[str, str]) -> Parts:
    """What remains of each fusion of modalities when some are missing (PL20 3.6)."""
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
    """Those of `first` in its order, then all others by name."""
    rest = sorted(names)
    return [name for name in first if name in rest] + [n for n in rest if n not in first]

"""Which features a fusion model concatenates: one feature, one of each modality, or all.

A model's name says what is in it: ``c3d+music1d`` is C3D and the 1D music net (PL20
section 3.4), ``integrated`` is all there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from mvemo.fuse.errors import BadFeatures

# The order of report; features that are not the papers' follow, by name.
AUDIO = ("music1d", "music2d")
VIDEO = ("c3d", "i3d")
INTEGRATED = "integrated"
STACKED = "integrated-stacked"
LATE = "integrated-late"
# Models over what other models predict: no head of features is theirs.
SECOND_LAYERS = (STACKED, LATE)
Key = tuple[str, ...]


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
        Of ``audio`` and ``video``, those it needs.
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

    Each feature alone; each pair of a video and an audio feature; and all together as
    ``integrated`` (PL20 3.4, read as one head on all features), where there are two or more.

    Parameters
    ----------
    modality
        Feature name to ``audio`` or ``video``.

    Raises
    ------
    BadFeatures
        A name that `check_feature_name` refuses.
    """
    for name in modality:
        check_feature_name(name)
    audio = in_order((name for name in modality if modality[name] == "audio"), AUDIO)
    video = in_order((name for name in modality if modality[name] == "video"), VIDEO)
    models = [Model(name, (name,), (modality[name],)) for name in (*audio, *video)]
    models += [
        Model(f"{picture}+{sound}", (picture, sound), ("audio", "video"))
        for sound in audio
        for picture in video
    ]
    if len(models) > 1:
        kinds = tuple(kind for kind, names in (("audio", audio), ("video", video)) if names)
        models.append(Model(INTEGRATED, (*audio, *video), kinds))
    return tuple(models)


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

    Raises
    ------
    BadFeatures
        A name is no model of these features.

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
    return Model(name, parts, tuple(kind for kind in ("audio", "video") if kind in kinds))


def with_nets(models: Sequence[M], nets: Sequence[M]) -> tuple[M, ...]:
    """The models in the order of report, those of nets themselves after single features."""
    n_single = sum(len(model.features) == 1 for model in models)
    return (*models[:n_single], *nets, *models[n_single:])


def modalities_of(models: Sequence[Model]) -> tuple[str, ...]:
    """Of ``audio`` and ``video``, those that any of the models needs."""
    return tuple(
        kind for kind in ("audio", "video") if any(kind in model.modalities for model in models)
    )


Parts = Mapping[str, Mapping[str, Model]]


def parts_of(models: Sequence[Model], modality: Mapping[str, str]) -> Parts:
    """What remains of each fusion of both modalities when one is missing (PL20 3.6).

    Returns
    -------
    A model's name to: missing modality, ``video`` first, to a model of the other's features.
    """
    return {
        model.name: {
            missing: Model(
                f"{model.name} without {missing}",
                tuple(name for name in model.features if modality[name] == other),
                (other,),
            )
            for missing, other in (("video", "audio"), ("audio", "video"))
        }
        for model in models
        if len(model.modalities) > 1
    }


def in_order(names: Iterable[str], first: Sequence[str]) -> list[str]:
    """Those of `first` in its order, then all others by name."""
    rest = sorted(names)
    return [name for name in first if name in rest] + [n for n in rest if n not in first]

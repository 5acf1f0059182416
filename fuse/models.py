"""Which features a fusion model concatenates: the unimodal heads, F1-F4 and F5 (a).

A model's name says what is in it: ``c3d+music1d`` is C3D and the 1D music net (PL20
section 3.4), ``integrated`` is all there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mvemo.fuse.errors import BadFeatures

# The order of report; features that are not the papers' follow, by name.
AUDIO = ("music1d", "music2d")
VIDEO = ("c3d", "i3d")
INTEGRATED = "integrated"
STACKED = "integrated-stacked"


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
    """

    name: str
    features: tuple[str, ...]
    modalities: tuple[str, ...]


def models_of(modality: Mapping[str, str]) -> tuple[Model, ...]:
    """All models that a set of features allows, unimodal ones first.

    Each feature alone; each pair of a video and an audio feature (F1-F4 for the papers'
    nets); all together as ``integrated``, reading (a) of F5, where there are two or more.

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
    audio = _ordered((name for name in modality if modality[name] == "audio"), AUDIO)
    video = _ordered((name for name in modality if modality[name] == "video"), VIDEO)
    models = [Model(name, (name,), (modality[name],)) for name in (*audio, *video)]
    models += [
        Model(f"{picture}+{sound}", (picture, sound), ("audio", "video"))
        for sound in audio
        for picture in video
    ]
    if len(models) > 1:
        kinds = tuple(kind for kind, held in (("audio", audio), ("video", video)) if held)
        models.append(Model(INTEGRATED, (*audio, *video), kinds))
    return tuple(models)


def check_feature_name(name: str) -> None:
    """Raise `BadFeatures` for a feature whose name is that of a model, or joins names."""
    if name in (INTEGRATED, STACKED) or "+" in name or "," in name:
        raise BadFeatures(
            f"feature {name!r}: a name has no '+' and no ',' and is none of {INTEGRATED}, "
            f"{STACKED}, which are models"
        )


def chosen_models(modality: Mapping[str, str], names: Sequence[str] | None) -> tuple[Model, ...]:
    """The models of `names`, or all.

    Raises
    ------
    BadFeatures
        A name is no model of these features.
    """
    models = models_of(modality)
    if names is None:
        return models
    known = {model.name: model for model in models}
    for name in names:
        if name not in known:
            raise BadFeatures(
                f"model {name!r} is not among those that the features allow: {', '.join(known)}"
            )
    return tuple(known[name] for name in dict.fromkeys(names))


def parts_of(models: Sequence[Model], modality: Mapping[str, str]) -> dict[tuple[str, str], Model]:
    """What is left of each fusion of both modalities when one is missing (F6).

    Returns
    -------
    (model's name, missing modality) to a model of the features that are there.
    """
    parts = {}
    for model in models:
        if len(model.modalities) < 2:
            continue
        for gone, kind in (("audio", "video"), ("video", "audio")):
            left = tuple(name for name in model.features if modality[name] == kind)
            parts[model.name, gone] = Model(f"{model.name} without {gone}", left, (kind,))
    return parts


def parts_in(model: Model, parts: Mapping[tuple[str, str], Model]) -> list[Model]:
    """The parts of one model, the one without video first."""
    return [parts[model.name, g] for g in ("video", "audio") if (model.name, g) in parts]


def parts_by_absence(model: Model, parts: Mapping[tuple[str, str], Model]) -> dict[str, Model]:
    """Missing modality to the part of the model that is left."""
    return {g: parts[model.name, g] for g in ("audio", "video") if (model.name, g) in parts}


def _ordered(names: object, first: Sequence[str]) -> list[str]:
    held = sorted(names)  # type: ignore[call-overload]
    return [name for name in first if name in held] + [n for n in held if n not in first]

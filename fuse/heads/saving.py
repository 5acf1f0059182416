"""Fitted heads on disk: one ``.npz`` file with everything that a prediction needs."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures, FuseError
from mvemo.fuse.heads.head import Head
from mvemo.fuse.models import STACKED, Model
from mvemo.fuse.results import Results
from mvemo.manifests.files import replacing

# 2: heads of tags and dimensions, with their link. 3: the models, and how they are made up.
# 4: no hidden layers, which a reader must not leave out of a prediction.
VERSION = 4
_ARRAYS = ("mean", "scale", "coef", "intercept")
_OPTIONAL = ("thresholds",)


@dataclass(frozen=True)
class SavedHeads:
    """All heads of an evaluation.

    Parameters
    ----------
    classes
        In the order of the outputs.
    models
        Those that were evaluated, in the order of report. What stands in for one with a
        modality missing (F6) has heads of the features that are left: see `of_features`.
    heads
        Of every model: one for each fold, and those fitted on all clips (`Head.fold` is
        None). Under ``crossfit`` there is one of the latter for each fold's nets, and a
        prediction is their mean.
    facts
        JSON values: task, protocol, seed, whether labels were permuted, specs, modalities
        and digests of the features, temperatures (mean over folds) by model, versions and
        command.
    """

    classes: tuple[str, ...]
    models: tuple[Model, ...]
    heads: tuple[Head, ...]
    facts: dict[str, Any]

    def of(self, model: str, fold: int | None = None) -> tuple[Head, ...]:
        """A model's heads that left out a fold, or with None those fitted on all clips.

        Raises
        ------
        BadFeatures
            There is none.
        """
        known = {m.name: m for m in self.models}
        if model == STACKED:
            found = tuple(h for h in self.heads if h.model == STACKED and h.fold == fold)
        else:
            found = self.of_features(known[model].features, fold) if model in known else ()
        if not found:
            raise BadFeatures(
                f"no head of model {model!r}, fold {fold}; there are {', '.join(known)}"
            )
        return found

    def of_features(self, features: tuple[str, ...], fold: int | None = None) -> tuple[Head, ...]:
        """As `of`, of the head that concatenates these features; empty where there is none."""
        return tuple(
            h
            for h in self.heads
            if h.model != STACKED and h.features == features and h.fold == fold
        )


def save_heads(path: str | Path, results: Results) -> None:
    """Write the heads of `results` as one file, in one step.

    Raises
    ------
    FuseError
        It cannot be written.
    """
    path = Path(path)
    arrays: dict[str, NDArray[Any]] = {}
    listed = []
    for i, head in enumerate(results.heads):
        for name in _ARRAYS:
            arrays[f"{i}/{name}"] = getattr(head, name)
        for name in _OPTIONAL:
            if getattr(head, name) is not None:
                arrays[f"{i}/{name}"] = getattr(head, name)
        listed.append(
            {
                "model": head.model,
                "features": list(head.features),
                "fold": head.fold,
                "net_fold": head.net_fold,
                "C": head.C,
                "link": head.link,
                "inputs": head.inputs,
            }
        )
    header = {
        "mvemo_heads": VERSION,
        "classes": list(results.classes),
        "models": [[m.name, list(m.features), list(m.modalities)] for m in results.models],
        "heads": listed,
        "facts": {
            "name": results.name,
            "task": results.task.name,
            "protocol": results.protocol,
            "leaky": results.leaky,
            "synthetic": results.synthetic,
            "permuted": results.permuted,
            "folds": results.k,
            "seed": results.seed,
            "temperatures": {
                m.name: m.calibration["temperature"]
                for m in results.models
                if "temperature" in m.calibration
            },
            "provenance": dict(results.provenance),
        },
    }
    arrays["header"] = np.array(json.dumps(header, ensure_ascii=False))
    with replacing(path, error=FuseError) as temp, temp.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_heads(path: str | Path) -> SavedHeads:
    """Read what `save_heads` wrote.

    Raises
    ------
    FuseError
        No such file, not a file of heads, damaged, or of a newer version.
    """
    path = Path(path)
    if not path.is_file():
        raise FuseError(f"{path}: no such file of heads: 'mvemo fuse' writes one")
    try:
        with np.load(path, allow_pickle=False) as saved:
            header = json.loads(str(saved["header"]))
            version = int(header["mvemo_heads"])
            if version > VERSION:
                raise BadFeatures(f"{path}: heads of version {version}; this reads {VERSION}")
            if version < VERSION:
                raise BadFeatures(
                    f"{path}: heads of version {version}; make them again with 'mvemo fuse'"
                )
            heads = tuple(
                Head(
                    **{**entry, "features": tuple(entry["features"])},
                    **{name: saved[f"{i}/{name}"] for name in _ARRAYS},
                    **{name: saved.get(f"{i}/{name}") for name in _OPTIONAL},
                )
                for i, entry in enumerate(header["heads"])
            )
            models = tuple(
                Model(name, tuple(features), tuple(modalities))
                for name, features, modalities in header["models"]
            )
            return SavedHeads(tuple(header["classes"]), models, heads, dict(header["facts"]))
    except BadFeatures:
        raise
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise FuseError(f"{path}: not a file of heads, or damaged: {error}") from error

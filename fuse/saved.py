"""Fitted heads on disk: one ``.npz`` file with everything that a prediction needs."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures, FuseError
from mvemo.fuse.heads import Head
from mvemo.fuse.outputs import OutputResults
from mvemo.fuse.results import Results

# 2: heads of tags and dimensions, with their link.
VERSION = 2
_ARRAYS = ("mean", "scale", "coef", "intercept")
_OPTIONAL = ("thresholds", "hidden_coef", "hidden_intercept")


@dataclass(frozen=True)
class SavedHeads:
    """All heads of an evaluation.

    Parameters
    ----------
    classes
        In the order of the outputs.
    heads
        Of every model: one for each fold, and those fitted on all clips (`Head.fold` is
        None). Under ``crossfit`` there is one of the latter for each fold's nets, and a
        prediction is their mean.
    facts
        JSON values: protocol, seed, whether labels were permuted, specs and digests of
        the features, versions and command.
    """

    classes: tuple[str, ...]
    heads: tuple[Head, ...]
    facts: dict[str, Any]

    def of(self, model: str, fold: int | None = None) -> tuple[Head, ...]:
        """A model's heads that left out a fold, or with None those fitted on all clips.

        Raises
        ------
        BadFeatures
            There is none.
        """
        found = tuple(h for h in self.heads if h.model == model and h.fold == fold)
        if not found:
            known = ", ".join(dict.fromkeys(h.model for h in self.heads))
            raise BadFeatures(f"no head of model {model!r}, fold {fold}; there are {known}")
        return found


def save_heads(path: str | Path, results: Results | OutputResults) -> None:
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
        "heads": listed,
        "facts": {
            "name": results.name,
            "task": results.task,
            "protocol": results.protocol,
            "leaky": results.leaky,
            "synthetic": results.synthetic,
            "permuted": results.permuted,
            "folds": results.k,
            "seed": results.seed,
            "provenance": dict(results.provenance),
        },
    }
    arrays["header"] = np.array(json.dumps(header, ensure_ascii=False))
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise FuseError(f"{path}: cannot be written: {error.strerror}") from error


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
            heads = tuple(
                Head(
                    **{**entry, "features": tuple(entry["features"])},
                    **{name: saved[f"{i}/{name}"] for name in _ARRAYS},
                    **{name: saved.get(f"{i}/{name}") for name in _OPTIONAL},
                )
                for i, entry in enumerate(header["heads"])
            )
    except BadFeatures:
        raise
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise FuseError(f"{path}: not a file of heads, or damaged: {error}") from error
    return SavedHeads(tuple(header["classes"]), heads, dict(header["facts"]))

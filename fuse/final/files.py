"""The model folder on disk: only JSON and arrays, so that reading it runs no code.

``model.json`` is written last and has the digest of every other file, so that a folder that is
incomplete, or mixed from two models, is not taken for a model.
"""

from __future__ import annotations

import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import FeatureSpec
from mvemo.cache.spec import content_digest
from mvemo.fuse.crossval.saving import load_heads, write_heads
from mvemo.fuse.errors import BadFeatures, FuseError
from mvemo.fuse.final.model import (
    HEAD_DTYPES,
    FeatureKey,
    FinalModel,
    Predictor,
    Reference,
    short_keys,
)
from mvemo.manifests.array_files import NpzFile
from mvemo.manifests.files import parse_json, replacing, write_json

# Increased whenever an older reader would predict something else.
# 2: products of some of the features; heads in half precision.
VERSION = 2
HEADS, REFERENCE, MODEL = "heads.npz", "reference.npz", "model.json"
# Array in `REFERENCE`; earlier versions did not write it, and later ones may leave it out.
KEYS = "training_keys"


def save_model(folder: str | Path, model: FinalModel, extra: tuple[str, ...] = ()) -> None:
    """Write a model folder, replacing these files of another model.

    `extra` names other files of the model in the folder, such as trained nets, with forward
    slashes; their digests are also recorded. Raise `FuseError` if a file cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MODEL).unlink(missing_ok=True)
    except OSError as error:
        raise FuseError(f"{folder}: cannot be written: {error.strerror}") from None
    write_heads(folder / HEADS, model.heads, HEAD_DTYPES)
    arrays: dict[str, NDArray[Any]] = {}
    for i, reference in enumerate(model.reference.values()):
        arrays[f"{i}/mean"] = reference.mean.astype(np.float32)
        arrays[f"{i}/scale"] = reference.scale.astype(np.float32)
    arrays[KEYS] = model.training_keys
    with replacing(folder / REFERENCE, error=FuseError) as temp, temp.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    record = {
        "mvemo_model": VERSION,
        "name": model.name,
        "task": model.task,
        "classes": list(model.classes),
        "scale": model.scale,
        "predictors": [asdict(predictor) for predictor in model.predictors],
        "features": [_spec_record(spec) for spec in model.specs],
        "reference": [
            {"feature": name, "fold": fold, "threshold": r.threshold, "compared": r.compared}
            for (name, fold), r in model.reference.items()
        ],
        "files": {name: content_digest(folder / name) for name in (HEADS, REFERENCE, *extra)},
        "facts": model.facts,
    }
    write_json(folder / MODEL, record, error=FuseError)


def load_model(folder: str | Path) -> FinalModel:
    """Read a model folder; raise `FuseError` if it is missing, damaged or of another version."""
    folder = Path(folder)
    path = folder / MODEL
    if not path.is_file():
        raise BadFeatures(
            f"{folder}: no model (it has no {MODEL}): 'mvemo fuse FEATURES --final' makes one"
        )
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
        version = record["mvemo_model"]
        if version != VERSION:
            raise BadFeatures(
                f"{folder}: a model of version {version}; this reads {VERSION}: make it again with "
                "'mvemo fuse FEATURES --final'"
            )
        for name, digest in record["files"].items():
            if content_digest(folder / name) != digest:
                raise BadFeatures(
                    f"{folder / name}: not the file that the model was made with: copy the whole "
                    "folder again"
                )
        return _model(folder, record)
    except FuseError:
        raise
    except (KeyError, OSError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise FuseError(f"{path}: not a model, or damaged: {error}") from error


def _model(folder: Path, record: dict[str, Any]) -> FinalModel:
    reference: dict[FeatureKey, Reference] = {}
    with NpzFile(folder / REFERENCE) as arrays:
        for i, entry in enumerate(record["reference"]):
            reference[entry["feature"], entry["fold"]] = Reference(
                arrays[f"{i}/mean"].astype(np.float64),
                arrays[f"{i}/scale"].astype(np.float64),
                _threshold(entry["threshold"]),
                # Earlier versions did not write it.
                entry.get("compared", 0),
            )
        keys = arrays[KEYS] if KEYS in arrays else short_keys(())
    heads = load_heads(folder / HEADS)
    if list(heads.classes) != record["classes"]:
        raise ValueError(f"classes {record['classes']} are not those of {HEADS}")
    return FinalModel(
        name=record["name"],
        task=record["task"],
        heads=heads,
        specs=tuple(FeatureSpec(**entry) for entry in record["features"]),
        predictors=tuple(_predictor(entry) for entry in record["predictors"]),
        reference=reference,
        scale=record["scale"],
        facts=record["facts"],
        training_keys=keys,
    )


def _threshold(value: float | None) -> float:
    """Return infinity for null, because JSON has no infinity."""
    return np.inf if value is None else float(value)


def _predictor(entry: dict[str, Any]) -> Predictor:
    predictor = Predictor(**entry)
    return replace(
        predictor,
        features=tuple(predictor.features),
        modalities=tuple(predictor.modalities),
        bases=tuple(predictor.bases),
        residuals=tuple((low, high) for low, high in predictor.residuals),
    )


def _spec_record(spec: FeatureSpec) -> dict[str, Any]:
    record = {**vars(spec), "params": dict(spec.params)}
    return {name: record[name] for name in FeatureSpec.__dataclass_fields__ if name != "trained_on"}

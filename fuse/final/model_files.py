"""Folders of final models, written and read.

A folder holds only JSON and arrays, so that reading it runs no code. ``model.json`` is written
last and has the digest of every other file, so that an incomplete folder, or one with files of
two models, is refused.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.spec import FeatureSpec, content_digest, digest_of
from mvemo.fuse.conformal import GRID, Asked
from mvemo.fuse.crossval.saving import load_heads, write_heads
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.final.model import FeatureKey, FinalModel, Predictor, with_coverage
from mvemo.fuse.final.reference import Reference
from mvemo.manifests import array_files, files
from mvemo.manifests.text_files import as_tuples, read_json

# Must be increased if an older reader would make different predictions.
# 2: added products of some of the features; heads are in half precision.
VERSION = 2
HEADS, REFERENCE, MODEL = "heads.npz", "reference.npz", "model.json"
# Array in `REFERENCE`: `FinalModel.training_keys`.
KEYS = "training_keys"
# Arrays in `REFERENCE`: `Predictor.optional` of each predictor.
OPTIONAL = "optional"


def save_model(folder: str | Path, model: FinalModel, extra: tuple[str, ...] = ()) -> None:
    """Write the files of a model to a new folder; `extra` names files already in it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_heads(folder / HEADS, model.heads, small=True)
    arrays: dict[str, NDArray[Any]] = {}
    for i, reference in enumerate(model.reference.values()):
        arrays[f"{i}/mean"] = reference.mean.astype(np.float32)
        arrays[f"{i}/scale"] = reference.scale.astype(np.float32)
        # -128 stands for NaN.
        arrays[f"{i}/places"] = np.nan_to_num(reference.places, nan=-128).astype(np.int8)
    arrays[KEYS] = model.training_keys
    for i, predictor in enumerate(model.predictors):
        arrays[f"{OPTIONAL}/{i}"] = np.array(predictor.optional, dtype=np.float32)
    np.savez(folder / REFERENCE, **arrays)  # type: ignore[arg-type]
    record = {
        "mvemo_model": VERSION,
        "name": model.name,
        "task": model.task,
        "classes": list(model.classes),
        "scale": model.scale,
        "predictors": [asdict(replace(p, optional=())) for p in model.predictors],
        "features": [
            {f.name: getattr(spec, f.name) for f in fields(spec) if f.name != "trained_on"}
            for spec in model.specs
        ],
        "reference": [{"feature": name, "fold": fold} for name, fold in model.reference],
        "files": {name: content_digest(folder / name) for name in (HEADS, REFERENCE, *extra)},
        "facts": model.facts,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    files.write_json(folder / MODEL, record)


def load_model(folder: str | Path, asked: Asked | None = None) -> FinalModel:
    """Read a model folder; raise `MvemoError` if it is missing, damaged or of another version.

    `asked` is the coverage of its sets, or None for predictions only.
    """
    folder = Path(folder)
    path = folder / MODEL
    if not path.is_file():
        raise BadFeatures(
            f"{folder}: is not a model (it has no {MODEL}): 'mvemo fuse FEATURES --final' makes one"
        )
    with array_files.refuse_damaged(path, "a model"):
        record = read_json(path)
        version = record["mvemo_model"]
        if version != VERSION:
            raise BadFeatures(
                f"{folder}: expected a model of version {VERSION}, got {version}: make it again "
                "with 'mvemo fuse FEATURES --final'"
            )
        for name, digest in record["files"].items():
            if content_digest(folder / name) != digest:
                raise BadFeatures(
                    f"{folder / name}: is not the file that the model was saved with: copy the "
                    "whole folder again"
                )
        model = _model(folder, record)
    return with_coverage(model, asked)


def record_digest(folder: Path) -> str:
    """Return the digest of a model's record, which changes with any of its files."""
    return content_digest(folder / MODEL)


def extra_files(folder: Path) -> tuple[str, ...]:
    """Return the names of a model's other files, such as its nets."""
    names = read_json(folder / MODEL)["files"]
    return tuple(name for name in names if name not in (HEADS, REFERENCE))


def _model(folder: Path, record: dict[str, Any]) -> FinalModel:
    reference: dict[FeatureKey, Reference] = {}
    with array_files.NpzFile(folder / REFERENCE) as arrays:
        for i, entry in enumerate(record["reference"]):
            mean, scale = (arrays[f"{i}/{name}"].astype(np.float64) for name in ("mean", "scale"))
            places = arrays[f"{i}/places"].astype(np.float32)
            places[places == -128] = np.nan
            reference[entry["feature"], entry["fold"]] = Reference(mean, scale, places)
        keys = arrays[KEYS]
        numbers = range(len(record["predictors"]))
        optional = [as_tuples(arrays[f"{OPTIONAL}/{i}"].tolist()) for i in numbers]
    heads = load_heads(folder / HEADS)
    if list(heads.classes) != record["classes"]:
        raise ValueError(f"classes {record['classes']} differ from those of {HEADS}")
    model = FinalModel(
        name=record["name"],
        task=record["task"],
        heads=heads,
        specs=tuple(FeatureSpec(**entry) for entry in record["features"]),
        predictors=tuple(map(_predictor, record["predictors"], optional)),
        reference=reference,
        scale=record["scale"],
        facts=record["facts"],
        training_keys=keys,
        # A model that is built again from the same clips has the same digest.
        digest=digest_of({key: value for key, value in record.items() if key != "date"}),
        date=record["date"],
    )
    if not model.facts.get("scale"):
        return model
    # New clips may be rated higher or lower than all training clips, inside which heads stay.
    ends = np.array([model.ends(target) for target in model.classes]).T
    kept = tuple(h if h.ends is None else replace(h, ends=ends) for h in heads.heads)
    return replace(model, heads=replace(heads, heads=kept))


def _predictor(entry: Mapping[str, Any], optional: tuple[tuple[float, ...], ...]) -> Predictor:
    values = {name: as_tuples(value) for name, value in entry.items()}
    if values["nonconformity"]:
        # JSON has no infinity, so None stands for it.
        limits = np.array(values["nonconformity"], dtype=np.float64)
        if limits.ndim != 2 or len(limits) != len(GRID):
            raise ValueError(f"nonconformity: expected {len(GRID)} rows, got {limits.shape}")
        values["nonconformity"] = as_tuples(np.where(np.isnan(limits), np.inf, limits).tolist())
    return Predictor(**{**values, "optional": optional})

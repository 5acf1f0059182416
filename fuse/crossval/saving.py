"""Saved heads: one ``.npz`` file with everything that a prediction needs."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.heads.head import Head
from mvemo.fuse.models import KERNEL, WITH_KERNEL, Model, is_named
from mvemo.fuse.results import Results
from mvemo.fuse.scaling import unit_rows
from mvemo.manifests import array_files, files, text_files
from mvemo.manifests.errors import MvemoError
from mvemo.manifests.text_table import listed

# Must be increased if the format of the file changes.
VERSION = 8
# Fields of a head in the header; arrays that only some heads have.
_SCALARS = ("model", "features", "fold", "net_fold", "C", "link", "inputs", "limit", "slope")
_OPTIONAL = ("thresholds", "rows", "factor", "ends")
_ARRAYS = ("mean", "scale", "coef", "intercept", *_OPTIONAL)


@dataclass(frozen=True)
class SavedHeads:
    """All heads of an evaluation.

    Parameters
    ----------
    classes
        Names of the outputs, in order.
    models
        Evaluated models, in the order of reports. If a modality is missing, a head of the
        remaining features replaces a model (`select_features`).
    heads
        Heads of every model: one per fold, and those fitted on all clips (`Head.fold` is None):
        one, or under ``crossfit`` one for each fold's nets; their mean is the prediction.
    facts
        JSON values: task, protocol, seed, provenance of the features, temperatures by model.
    """

    classes: tuple[str, ...]
    models: tuple[Model, ...]
    heads: tuple[Head, ...]
    facts: dict[str, Any]

    def __repr__(self) -> str:
        """Describe the heads in one line."""
        names = listed([model.name for model in self.models])
        return f"<SavedHeads: {len(self.heads)} heads of {len(self.models)} models: {names}>"

    def select(self, model: str, fold: int | None = None) -> tuple[Head, ...]:
        """Return a model's heads that left out `fold`, or that were fitted on all clips (None).

        Raise `BadFeatures` if there is no such head.
        """
        features = {m.name: m.features for m in self.models}
        heads = self.select_features(features.get(model, ()), fold)
        if is_named(model):
            heads = tuple(h for h in self.heads if h.model == model and h.fold == fold)
        if not heads:
            raise BadFeatures(
                f"model {model!r} has no head for fold {fold}; the models are {', '.join(features)}"
            )
        return heads

    def select_features(
        self, features: tuple[str, ...], fold: int | None = None
    ) -> tuple[Head, ...]:
        """Return the heads that concatenate these features, as `select`; () if there are none."""
        return tuple(
            h
            for h in self.heads
            if not is_named(h.model) and h.features == features and h.fold == fold
        )


def save_heads(path: str | Path, results: Results) -> None:
    """Write the heads of `results` to one file, atomically.

    The file holds only arrays and JSON, so reading it runs no code.

    Parameters
    ----------
    path
        Path of the ``.npz`` file; an existing file is replaced.
    results
        Results of `mvemo.fuse.evaluate`; with ``refit=True`` they include heads for new clips.

    Raises
    ------
    MvemoError
        The file cannot be written.
    """
    write_heads(path, saved_heads(results))


def saved_heads(results: Results) -> SavedHeads:
    """Return the heads of an evaluation, as `load_heads` reads them back."""
    # Only the kernel head of all clips is saved, because a head of this kind is large.
    fitted = any(head.model == KERNEL for head in results.heads)
    left_out = () if fitted else WITH_KERNEL
    with_heads = (m for m in results.models if not m.by_net and m.name not in left_out)
    models = tuple(Model(m.name, m.features, m.modalities) for m in with_heads)
    return SavedHeads(results.classes, models, results.heads, _facts(results))


def small_arrays(head: Head) -> dict[str, NDArray[Any]]:
    """Return the arrays of a head that a model's file stores in small types."""
    # Small types keep a model at a few hundred kB. The few coefficients of a kernel head are not
    # rounded, because their products cancel each other.
    rounded, dtype = ("coef", np.float16) if head.rows is None else ("factor", np.float32)
    dtypes = {"mean": np.float32, "scale": np.float32, rounded: dtype}
    arrays: dict[str, NDArray[Any]] = {n: getattr(head, n).astype(t) for n, t in dtypes.items()}
    if head.rows is not None:
        # Quantised to int8, with 127 for a row's largest value; `_full` restores the length of 1.
        largest = np.abs(head.rows).max(axis=1, keepdims=True)
        arrays["rows"] = np.round(head.rows * (127 / np.maximum(largest, 1e-9))).astype(np.int8)
    return arrays


def in_small_types(head: Head) -> Head:
    """Return the head as it is read from a model's file."""
    arrays: dict[str, Any] = {name: _full(name, x) for name, x in small_arrays(head).items()}
    return replace(head, **arrays)


def _full(name: str, values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype == np.int8:
        return unit_rows(values.astype(np.float32))
    return values.astype(np.float32 if name in ("coef", "rows") else np.float64)


def write_heads(path: str | Path, saved: SavedHeads, *, small: bool = False) -> None:
    """Write heads to a file; if `small`, some arrays in the types of `small_arrays`."""
    arrays: dict[str, NDArray[Any]] = {}
    for i, head in enumerate(saved.heads):
        rounded = small_arrays(head) if small else {}
        for name in _ARRAYS:
            if (values := getattr(head, name)) is not None:
                arrays[f"{i}/{name}"] = rounded.get(name, values)
    header = {
        "mvemo_heads": VERSION,
        "classes": list(saved.classes),
        "models": [[m.name, list(m.features), list(m.modalities)] for m in saved.models],
        "heads": [{name: getattr(head, name) for name in _SCALARS} for head in saved.heads],
        "facts": saved.facts,
    }
    arrays["header"] = np.array(json.dumps(header, ensure_ascii=False))
    with files.replacing(Path(path)) as temp, temp.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _facts(results: Results) -> dict[str, Any]:
    return {
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
    }


def load_heads(path: str | Path) -> SavedHeads:
    """Read a file that `save_heads` wrote.

    Raises
    ------
    MvemoError
        The file is missing, damaged, of another kind or of another version.
    """
    path = Path(path)
    if not path.is_file():
        raise MvemoError(f"{path}: does not exist: 'mvemo fuse' writes a file of heads")
    # `NpzFile` refuses pickled objects, which can run code.
    with array_files.refuse_damaged(path, "a file of heads"), array_files.NpzFile(path) as file:
        header = text_files.parse_json(str(file["header"]))
        if (version := int(header["mvemo_heads"])) != VERSION:
            raise BadFeatures(
                f"{path}: expected heads of version {VERSION}, got {version}: write them again "
                "with 'mvemo fuse'"
            )
        heads = tuple(
            _read_head(file, i, entry, len(header["classes"]))
            for i, entry in enumerate(header["heads"])
        )
        models = tuple(
            Model(name, tuple(features), tuple(modalities))
            for name, features, modalities in header["models"]
        )
        saved = SavedHeads(tuple(header["classes"]), models, heads, dict(header["facts"]))
    return saved


def _read_head(
    file: Mapping[str, NDArray[Any]], i: int, entry: Mapping[str, Any], n_outputs: int
) -> Head:
    """Build head `i` from its arrays in `file` and its `entry` in the header."""
    fields: dict[str, Any] = {name: entry[name] for name in _SCALARS}
    fields["features"] = tuple(entry["features"])
    dim = n_inputs = file[f"{i}/mean"].size
    if f"{i}/rows" in file:
        n_inputs = len(file[f"{i}/rows"])
    shapes: tuple[tuple[int, ...], ...] = ((dim,), (dim,), (n_outputs, n_inputs), (n_outputs,))
    shapes += ((n_outputs,), (n_inputs, dim), (dim,), (2, n_outputs))
    for name, shape in zip(_ARRAYS, shapes, strict=True):
        if name in _OPTIONAL and f"{i}/{name}" not in file:
            continue
        values = file[f"{i}/{name}"]
        is_number = values.dtype.kind == "f" or (name == "rows" and values.dtype == np.int8)
        if values.shape != shape or not is_number:
            raise ValueError(f"{name} of head {i} has type {values.dtype} and shape {values.shape}")
        fields[name] = _full(name, values)
    if ("rows" in fields) != ("factor" in fields):
        raise ValueError(f"head {i} has only one of the arrays rows and factor")
    return Head(**fields)

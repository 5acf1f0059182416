"""Fine-tuned weights on disk: interrupted runs resume, finished runs are never repeated.

The folder of a job is named by the digest of everything that determines its result, so a
changed setting starts a new run and an unchanged one finds its result. ``state.pt`` is the run
in progress, ``weights.pt`` the finished net, ``settings.json`` its settings, and
``curve.json`` its losses.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mvemo.extract.errors import ExtractError
from mvemo.manifests.files import parse_json, replacing, write_json


class JobFolder:
    """Folder of one fine-tuning job, named by its label and the digest of its settings."""

    def __init__(self, root: Path, label: str, digest: str) -> None:
        self.path = root / f"{label}-{digest[:16]}"

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Make the folder and write the settings."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ExtractError(f"{self.path}: cannot be made: {error.strerror}") from error
        self._write_text("settings.json", settings)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Replace the state of the run in progress."""
        self._write_tensors("state.pt", state)

    def load_state(self) -> dict[str, Any] | None:
        """Return the state of an interrupted run, or None if there is no readable state."""
        return self._read("state.pt")

    def finish(self, weights: Mapping[str, torch.Tensor], curve: Mapping[str, list[float]]) -> None:
        """Save the final weights and the curve, and remove the state of the run.

        JSON has no NaN, so values of the curve that are not finite are written as null.
        """
        self._write_text("curve.json", curve)
        self._write_tensors("weights.pt", {"weights": dict(weights)})
        (self.path / "state.pt").unlink(missing_ok=True)

    def result(self) -> tuple[dict[str, torch.Tensor], dict[str, list[float]]] | None:
        """Return the weights and the curve of a finished job, or None."""
        saved = self._read("weights.pt")
        if saved is None:
            return None
        try:
            curve = parse_json((self.path / "curve.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return saved["weights"], {
            name: [math.nan if value is None else float(value) for value in values]
            for name, values in curve.items()
        }

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        if not path.is_file():
            return None
        try:
            saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            # torch raises many types of error for a damaged file.
            warnings.warn(f"{path}: damaged ({error}); trained again", stacklevel=2)
            return None
        return saved

    def _write_tensors(self, name: str, value: Mapping[str, Any]) -> None:
        # Not durable: a damaged file is noticed when it is read, and then trained again.
        with replacing(self.path / name, error=ExtractError, durable=False) as temp:
            torch.save(dict(value), temp)

    def _write_text(self, name: str, value: Mapping[str, Any]) -> None:
        write_json(self.path / name, value, error=ExtractError, durable=False)

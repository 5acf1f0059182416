"""Runs of stage two in MLflow: settings, scores of all models, and the files of the report."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse.results import Results
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.settings_files import dotted

# Characters of names and longest values that MLflow takes.
_FORBIDDEN = re.compile(r"[^\w\-. /:]")
LONGEST = 500


def log_run(results: Results, settings: Mapping[str, Any], out: Path, tracking: str) -> str:
    """Log a run to a tracking store, a folder or a URI of MLflow; return the id of the run.

    Raises
    ------
    BadOption
        MLflow is not installed, or refuses the store.
    """
    mlflow = import_mlflow()
    if "://" not in tracking:
        # MLflow asks those who keep runs in a folder to say so.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        tracking = Path(tracking).resolve().as_uri()
    try:
        mlflow.set_tracking_uri(tracking)
        mlflow.set_experiment(results.name)
        with mlflow.start_run(run_name=out.name) as run:
            flat = dict(dotted(settings))
            mlflow.log_params({key: str(value)[:LONGEST] for key, value in flat.items()})
            mlflow.log_metrics(_metrics(results))
            for file in ("report.html", "metrics.json", "predictions.csv"):
                mlflow.log_artifact(str(out / file))
    except Exception as error:
        raise BadOption(f"--mlflow {tracking}: {' '.join(str(error).split())[:300]}") from error
    return str(run.info.run_id)


def import_mlflow() -> Any:
    """Return the package; raise `BadOption` if it is not installed."""
    try:
        return import_module("mlflow")
    except ImportError as error:
        raise BadOption("--mlflow: needs the package mlflow: pip install mlflow") from error


def _metrics(results: Results) -> dict[str, float]:
    found = {}
    for model in results.models:
        scores = {**model.scores, results.task.primary_metric: results.primary_mean(model)}
        for name, value in scores.items():
            if np.isfinite(value):
                found[_FORBIDDEN.sub("-", f"{model.name}/{name}")] = float(value)
    return found

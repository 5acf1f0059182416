"""The folder of a run as a library: out-of-fold predictions, confusions and hard clips."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse.compare_runs import read_run
from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.fuse.final.model import FinalModel
from mvemo.manifests import Manifest
from mvemo.manifests.errors import BadOption
from mvemo.manifests.text_files import read_json
from mvemo.pipeline.clips.clip_tables import manifest_of
from mvemo.pipeline.desk.serve.library import Library

FILES = ("metrics.json", "predictions.csv")
# Number of clips with the least probable true class.
MOST_HARD = 50


def is_run(folder: Path) -> bool:
    """Return True for a folder that ``mvemo fuse`` wrote."""
    return all((folder / name).is_file() for name in FILES)


def open_run(
    folder: Path, manifest: Manifest, library: Library, model: FinalModel
) -> dict[str, Any]:
    """List the clips of a run with their out-of-fold predictions, and return its report.

    The report has the ``confusion`` matrix (``classes``, ``counts``, ``ids`` of each cell), the
    ids of the ``hard`` clips, hardest first, and the score to ``expect`` as a sentence.
    """
    run, metrics = read_run(folder), read_json(folder / FILES[0])
    first = run.repeats[0]
    if run.task.name != "multiclass":
        raise BadOption(f"{folder}: expected a run with classes, got {run.task.name} labels")
    if {*first.classes} != {*model.classes}:
        raise BadOption(
            f"{folder}: predicts {', '.join(first.classes)}, but the model {model.name} predicts "
            f"{', '.join(model.classes)}: give --model the model that the run made"
        )
    models, primary, classes = metrics["models"], metrics["primary_metric"], first.classes
    best = (metrics["choice"] or {}).get("model")
    if best is None:
        best = max(models, key=lambda name: models[name][primary]["mean"] or 0)
    clips = {clip.clip_id: clip for clip in manifest.clips}
    ids: list[list[list[str]]] = [[[] for _ in classes] for _ in classes]
    hard: list[tuple[float, str]] = []
    for name, true, outputs in zip(first.clip_ids, first.y_true, first.outputs[best], strict=True):
        if name not in clips:
            continue
        path, is_predicted = manifest.media_path(clips[name]), bool(np.isfinite(outputs).all())
        proba = dict(zip(classes, outputs.tolist(), strict=True)) if is_predicted else {}
        label, notes = int(outputs.argmax()), (f"true label: {classes[true]}",)
        clip = ClipPrediction(str(path), f"{folder.name}/{best}", proba, notes=notes)
        if is_predicted:
            sure = max(proba.values())
            clip = replace(clip, label=classes[label], confidence=sure, doubt=1 - sure)
        clip_id = library.add_prediction(path, clip, clip.place)
        if is_predicted:
            ids[true][label].append(clip_id)
        if not is_predicted or label != true:
            hard.append((proba.get(classes[true], 0.0), clip_id))
    return {
        "confusion": {
            "classes": list(classes),
            "counts": [[len(cell) for cell in cells] for cells in ids],
            "ids": ids,
        },
        "hard": [clip_id for _, clip_id in sorted(hard)[:MOST_HARD]],
        "expected": f"{best}: {run.task.primary_title} {models[best][primary]['mean']:.3f} on "
        "clips that it was not trained on.",
    }


def run_manifest(folder: Path) -> Manifest:
    """Return the manifest that a run's features were made with, which must still be there."""
    facts = read_json(folder / FILES[0])["provenance"].get("stage_one", {}).get("manifest", {})
    if (manifest := manifest_of(facts)) is None:
        raise BadOption(f"{folder}: the manifest of its clips is gone: {facts.get('file', '')}")
    return manifest

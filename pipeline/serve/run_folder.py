"""The folder of a run as a library: out-of-fold predictions, confusions and hard clips."""

from pathlib import Path
from typing import Any

from mvemo.manifests import Manifest, read_manifest
from mvemo.manifests.files import parse_json
from mvemo.manifests.tables import read_table
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.moods import Mood
from mvemo.pipeline.serve.library import Library

FILES = ("metrics.json", "predictions.csv")
# Number of clips with the least probable true class.
MOST_HARD = 50


def is_run(folder: Path) -> bool:
    """Return True for a folder that ``mvemo fuse`` wrote."""
    return all((folder / name).is_file() for name in FILES)


def media_folder(run: Path) -> Path:
    """Return the media root of a run's manifest, which must still be there."""
    return _manifest(run).root.resolve()


def open_run(run: Path, library: Library) -> dict[str, Any]:
    """List the clips of a run with their out-of-fold predictions, and return its report.

    The report has the ``confusion`` matrix (``classes``, ``counts``, ``ids`` of each cell), the
    ids of the ``hard`` clips, hardest first, and the score to ``expect`` as a sentence.
    """
    metrics, manifest = parse_json((run / FILES[0]).read_bytes()), _manifest(run)
    if metrics["task"] != "multiclass":
        raise BadOption(f"{run}: expected a run with classes, got {metrics['task']} labels")
    models, classes = metrics["models"], metrics["classes"]
    best = (metrics["choice"] or {}).get("model")
    if best is None:
        best = max(models, key=lambda name: models[name][metrics["primary_metric"]]["mean"] or 0)
    clips = {clip.clip_id: clip for clip in manifest.clips}
    table = read_table(run / FILES[1], error=BadOption)
    ids: list[list[list[str]]] = [[[] for _ in classes] for _ in classes]
    hard: list[tuple[float, str]] = []
    for _, cells in table.rows[1:]:
        row = dict(zip(table.header, cells, strict=True))
        if row["model"] != best or row["clip_id"] not in clips:
            continue
        true, label = row["label"], row["predicted"]
        proba = {name: float(row[f"p_{name}"]) for name in classes if row.get(f"p_{name}")}
        path = manifest.media_path(clips[row["clip_id"]])
        facts = {
            "model": f"{run.name}/{best}",
            "state": "done",
            "label": label,
            "proba": proba,
            "confidence": max(proba.values(), default=None),
            "doubt": 1 - max(proba.values()) if proba else None,
            "map": Mood(path, proba=proba).place,
            "notes": [f"true label: {true}"],
            "error": None,
        }
        clip_id = library.add(path, **facts)
        if true in classes and label in classes:
            ids[classes.index(true)][classes.index(label)].append(clip_id)
        if label != true:
            hard.append((proba.get(true, 0.0), clip_id))
    score = models[best][metrics["primary_metric"]]["mean"]
    metric = metrics["primary_metric"].replace("_", " ")
    return {
        "confusion": {
            "classes": classes,
            "counts": [[len(cell) for cell in cells] for cells in ids],
            "ids": ids,
        },
        "hard": [clip_id for _, clip_id in sorted(hard)[:MOST_HARD]],
        "expected": f"{best}: {metric} {score:.3f}, cross-validated.",
    }


def _manifest(run: Path) -> Manifest:
    """Return the manifest that a run's features were made with."""
    provenance = parse_json((run / FILES[0]).read_bytes())["provenance"]
    facts = provenance.get("stage_one", {}).get("manifest", {})
    file, root = Path(facts.get("file", "")), Path(facts.get("root", ""))
    if not file.is_file():
        raise BadOption(f"{run}: the manifest of its clips is gone: {file}")
    return read_manifest(file, root=root, media=False)

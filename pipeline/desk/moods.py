"""Predictions that playlists and tags use, with a person's corrections in their place."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.fuse.final.prediction_records import read_predictions
from mvemo.manifests import read_manifest
from mvemo.manifests.errors import BadOption
from mvemo.manifests.labels import label_kind
from mvemo.pipeline.console.messages import tell_note


def read_moods(
    predictions: Path, corrections: Path | None, least: float | None
) -> list[ClipPrediction]:
    """Read predictions (CSV, JSON or JSON Lines of ``mvemo predict``) and corrections.

    Files that were not predicted are left out with a note, also if they were corrected. A relative
    path may start at the file's folder. `least` is the smallest probability of a mood; None keeps
    all. BadOption is raised if no clip is predicted.
    """
    clips = list(read_predictions(predictions))
    found = [_located(clip, predictions.parent) for clip in clips if clip.is_predicted]
    if not found:
        raise BadOption(f"{predictions}: has no predicted clip, only {len(clips)} failed ones")
    if len(found) < len(clips):
        tell_note(f"{len(clips) - len(found)} of {len(clips)} clips were not predicted: left out")
    if corrections is not None:
        found = _corrected(found, corrections)
    if least is not None:
        if not any(clip.proba or clip.quadrant or clip.is_corrected for clip in found):
            raise BadOption("--min-confidence: ratings have no probabilities: leave it out")
        found = [clip.surer_than(least) for clip in found]
    return found


def _located(clip: ClipPrediction, folder: Path) -> ClipPrediction:
    path = Path(clip.path)
    is_beside = not path.exists() and (folder / path).exists()
    return replace(clip, path=str(folder / path)) if is_beside else clip


def _corrected(found: list[ClipPrediction], corrections: Path) -> list[ClipPrediction]:
    """Return the clips with the labels of a manifest in the place of predictions."""
    manifest = read_manifest(corrections, media=False)
    labels: dict[str, Any] = {}
    for clip in manifest.clips:
        rated: Mapping[str, Any] = dict(zip(manifest.classes, clip.label, strict=False))
        label = rated if label_kind(manifest.task).numeric else tuple(map(str, clip.label))
        labels[os.path.realpath(manifest.media_path(clip))] = label
    judged = []
    for prediction in found:
        label = labels.pop(os.path.realpath(prediction.path), None)
        judged.append(prediction if label is None else prediction.corrected(label))
    if labels:
        tell_note(
            f"{corrections}: {len(labels)} of {len(manifest)} corrected clips are not among the "
            f"predictions, such as {min(labels)}"
        )
    return judged

"""Corrected clips, found in the catalogue of features that ``mvemo predict --cache`` wrote."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo import manifests
from mvemo.cache import Cache, ClipTable, FeatureSpec, open_cache
from mvemo.cache.spec import row_key
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Clips
from mvemo.fuse.final.model import FinalModel, Vectors, short_keys, stored_as
from mvemo.fuse.stores import MemoryStore
from mvemo.fuse.tasks import task_of
from mvemo.manifests.array_types import F64, Bools
from mvemo.manifests.labels import label_kind

# Minimum number of corrected clips per class for a meaningful score.
PER_CLASS = 5
# Maximum number of clips without a correction on which a new model is kept close to the old one.
MOST_OTHERS = 500


@dataclass(frozen=True)
class CorrectedClips:
    """Corrected clips with their cached features."""

    store: MemoryStore  # ids are digests of the files; classes of the model, then new ones
    clips: Clips
    others: Vectors  # features of clips of the catalogue that were not corrected
    scored: Bools  # False for unsure corrections, and for clips that the base model was made of
    annotators: tuple[str, ...]

    def keys(self, base: FinalModel) -> NDArray[np.uint64]:
        """Return the keys of the corrected files, as `FinalModel.training_keys`."""
        digests = {stored_as(spec)[1] for spec in base.specs}
        content = self.store.table.clip_ids
        return short_keys(
            row_key(digest, file, 0.0, None).encode() for digest in digests for file in content
        )

    @property
    def vectors(self) -> Vectors:
        """Return the features, float64 (clips, dim)."""
        keys = [(spec.name, spec.fold) for spec in self.store.specs]
        return {key: self.store.vectors(*key)[0].astype(np.float64) for key in keys}

    @property
    def constant_outputs(self) -> F64:
        """Return the outputs of a model whose outputs are the same for every clip."""
        target = self.clips.target
        return np.broadcast_to(target.mean(axis=1, dtype=np.float64), target.T.shape)


def read_corrections(
    base: FinalModel,
    model: Path,
    path: Path,
    features: str | Path,
    training: str | Path | None,
) -> CorrectedClips:
    """Find the corrected clips in the catalogue, by the digests or the paths of their files.

    Raise `BadFeatures` if the corrections of `path` do not fit the `base` in the folder `model`.
    """
    manifest = manifests.read_manifest(path, media=False)
    _check(base, manifest, model, path, training)
    with open_cache(features) as catalogue:
        return _corrected(base, manifest, catalogue, path)


def _check(
    base: FinalModel,
    manifest: manifests.Manifest,
    model: Path,
    path: Path,
    training: str | Path | None,
) -> None:
    """Raise `BadFeatures` if the model cannot learn from these corrections."""
    if "learned_from" in base.facts:
        was = base.facts["learned_from"]["base"]
        raise BadFeatures(
            f"--model {model}: was itself learned from corrections: give its base, {was}, with all "
            "corrections"
        )
    if base.within_groups:
        raise BadFeatures(f"--model {model}: reads features within groups, which learn cannot do")
    if not manifest.classes:
        raise BadFeatures(f"{path}: has no labels: expected some of {', '.join(base.classes)}")
    if manifest.task != base.task:
        raise BadFeatures(
            f"{path}: expected labels of task {base.task}, as {model} has, got {manifest.task}"
        )
    used = {str(name) for clip in manifest.clips for name in clip.label}
    new = [name for name in manifest.classes if name not in base.classes]
    if base.task == "regression" and (new or len(manifest.classes) != len(base.classes)):
        expected, got = ", ".join(base.classes), ", ".join(manifest.classes)
        raise BadFeatures(f"{path}: expected the targets {expected}, got {got}")
    for name in new if base.task != "regression" else ():
        n = sum(name in clip.label for clip in manifest.clips)
        if name in used and (training is None or base.task != "multiclass" or n < PER_CLASS):
            raise BadFeatures(
                f"{path}: {name!r} is not a class of {model} ({', '.join(base.classes)}): a new "
                f"class needs --training and {PER_CLASS} corrected clips, got {n}"
            )


def _corrected(
    base: FinalModel, manifest: manifests.Manifest, catalogue: Cache, path: Path
) -> CorrectedClips:
    clips = _rows(manifest, catalogue, path)
    table, rows, n = catalogue.table, list(clips), len(clips)
    rest = np.setdiff1d(np.arange(len(table)), rows)
    rest = np.random.default_rng(0).permutation(rest)[:MOST_OTHERS]
    ids = [table.clip_ids[row] for row in (*rows, *rest)]
    vectors, others = [], {}
    for spec in base.specs:
        found = next((s for s in catalogue.specs if s.name == spec.label), None)
        if found is None or _origin(found) != _origin(spec):
            raise BadFeatures(
                f"{catalogue.path}: {spec.label} is missing or from another model: predict with "
                f"'mvemo predict FILES --model MODEL --cache {catalogue.path}'"
            )
        values = catalogue.vectors(found.name, clips=ids)[0]
        vectors.append((spec, values[:n]))
        others[spec.name, spec.fold] = values[n:].astype(np.float64)
    used = {str(name) for clip in clips.values() for name in clip.label}
    classes = (*base.classes, *(c for c in manifest.classes if c in used - {*base.classes}))
    labels = label_kind(base.task).array([c.label for c in clips.values()], classes)
    if base.task == "regression":
        labels = labels[:, [manifest.classes.index(name) for name in base.classes]]
    facts = [dict(clip.extra) for clip in clips.values()]
    content = tuple(table.clip_ids[row].partition("@")[0] for row in rows)
    seen = [base.trained_on(digest, 0.0, None) for digest in content]
    unsure = [each.get("unsure", "") not in ("", "0") for each in facts]
    groups = tuple(c.group for c in clips.values())
    nowhere, task = np.full(n, -1), task_of(base.task)
    own = ClipTable(base.name, base.task, classes, content, groups, labels, nowhere, 0)
    return CorrectedClips(
        MemoryStore(own, vectors, path),
        Clips(task, task.read_labels(labels), groups, nowhere, len(classes)),
        others,
        ~np.logical_or(seen, unsure),
        tuple(sorted({each.get("annotator", "") for each in facts} - {""})),
    )


def _rows(manifest: manifests.Manifest, catalogue: Cache, path: Path) -> dict[int, manifests.Clip]:
    """Return the corrected clip of each row of the catalogue."""
    table = catalogue.table
    row_of = {p: row for row, places in enumerate(table.groups) for p in places.split("\n")}
    row_of |= {clip_id: row for row, clip_id in enumerate(table.clip_ids)}
    clips: dict[int, manifests.Clip] = {}
    for clip in manifest.clips:
        place = os.path.abspath(manifest.media_path(clip))
        row = row_of.get(dict(clip.extra).get("content", ""), row_of.get(place))
        if row is None:
            continue
        if clip.start or clip.duration is not None:
            raise BadFeatures(
                f"{path}: {clip.clip_id!r} is a part of a file, but the catalogue has features of "
                "whole files: leave out start and duration"
            )
        if clips.setdefault(row, clip).label != clip.label:
            raise BadFeatures(
                f"{path}: {clip.clip_id!r} and {clips[row].clip_id!r} are the same file, but have "
                "different labels: keep one of them"
            )
    if not clips:
        raise BadFeatures(
            f"{path}: none of its {len(manifest)} clips is in {catalogue.path}: predict them first "
            f"with 'mvemo predict FILES --cache {catalogue.path}'"
        )
    return clips


def _origin(spec: FeatureSpec) -> tuple[Any, ...]:
    """Return the fields of a spec that determine the values of a clip of one window."""
    params = {key: value for key, value in spec.params.items() if key != "windows"}
    return spec.modality, spec.kind, spec.dim, spec.extractor, spec.version, params, spec.weights

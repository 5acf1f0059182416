"""Study of robustness: how many decisions of finished models turn when clips are degraded."""

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse import bootstrap, numeric
from mvemo.fuse.final.model import FinalModel, Predictor, tag_thresholds
from mvemo.fuse.report.tables import PERCENT, TEXT, Column, Value, table
from mvemo.fuse.tasks import base, task_of
from mvemo.manifests import Manifest
from mvemo.manifests.array_types import F64, Bools, Ints
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.manifests.labels import PLANE
from mvemo.manifests.layouts.scan import AUDIO_SUFFIXES
from mvemo.pipeline.console.progress import Progress, told_as_parts
from mvemo.pipeline.models.boxed import boxed_names, model_folder
from mvemo.pipeline.prediction import embedding, feature_maker, new_clips, run
from mvemo.pipeline.studies import degradations as media
from mvemo.pipeline.studies.comparison import Draft

# Modalities that are read: all, or only one of them.
VIEWS = (("audio", "video"), ("audio",), ("video",))
# Score of each task, by its key in `Task.resample`.
SCORES = {"multiclass": "accuracy", "multilabel": "roc_auc_macro", "regression": "pearson_r_macro"}
TITLE = "Decisions that turn, and change of the score"
COLUMNS = (
    *(Column(name, TEXT) for name in ("model", "by", "degradation")),
    Column("clips"),
    *(Column(name, PERCENT) for name in ("turned", "low", "high")),
    *map(Column, ("score", "change", "change from", "change to")),
)
NETS_TITLE = "Mean cosine distance of features from those of the original clip"
NETS_COLUMNS = (*COLUMNS[:1], Column("feature", TEXT), COLUMNS[2], Column("distance"))
NOTE = (
    "A decision is the class, the tags, or the quadrant of valence and arousal (energy); without "
    "these, the halves of all ratings. It turns if it differs from that of the original clip. "
    "Intervals are 95 % over groups, from 8 groups on. Scores: accuracy, mean AUC of tags, mean r "
    "of ratings; those of clips that a model was trained on are too good."
)


@dataclass
class _Tested:
    """Outputs of one model for clips and their degraded copies; row 0 is the clips themselves."""

    name: str
    reader: embedding.BatchReader
    shape: tuple[int, int]  # degradations + 1, clips
    # By predictor, float64 (*shape, outputs), and by feature its cosine distance from that of the
    # clip itself, float64 `shape`; NaN if missing.
    outputs: dict[str, F64] = field(default_factory=dict)
    moved: dict[str, F64] = field(default_factory=dict)

    @property
    def model(self) -> FinalModel:
        return self.reader.maker.model

    def read(self, clip: int, copies: Mapping[int, new_clips.NewClip]) -> dict[int, str]:
        """Predict a clip and its copies, and return the problems of those without prediction."""
        embedded = {i: one for batch in self.reader.read(copies) for i, one in batch}
        modality, problems, best = {s.name: s.modality for s in self.model.specs}, {}, ""
        for i, one in sorted(embedded.items()):
            for view in VIEWS:
                vectors = {k: x for k, x in one.vectors.items() if modality[k[0]] in view}
                found = run.predict_clip(self.reader.maker, replace(one, vectors=vectors))
                by = found.predictor.name if found.predictor else ""
                if view == VIEWS[0]:
                    best = best or by
                    if by != best or not by:
                        problems[i] = found.error or found.notes[-1]
                if by:
                    missing = np.full((*self.shape, len(self.model.classes)), np.nan)
                    self.outputs.setdefault(by, missing)[i, clip] = found.outputs
            for key, vector in one.vectors.items():
                if (first := embedded[0].vectors.get(key)) is not None:
                    cosine = first @ vector / (np.linalg.norm(first) * np.linalg.norm(vector))
                    moved = self.moved.setdefault(key[0], np.full(self.shape, np.nan))
                    moved[i, clip] = 1 - cosine
        return problems


def run_robustness(draft: Draft) -> None:
    """Degrade and predict one clip after the other; see `StudyFile` for the options."""
    study, options, names = draft.study, draft.options, draft.options["degradations"]
    if not names:
        raise BadOption("--degradations: expected at least one degradation, such as mp3-64k")
    degradations = [media.find_degradation(name) for name in names]
    manifest = _sample(draft, options["clips"])
    clips = [
        new_clips.NewClip(c.clip_id, manifest.media_path(c), c.start, c.duration)
        for c in manifest.clips
    ]
    settings = new_clips.PredictSettings(
        new_clips.modalities_of(clips), device=study.settings.extract.run.device
    )
    tested = []
    for name in options["models"] or boxed_names():
        new_clips.warm_up(model_folder(name), settings)
        reader = embedding.BatchReader(feature_maker.FeatureMaker(model_folder(name), settings))
        tested.append(_Tested(name, reader, (len(names) + 1, len(clips))))
    with Progress("degradation and predict", len(clips)) as bar:
        for row, clip in enumerate(clips):
            copies, problems = {0: clip}, dict[int, str]()
            part: dict[str, Any] = {"start": clip.start, "duration": clip.duration}
            with tempfile.TemporaryDirectory(prefix="mvemo-") as work:
                for i, (name, degraded) in enumerate(zip(names, degradations, strict=True), 1):
                    # Any other file may have pictures.
                    if degraded.modality == "video" and clip.path.suffix.lower() in AUDIO_SUFFIXES:
                        continue
                    try:
                        path = media.degradation(
                            clip.path, name, Path(work, f"{i}-{name}.copy"), **part
                        )
                        copies[i] = new_clips.NewClip(clip.file, path)
                    except MvemoError as error:
                        problems[i] = str(error).removeprefix(f"{clip.path}: ")
                for each in tested:
                    with told_as_parts(1, ["clips"], lambda *_: None, {}):
                        problems |= each.read(row, copies)
            if 0 in problems:
                study.failures[clip.file] = problems[0]
            else:
                failed = {f"{clip.file}, {names[i - 1]}": p for i, p in problems.items()}
                study.failures.update(failed)
            bar.step(failed=int(bool(problems)))
    resamples = bootstrap.resample_groups(manifest.groups)
    rows = [row for each in tested for row in _rows(each, names, manifest, resamples)]
    if not rows:
        reason = next(iter(study.failures.items()), ("", "they have no pictures"))
        raise BadOption(
            f"no clip was predicted in these degradations: {': '.join(filter(None, reason))}"
        )
    moved = [row for each in tested for row in _moved(each, names)]
    draft.tables = [
        table(COLUMNS, rows, title=TITLE, name="decisions"),
        table(NETS_COLUMNS, moved, title=NETS_TITLE, name="nets"),
    ]
    draft.notes += _notes(tested, rows)


def _sample(draft: Draft, most: int) -> Manifest:
    """Return at most so many clips of the study's manifest, chosen at random."""
    manifest, seed = draft.study.manifest, draft.study.settings.extract.run.seed
    if len(manifest) <= most:
        return manifest
    rows = np.sort(np.random.default_rng(seed).permutation(len(manifest))[:most])
    draft.notes.append(f"{most} of {len(manifest)} clips, chosen at random with seed {seed}.")
    return replace(manifest, clips=tuple(manifest.clips[row] for row in rows))


def _rows(
    tested: _Tested, names: Sequence[str], manifest: Manifest, resamples: bootstrap.Resamples
) -> list[list[Value]]:
    """Return a row of the table for each predictor and degradation that changes what it reads."""
    model, rows = tested.model, list[list[Value]]()
    labelled, y_true, columns = _labels(model, manifest)
    task = task_of(model.task)
    for predictor in (p for p in model.predictors if p.name in tested.outputs):
        outputs = tested.outputs[predictor.name]
        decided, thresholds = _decisions(model, predictor, outputs), None
        if model.task == "multilabel":
            thresholds = tag_thresholds(model, predictor)[columns]
        for i, name in enumerate(names, 1):
            valid = numeric.complete(outputs[0]) & numeric.complete(outputs[i])
            if media.find_degradation(name).modality not in predictor.modalities or not valid.any():
                continue
            turned = (decided[i] != decided[0]).any(axis=-1)
            drawn = resamples.shares(turned[None], valid[None])[0]
            interval = bootstrap.score_interval("accuracy", drawn, resamples, valid)
            row: list[Value] = [tested.name, predictor.name, name, int(valid.sum())]
            row += [float(drawn[0]), *interval]
            kept = np.flatnonzero(valid & labelled)
            scores = [np.nan] * 4
            if len(kept):
                pair = outputs[[0, i]][:, kept][..., columns]
                y_pred = np.stack([task.decide(one, thresholds) for one in pair])
                part, zeros = resamples.select(kept), np.zeros(len(kept), np.int64)
                both = base.Outcome(y_true[kept], pair, y_pred, zeros, 1)
                first, then = task.resample(both, part)[SCORES[model.task]]
                change = then - first
                scores = [float(then[0]), float(change[0])]
                scores += bootstrap.score_interval("difference", change, part)
            rows.append([*row, *scores])
    return rows


def _decisions(model: FinalModel, predictor: Predictor, outputs: F64) -> Ints | Bools:
    """Return decisions (degradations + 1, clips, n): the class, tags, or the halves of ratings.

    The halves of valence and arousal (or energy) are the quadrant; without them all ratings count.
    """
    if model.task == "multiclass":
        return np.argmax(outputs, axis=-1, keepdims=True)
    if model.task == "multilabel":
        return outputs >= tag_thresholds(model, predictor)
    lower = [name.lower() for name in model.classes]
    plane = [[n for n in pair if n in lower][:1] for pair in ((PLANE[0],), (PLANE[1], "energy"))]
    chosen = [lower.index(n) for part in plane for n in part] if all(plane) else range(len(lower))
    middle = np.array([sum(model.ends(model.classes[c])) / 2 for c in chosen])
    return outputs[..., list(chosen)] >= middle


def _labels(model: FinalModel, manifest: Manifest) -> tuple[Bools, Any, list[int]]:
    """Return which clips have labels that the model predicts, the labels, and their outputs."""
    theirs, n = [name.lower() for name in manifest.classes], len(manifest)
    names = [name.lower() for name in model.classes]
    shared = [i for i, name in enumerate(names) if name in theirs]
    if manifest.task != model.task or not shared:
        return np.zeros(n, bool), np.zeros(n), []
    if model.task == "multiclass":
        index = np.array([names.index(name) if name in names else -1 for name in theirs])
        return index[manifest.labels] >= 0, index[manifest.labels], list(range(len(names)))
    y = manifest.labels[:, [theirs.index(names[i]) for i in shared]]
    return np.ones(n, bool), y, shared


def _moved(tested: _Tested, names: Sequence[str]) -> list[list[Value]]:
    """Return a row for each feature and degradation that moves it."""
    return [
        [tested.name, feature, name, float(np.nanmean(values[i]))]
        for feature, values in tested.moved.items()
        for i, name in enumerate(names, 1)
        if np.isfinite(values[i]).any() and np.nanmax(values[i]) > 1e-9
    ]


def _notes(tested: Sequence[_Tested], rows: Sequence[Sequence[Value]]) -> list[str]:
    """Return a sentence for each model: the degradation of each kind that turns most decisions."""
    notes = [NOTE]
    for each in tested:
        worst: dict[str, tuple[float, str]] = {}
        best = next((p.name for p in each.model.predictors if p.name in each.outputs), "")
        for _, _, name, _, turned, *_ in (r for r in rows if r[:2] == [each.name, best]):
            kind = re.sub(r"(?<=[a-z.])[-+]?[\d.]+[k%]?$", "", str(name))
            worst[kind] = max(worst.get(kind, (0.0, "")), (float(turned or 0), str(name)))
        most = ", ".join(f"{name} {turned:.1%}" for turned, name in worst.values() if turned)
        if worst:
            notes.append(f"{each.name}: decisions of {best} that turn at most: {most or 'none'}.")
    return notes

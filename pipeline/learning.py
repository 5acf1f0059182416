"""Learning from corrections: a new model from corrected clips, and an honest before and after.

No media are read: the features of the corrected clips are in the catalogue that ``mvemo predict
--cache`` wrote.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mvemo.cache import Cache, CacheWriter, ClipTable, FeatureSpec, open_cache
from mvemo.cache.spec import row_key
from mvemo.fuse.bootstrap import resample_groups
from mvemo.fuse.crossval.evaluation import evaluate
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.features import LLD, Features, FeatureSettings
from mvemo.fuse.final.adaptation import Adaptation, first_of, linear_part, predictor_outputs
from mvemo.fuse.final.building import build_model, with_limits
from mvemo.fuse.final.model import (
    HEADS,
    MODEL,
    REFERENCE,
    FeatureKey,
    FinalModel,
    load_model,
    save_model,
    short_keys,
    stored_as,
)
from mvemo.fuse.heads.head import HeadSettings
from mvemo.fuse.intervals import MIN_GROUPS, score_interval
from mvemo.fuse.models import KERNEL
from mvemo.fuse.numeric import Labels, complete
from mvemo.fuse.tasks import task_of
from mvemo.fuse.tasks.base import Task
from mvemo.manifests import Clip, Manifest, read_manifest
from mvemo.manifests.array_types import F64, Bools
from mvemo.manifests.errors import BadOption
from mvemo.manifests.files import replacing_together
from mvemo.manifests.labels import label_kind
from mvemo.manifests.text_files import read_json
from mvemo.manifests.text_table import listed

# Fewest corrected clips of a class, and of tags or ratings, from which a score says something.
PER_CLASS, PER_TASK = 5, 20
# Largest number of clips without a correction that keep a new model near the old one.
MOST_OTHERS = 500
# Largest number of further corrections that is stated.
MOST_NEEDED = 1000


@dataclass(frozen=True)
class LearnResult:
    """Result of learning from corrections; all values are JSON values."""

    # ``metric``, ``score`` and ``clips`` of the base model, and of models that were adapted or
    # trained without the scored groups; None if no clip can be scored.
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    interval: list[float] | None  # 95 % interval of the difference of the scores
    n_corrections: int
    enough: bool  # True if the interval excludes 0 and each class has enough clips
    better: bool  # True if, in addition, the new model is better
    needed: int | None  # number of further corrections to say more; None if unknown or 0
    text: str
    model: str  # folder of the new model


@dataclass(frozen=True)
class _Corrected:
    """Corrected clips with their cached features."""

    classes: tuple[str, ...]  # of the model, then new ones
    content: tuple[str, ...]  # digests of the files
    labels: Labels
    groups: tuple[str, ...]
    vectors: Mapping[FeatureKey, F64]
    others: Mapping[FeatureKey, F64]  # of clips of the catalogue that were not corrected
    scored: Bools  # False for unsure corrections, and for clips that the base model was made of
    annotators: tuple[str, ...]


def learn(
    corrections: str | Path,
    features: str | Path,
    *,
    model: str | Path,
    out: str | Path,
    training: str | Path | None = None,
) -> LearnResult:
    """Make a new model from corrections, and compare it with the old one on the corrected clips.

    Parameters
    ----------
    corrections
        Manifest of corrected labels; columns ``content``, ``unsure`` and ``annotator`` are used if
        they are there.
    features
        Catalogue that ``mvemo predict --cache`` wrote with this model.
    model, out
        Folders of the old and of the new model.
    training
        Cache that the old model was made of. With it the heads are trained again on all clips,
        otherwise the old heads are adapted (`mvemo.fuse.final.adaptation`).

    Raises
    ------
    BadOption
        The files do not fit each other, or a class is new to the model and cannot be learned.
    """
    base, manifest = load_model(model), read_manifest(corrections, media=False)
    _check(base, manifest, Path(model), Path(corrections), training)
    with open_cache(features) as catalogue:
        corrected = _corrected(base, manifest, catalogue, Path(corrections))
    before = first_of(predictor_outputs(base, corrected.vectors))
    if training is None:
        # The matrices are small: threads of BLAS would only wait for each other.
        with threadpool_limits(1, user_api="blas"):
            new, after = _adapted(base, corrected, before)
    else:
        with open_cache(training) as cache:
            new, after = _retrained(base, corrected, cache)
    # The old model gives a class that it does not know the probability 0.
    before = np.pad(before, ((0, 0), (0, after.shape[1] - before.shape[1])))
    result = replace(_compared(base, corrected, before, after), model=str(out))
    if new is base:
        same = (
            "The new model answers as the old one: the corrections show no pattern that it lacks."
        )
        result = replace(result, text=f"{result.text} {same}")
    facts = {**asdict(result), "annotators": list(corrected.annotators), "base": str(model)}
    people = f" by {listed(corrected.annotators)}" if corrected.annotators else ""
    note = f"learned from {result.n_corrections} corrections{people}. {result.text}"
    notes = [*base.facts.get("notes", []), note]
    new = replace(new, facts={**new.facts, "notes": notes, "learned_from": facts})
    names = read_json(Path(model) / MODEL)["files"]
    extra = tuple(name for name in names if name not in (HEADS, REFERENCE))
    with replacing_together(Path(out)) as folder:
        for name in extra:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(model) / name, folder / name)
        save_model(folder, new, extra)
    return result


def _check(
    base: FinalModel, manifest: Manifest, model: Path, path: Path, training: str | Path | None
) -> None:
    """Raise `BadOption` if the corrections do not fit the model."""
    if "learned_from" in base.facts:
        was = base.facts["learned_from"]["base"]
        raise BadOption(
            f"--model {model}: was itself learned from corrections: give its base, {was}, with all "
            "corrections"
        )
    if base.within_groups:
        raise BadOption(f"--model {model}: reads features within groups, which learn cannot do")
    if not manifest.classes:
        raise BadOption(f"{path}: has no labels: expected some of {', '.join(base.classes)}")
    if manifest.task != base.task:
        raise BadOption(
            f"{path}: expected labels of task {base.task}, as {model} has, got {manifest.task}"
        )
    used = {str(name) for clip in manifest.clips for name in clip.label}
    new = [name for name in manifest.classes if name not in base.classes]
    if base.task == "regression" and (new or len(manifest.classes) != len(base.classes)):
        expected, got = ", ".join(base.classes), ", ".join(manifest.classes)
        raise BadOption(f"{path}: expected the targets {expected}, got {got}")
    for name in new if base.task != "regression" else ():
        n = sum(name in clip.label for clip in manifest.clips)
        if name in used and (training is None or base.task != "multiclass" or n < PER_CLASS):
            raise BadOption(
                f"{path}: {name!r} is not a class of {model} ({', '.join(base.classes)}): a new "
                f"class needs --training and {PER_CLASS} corrected clips, got {n}"
            )


def _corrected(base: FinalModel, manifest: Manifest, catalogue: Cache, path: Path) -> _Corrected:
    """Find the corrected clips in the catalogue, by the digests or the paths of their files."""
    table = catalogue.table
    row_of = {p: row for row, places in enumerate(table.groups) for p in places.split("\n")}
    row_of |= {clip_id: row for row, clip_id in enumerate(table.clip_ids)}
    clips: dict[int, Clip] = {}
    for clip in manifest.clips:
        place = os.path.abspath(manifest.media_path(clip))
        row = row_of.get(dict(clip.extra).get("content", ""), row_of.get(place))
        if row is None:
            continue
        if clip.start or clip.duration is not None:
            raise BadOption(
                f"{path}: {clip.clip_id!r} is a part of a file, but the catalogue has features of "
                "whole files: leave out start and duration"
            )
        if clips.setdefault(row, clip).label != clip.label:
            raise BadOption(
                f"{path}: {clip.clip_id!r} and {clips[row].clip_id!r} are the same file, but have "
                "different labels: keep one of them"
            )
    if not clips:
        raise BadOption(
            f"{path}: none of its {len(manifest)} clips is in {catalogue.path}: predict them first "
            f"with 'mvemo predict FILES --cache {catalogue.path}'"
        )
    vectors, others, rows = {}, {}, list(clips)
    rest = np.setdiff1d(np.arange(len(table)), rows)
    rest = np.random.default_rng(0).permutation(rest)[:MOST_OTHERS]
    ids = [table.clip_ids[row] for row in (*rows, *rest)]
    for spec in base.specs:
        found = next((s for s in catalogue.specs if s.name == spec.label), None)
        if found is None or _origin(found) != _origin(spec):
            raise BadOption(
                f"{catalogue.path}: {spec.label} is missing or from another model: predict with "
                f"'mvemo predict FILES --model MODEL --cache {catalogue.path}'"
            )
        values = catalogue.vectors(found.name, clips=ids)[0].astype(float)
        key = spec.name, spec.fold
        vectors[key], others[key] = values[: len(rows)], values[len(rows) :]
    used = {str(name) for clip in clips.values() for name in clip.label}
    classes = (*base.classes, *(c for c in manifest.classes if c in used - {*base.classes}))
    labels: Labels = label_kind(base.task).array([c.label for c in clips.values()], classes)
    if base.task == "regression":
        labels = labels[:, [manifest.classes.index(name) for name in base.classes]]
    facts = [dict(clip.extra) for clip in clips.values()]
    content = tuple(table.clip_ids[row].partition("@")[0] for row in rows)
    seen = [base.trained_on(digest, 0.0, None) for digest in content]
    unsure = [each.get("unsure", "") not in ("", "0") for each in facts]
    return _Corrected(
        classes,
        content,
        task_of(base.task).read_labels(labels),
        tuple(clip.group for clip in clips.values()),
        vectors,
        others,
        ~np.logical_or(seen, unsure),
        tuple(sorted({each.get("annotator", "") for each in facts} - {""})),
    )


def _origin(spec: FeatureSpec) -> tuple[Any, ...]:
    """Return what determines a clip's values, without the windows of longer clips."""
    params = {key: value for key, value in spec.params.items() if key != "windows"}
    return spec.modality, spec.kind, spec.dim, spec.extractor, spec.version, params, spec.weights


# --- the new model


def _adapted(
    base: FinalModel, corrected: _Corrected, before: F64
) -> tuple[FinalModel, F64]:  # before: outputs of the base model
    """Adapt the heads to the corrected clips; return the model, and out-of-fold outputs."""
    y_true, groups, scored = corrected.labels, corrected.groups, corrected.scored
    both = {k: np.concatenate([x, corrected.others[k]]) for k, x in corrected.vectors.items()}
    linear = linear_part(base)
    adaptation = Adaptation(linear, both, y_true, groups)
    everything = np.ones(len(groups), bool)
    after, strength = adaptation.out_of_fold(), adaptation.choose(everything)
    task = adaptation.task
    constant = np.broadcast_to(_shares(task, y_true, len(base.classes)), before.shape)
    learned, *others = (
        np.nanmean(task.losses(y_true, one)) for one in (first_of(after), before, constant)
    )
    if not strength or learned >= min(others):
        return base, before
    new = adaptation.adapted(everything, strength)
    predictors = []
    for predictor, outputs in zip(linear.predictors, after, strict=True):
        rows = scored & complete(outputs)
        one = replace(predictor, nonconformity=(), optional=())
        if rows.any():
            names = [groups[row] for row in np.flatnonzero(rows)]
            one = with_limits(one, y_true[rows], outputs[rows], names, task.link)
        predictors.append(one)
    keys = np.union1d(base.training_keys, _keys(base, corrected.content))
    return replace(new, predictors=tuple(predictors), training_keys=keys), first_of(after)


def _retrained(base: FinalModel, corrected: _Corrected, cache: Cache) -> tuple[FinalModel, F64]:
    """Train the heads on the model's own clips and the corrected ones; see `_adapted`."""
    recorded = base.facts["provenance"]["settings"]
    lld = tuple(recorded["lld"]) if any(spec.name == LLD for spec in base.specs) else ()
    statistics = tuple(recorded["lld_statistics"])
    features = Features(cache, FeatureSettings(lld=lld, lld_statistics=statistics))
    cached = {spec.name: spec for name in features.modality for spec in features.variants(name)}
    stored = dict.fromkeys(stored_as(spec)[0] for spec in base.specs)
    if (
        any(spec.fold is not None or cached.get(spec.name) != spec for spec in base.specs)
        or cache.table.classes != base.classes
        or not np.array_equal(
            short_keys(k for name in stored for k in cache.keys(name).tolist()), base.training_keys
        )
    ):
        raise BadOption(
            f"--training {cache.path}: expected the features that {base.name} was made of, from "
            "nets that were not trained on them: give this file, or leave out --training"
        )
    corrected_keys = _keys(base, corrected.content)
    kept = np.ones(len(cache.table), bool)  # a correction replaces the label of its clip
    for name in stored:
        for row, key in enumerate(cache.keys(name).tolist()):
            kept[row] &= not key or int(key[:16], 16) not in corrected_keys
    settings = EvaluationSettings(
        **{name: recorded[name] for name in ("stacked", "late", "missing_modality")},
        folds=base.facts["folds"],
        scale=base.facts.get("scale", ""),
        head=HeadSettings(**recorded["head"]),
        kernel=any(predictor.name == KERNEL for predictor in base.predictors),
        refit=True,
        audit=False,
        n_resamples=0,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.h5"
        _write_both(path, base, corrected, features, kept)
        with open_cache(path) as both:
            results = evaluate(both, settings)
            new = build_model(both, results, settings, base.predictors[0].name)
    specs = {spec.name: spec for spec in base.specs}
    keys = np.union1d(base.training_keys, corrected_keys)
    about = {"about": base.facts["about"]} if "about" in base.facts else {}
    new = replace(
        new,
        specs=tuple(specs[spec.name] for spec in new.specs),
        training_keys=keys,
        facts={**new.facts, **about},
    )
    outputs = {model.name: model.outputs for model in results.models}
    ranked = [outputs[p.name] for p in new.predictors if p.name in outputs]
    return new, first_of(np.stack(ranked)[:, -len(corrected.groups) :])


def _write_both(
    path: Path, base: FinalModel, corrected: _Corrected, features: Features, kept: Bools
) -> None:
    """Write a cache of the model's own clips that are `kept` and the corrected clips."""
    table, rows = features.cache.table, np.flatnonzero(kept)
    n = len(rows) + len(corrected.groups)
    joined = ClipTable(
        name=base.name,
        task=base.task,
        classes=corrected.classes,
        clip_ids=(
            *(f"own {row}" for row in rows),
            *(f"corrected {row}" for row in range(len(corrected.groups))),
        ),
        groups=(*(table.groups[row] for row in rows), *corrected.groups),
        labels=np.concatenate([table.labels[rows], corrected.labels]),
        folds=np.full(n, -1),
        k=0,
        scale=table.scale,
        synthetic=table.synthetic,
        predicted_by=table.predicted_by,
    )
    with CacheWriter(path, joined, commit_rows=10**6) as writer:
        for spec in base.specs:
            # Statistics of descriptors are stored as a vector here.
            params = {k: v for k, v in spec.params.items() if k != "descriptors"}
            plain, matrix = replace(spec, params=params), features.raw_matrix(spec.name, None)
            values = np.where(matrix.present[:, None], np.asarray(matrix.values), np.nan)[rows]
            both = np.concatenate([values, corrected.vectors[spec.name, None]]).astype(np.float32)
            for row in np.flatnonzero(complete(both)):
                clip_id = joined.clip_ids[row]
                writer.put(plain, clip_id, plain.key(clip_id), both[row])


def _keys(base: FinalModel, content: Sequence[str]) -> NDArray[np.uint64]:
    """Return the keys of whole files with these digests, as `FinalModel.training_keys`."""
    digests = {stored_as(spec)[1] for spec in base.specs}
    return short_keys(row_key(d, file, 0.0, None).encode() for d in digests for file in content)


# --- before and after


def _compared(base: FinalModel, corrected: _Corrected, before: F64, after: F64) -> LearnResult:
    """Compare the models on the scored clips, and say in words what this is worth."""
    task, n = task_of(base.task), len(corrected.groups)
    rows = corrected.scored & complete(before) & complete(after)
    y_true = corrected.labels[rows]
    # A model must also be better than one that answers the same for every clip.
    constant = np.broadcast_to(_shares(task, corrected.labels, after.shape[1]), after.shape)
    outputs = np.stack([before, after, constant])[:, rows]
    groups = [corrected.groups[row] for row in np.flatnonzero(rows)]
    scores = [task.primary(y_true, one) for one in outputs]
    if not np.isfinite(scores).all():
        text = (
            f"None of the {n} corrected clips can be scored: each is unsure, part of the model's "
            "training data, or the only group."
        )
        return LearnResult(None, None, None, n, False, False, None, text, "")
    zeros = np.zeros(len(y_true), int)
    resamples = resample_groups(groups)
    drawn = task.resample_primary(y_true, outputs, zeros, 1, resamples)
    interval = [*score_interval("difference", drawn[1] - drawn[0], resamples)]
    above_constant = score_interval("difference", drawn[1] - drawn[2], resamples)[0] > 0
    gain, missing = scores[1] - scores[0], _missing(base.task, corrected, rows)
    rule, needed = _shortage(gain, interval, len(y_true), missing)
    if not rule and gain > 0 and not above_constant:
        rule = "the new model is not better than the same answer for every clip"
    verdict = f"Not enough to say: {rule}."
    if not rule:
        verdict = f"The new model is {'better' if gain > 0 else 'worse'} on such clips."
    unit, sign = (100, " %") if task.in_percent else (1, "")
    old, new = (f"{unit * score:.3g}{sign}" for score in scores[:2])
    change, low, high = (f"{unit * x:+.3g}" for x in (gain, *interval))
    known = bool(np.isfinite(interval).all())
    ends = f", 95 % interval {low} to {high}" * known
    text = (
        f"{task.primary_title} on {len(y_true)} corrected clips ({len(set(groups))} groups): "
        f"{old} before, {new} after by models that were not made of the clip's group; difference "
        f"{change}{ends}. {verdict} Corrected clips are a selected "
        "sample, often the most doubtful: on other clips the difference is usually smaller."
    )
    records = [{"metric": task.primary_metric, "score": x, "clips": len(y_true)} for x in scores]
    better = not rule and gain > 0
    shown = interval if known else None
    return LearnResult(records[0], records[1], shown, n, not rule, better, needed, text, "")


def _shares(task: Task, y_true: Labels, n_outputs: int) -> F64:
    """Return the outputs of a model that answers the same for every clip, float64 (outputs,)."""
    return task.target(y_true, n_outputs).mean(axis=1, dtype=np.float64)


def _shortage(
    gain: float, interval: list[float], n: int, missing: Mapping[str, int]
) -> tuple[str, int | None]:
    """Return why `n` clips are too few, '' if they are not, and how many more are needed."""
    if missing:
        needed = sum(missing.values())
        by_class = ", ".join(f"{name}: {number}" for name, number in missing.items())
        return f"{needed} more needed ({by_class})", needed
    low, high = interval
    if not np.isfinite(interval).all():
        return f"the scored clips are of fewer than {MIN_GROUPS} groups", None
    if low > 0 or high < 0:
        return "", None
    # The interval narrows with the square root of the number of clips.
    times = ((high - low) / 2 / gain) ** 2 - 1 if gain > 0 else np.inf
    if n * times > MOST_NEEDED:
        return "the interval includes 0, and the difference is too small or not above 0", None
    needed = max(1, int(np.ceil(n * times)))
    return f"the interval includes 0; about {needed} more needed at this difference", needed


def _missing(task: str, corrected: _Corrected, rows: Bools) -> dict[str, int]:
    """Return the numbers of further clips that are needed, by class or in all."""
    if task != "multiclass":
        short = PER_TASK - int(rows.sum())
        return {f"at least {PER_TASK} clips": short} if short > 0 else {}
    used = np.unique(corrected.labels)
    counts = {corrected.classes[i]: int((corrected.labels[rows] == i).sum()) for i in used}
    if len(used) < 2:
        counts["another class"] = 0
    return {name: PER_CLASS - n for name, n in counts.items() if n < PER_CLASS}

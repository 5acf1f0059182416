"""Learning from corrections: a new model from corrected clips, and an honest before and after.

No media are read: the features of the corrected clips are in the catalogue that ``mvemo predict
--cache`` wrote.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mvemo import manifests
from mvemo.cache import Cache, ClipTable, FeatureSpec, open_cache
from mvemo.cache.spec import row_key
from mvemo.cache.table import subset
from mvemo.fuse import features
from mvemo.fuse.bootstrap import resample_groups
from mvemo.fuse.crossval import comparisons, evaluation
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.final import model as final_model
from mvemo.fuse.final.adaptation import Adaptation, first_of, linear_part, predictor_outputs
from mvemo.fuse.final.building import build_model, with_limits
from mvemo.fuse.final.model import FinalModel, Vectors
from mvemo.fuse.heads.head import HeadSettings
from mvemo.fuse.intervals import MIN_GROUPS
from mvemo.fuse.models import WITH_KERNEL
from mvemo.fuse.numeric import complete
from mvemo.fuse.stores import MemoryStore, joined
from mvemo.fuse.tasks import task_of
from mvemo.manifests.array_types import F64, Bools
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

    store: MemoryStore  # ids are digests of the files; classes of the model, then new ones
    clips: features.Clips
    others: Vectors  # features of clips of the catalogue that were not corrected
    scored: Bools  # False for unsure corrections, and for clips that the base model was made of
    annotators: tuple[str, ...]

    @property
    def vectors(self) -> Vectors:
        """Return the features, float64 (clips, dim)."""
        keys = [(spec.name, spec.fold) for spec in self.store.specs]
        return {key: self.store.vectors(*key)[0].astype(np.float64) for key in keys}


def learn(
    corrections: str | Path,
    features: str | Path,
    *,
    model: str | Path,
    out: str | Path,
    training: str | Path | None = None,
) -> LearnResult:
    """Make a new model from corrections, and compare it with the old one on the corrected clips.

    `corrections` is a manifest, whose columns ``content``, ``unsure`` and ``annotator`` are used;
    `features` the catalogue that ``mvemo predict --cache`` wrote with this model. With `training`,
    the cache that the model was made of, the heads are trained again on all clips, otherwise they
    are adapted (`mvemo.fuse.final.adaptation`).
    """
    base, manifest = (
        final_model.load_model(model),
        manifests.read_manifest(corrections, media=False),
    )
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
    result = replace(_compared(corrected, before, after), model=str(out))
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
    names = read_json(Path(model) / final_model.MODEL)["files"]
    extra = tuple(name for name in names if name not in (final_model.HEADS, final_model.REFERENCE))
    with replacing_together(Path(out)) as folder:
        for name in extra:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(model) / name, folder / name)
        final_model.save_model(folder, new, extra)
    return result


def _check(
    base: FinalModel,
    manifest: manifests.Manifest,
    model: Path,
    path: Path,
    training: str | Path | None,
) -> None:
    """Raise `BadFeatures` if the corrections do not fit the model."""
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
) -> _Corrected:
    """Find the corrected clips in the catalogue, by the digests or the paths of their files."""
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
    groups, nowhere, task = (
        tuple(c.group for c in clips.values()),
        np.full(n, -1),
        task_of(base.task),
    )
    corrected_table = ClipTable(base.name, base.task, classes, content, groups, labels, nowhere, 0)
    return _Corrected(
        MemoryStore(corrected_table, vectors, path),
        features.Clips(task, task.read_labels(labels), groups, nowhere, len(classes)),
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
    """Return what determines a clip's values, without the windows of longer clips."""
    params = {key: value for key, value in spec.params.items() if key != "windows"}
    return spec.modality, spec.kind, spec.dim, spec.extractor, spec.version, params, spec.weights


# --- the new model


def _adapted(
    base: FinalModel, corrected: _Corrected, before: F64
) -> tuple[FinalModel, F64]:  # before: outputs of the base model
    """Adapt the heads to the corrected clips; return the model, and out-of-fold outputs."""
    clips, vectors = corrected.clips, corrected.vectors
    linear, task, y_true = linear_part(base), clips.task, clips.y_true
    both = {k: np.concatenate([x, corrected.others[k]]) for k, x in vectors.items()}
    adaptation, everything = Adaptation(linear, both, clips), np.ones(len(y_true), bool)
    after, strength = adaptation.out_of_fold(), adaptation.choose(everything)
    constant = _constant(clips)
    learned, *others = (
        np.nanmean(task.losses(y_true, one)) for one in (first_of(after), before, constant)
    )
    if not strength or learned >= min(others):
        return base, before
    new = adaptation.adapted(everything, strength)
    predictors = []
    for predictor, outputs in zip(linear.predictors, after, strict=True):
        rows = corrected.scored & complete(outputs)
        one = replace(predictor, nonconformity=(), optional=())
        if rows.any():
            names = [clips.groups[row] for row in np.flatnonzero(rows)]
            one = with_limits(one, y_true[rows], outputs[rows], names, task.link)
        predictors.append(one)
    keys = np.union1d(base.training_keys, _keys(base, corrected))
    return replace(new, predictors=tuple(predictors), training_keys=keys), first_of(after)


def _retrained(base: FinalModel, corrected: _Corrected, cache: Cache) -> tuple[FinalModel, F64]:
    """Train the heads on the model's own clips and the corrected ones; see `_adapted`."""
    recorded = base.facts["provenance"]["settings"]
    both = joined([_own(base, corrected, cache), corrected.store])
    settings = EvaluationSettings(
        **{name: recorded[name] for name in ("stacked", "late", "missing_modality")},
        folds=base.facts["folds"],
        scale=base.facts.get("scale", ""),
        head=HeadSettings(**recorded["head"]),
        kernel=any(predictor.name in WITH_KERNEL for predictor in base.predictors),
        refit=True,
        audit=False,
        n_resamples=0,
    )
    results = evaluation.evaluate(both, settings)
    new = build_model(both, results, settings, base.predictors[0].name)
    keys = np.union1d(base.training_keys, _keys(base, corrected))
    about = {"about": base.facts["about"]} if "about" in base.facts else {}
    new = replace(new, training_keys=keys, facts={**new.facts, **about})
    outputs = {model.name: model.outputs for model in results.models}
    ranked = [outputs[p.name] for p in new.predictors if p.name in outputs]
    return new, first_of(np.stack(ranked)[:, -len(corrected.clips.groups) :])


def _own(base: FinalModel, corrected: _Corrected, cache: Cache) -> MemoryStore:
    """Return the clips that the model was made of, without those that were corrected."""
    recorded = base.facts["provenance"]["settings"]
    lld = tuple(recorded["lld"]) if any(s.name == features.LLD for s in base.specs) else ()
    plain = features.FeatureSettings(lld=lld, lld_statistics=tuple(recorded["lld_statistics"]))
    cached = features.Features(cache, plain)
    specs = {spec.name: spec for name in cached.modality for spec in cached.variants(name)}
    stored = dict.fromkeys(final_model.stored_as(spec)[0] for spec in base.specs)
    keys = [cache.keys(name).tolist() for name in stored]
    if (
        any(spec.fold is not None or specs.get(spec.name) != spec for spec in base.specs)
        or cache.table.classes != base.classes
        or not np.array_equal(
            final_model.short_keys(key for of in keys for key in of), base.training_keys
        )
    ):
        raise BadFeatures(
            f"--training {cache.path}: expected the features that {base.name} was made of, from "
            "nets that were not trained on them: give this file, or leave out --training"
        )
    replaced = _keys(base, corrected)
    kept = [
        all(not k or int(k[:16], 16) not in replaced for k in row)
        for row in zip(*keys, strict=True)
    ]
    rows = np.flatnonzero(kept)
    vectors = []
    for spec in base.specs:
        matrix = cached.raw_matrix(spec.name, None)
        values = np.where(matrix.present[:, None], np.asarray(matrix.values), np.nan)
        vectors.append((spec, values[rows].astype(np.float32)))
    table = replace(
        subset(cache.table, rows.tolist()), name=base.name, classes=corrected.store.table.classes
    )
    return MemoryStore(table, vectors, cache.path)


def _keys(base: FinalModel, corrected: _Corrected) -> NDArray[np.uint64]:
    """Return the keys of the corrected files, as `FinalModel.training_keys`."""
    digests = {final_model.stored_as(spec)[1] for spec in base.specs}
    content = corrected.store.table.clip_ids
    return final_model.short_keys(
        row_key(digest, file, 0.0, None).encode() for digest in digests for file in content
    )


# --- before and after


def _compared(corrected: _Corrected, before: F64, after: F64) -> LearnResult:
    """Compare the models on the scored clips, and say in words what this is worth."""
    clips, task, n = corrected.clips, corrected.clips.task, len(corrected.clips.groups)
    rows = corrected.scored & complete(before) & complete(after)
    y_true, groups = clips.y_true[rows], [clips.groups[row] for row in np.flatnonzero(rows)]
    # A model must also be better than one that answers the same for every clip.
    models = {"before": before, "after": after, "constant": _constant(clips)}
    outputs = {name: values[rows] for name, values in models.items()}
    scores = [task.primary(y_true, values) for values in outputs.values()]
    if not np.isfinite(scores).all():
        text = (
            f"None of the {n} corrected clips can be scored: each is unsure, part of the model's "
            "training data, or the only group."
        )
        return LearnResult(None, None, None, n, False, False, None, text, "")
    folds = np.zeros(len(groups), np.int64)
    folded = [comparisons.FoldedOutputs(task, y_true, groups, folds, 1, outputs)]
    resamples = resample_groups(groups)
    interval, (above_constant, _) = (
        comparisons.difference_interval(folded, "after", other, resamples)
        for other in ("before", "constant")
    )
    gain, missing = scores[1] - scores[0], _missing(corrected, rows)
    rule, needed = _shortage(gain, interval, len(y_true), missing)
    if not rule and gain > 0 and not above_constant > 0:
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
    shown = [*interval] if known else None
    return LearnResult(records[0], records[1], shown, n, not rule, better, needed, text, "")


def _constant(clips: features.Clips) -> F64:
    """Return the outputs of a model that answers the same for every clip."""
    return np.broadcast_to(clips.target.mean(axis=1, dtype=np.float64), clips.target.T.shape)


def _shortage(
    gain: float, interval: tuple[float, float], n: int, missing: Mapping[str, int]
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


def _missing(corrected: _Corrected, rows: Bools) -> dict[str, int]:
    """Return the numbers of further clips that are needed, by class or in all."""
    if corrected.clips.link != "softmax":
        short = PER_TASK - int(rows.sum())
        return {f"at least {PER_TASK} clips": short} if short > 0 else {}
    y_true, classes = corrected.clips.y_true, corrected.store.table.classes
    used = np.unique(y_true)
    counts = {classes[i]: int((y_true[rows] == i).sum()) for i in used}
    if len(used) < 2:
        counts["another class"] = 0
    return {name: PER_CLASS - n for name, n in counts.items() if n < PER_CLASS}

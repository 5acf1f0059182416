"""The evaluation of a cache: every clip is scored once, by a head that never saw it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mvemo.cache import Cache
from mvemo.fuse.arrays import F64
from mvemo.fuse.clips import Clips
from mvemo.fuse.crossval.choice import choose_model
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.crossval.learning_curves import with_learning_curve
from mvemo.fuse.crossval.out_of_fold import OutOfFold
from mvemo.fuse.crossval.prediction import predict_all
from mvemo.fuse.crossval.preparation import Preparation, permute, prepare, provenance_of
from mvemo.fuse.crossval.repeats import evaluate_on_other_folds, with_repeats
from mvemo.fuse.crossval.uncertainty import with_uncertainty
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.heads.head import Head
from mvemo.fuse.heads.late import late_bases
from mvemo.fuse.heads.stacking import base_models
from mvemo.fuse.links import apply_link
from mvemo.fuse.metrics.averages import complete
from mvemo.fuse.models import LATE, SECOND_LAYERS, STACKED, Key, Model, with_nets
from mvemo.fuse.results import ModelResult, Results, score_baseline, score_model
from mvemo.fuse.songs import song_level
from mvemo.fuse.tasks.registry import task_of

DEFAULT = EvaluationSettings()


def evaluate(cache: Cache, settings: EvaluationSettings = DEFAULT) -> Results:
    """Cross-validate every model over the features of a cache.

    A head is one linear layer with L2 penalty on features that are standardised on its
    training clips: softmax for classes, logistic for tags, least squares for values. All
    models are compared on the same folds. Everything is fitted and chosen inside the training
    folds.

    Parameters
    ----------
    cache
        Open cache (`mvemo.cache.open_cache`); its task decides how it is scored.
    settings
        Settings of the evaluation; by default those of ``mvemo-cv``.

    Returns
    -------
    Scores, intervals, tests and out-of-fold predictions of every model, and `Results.repeats`
    and `Results.learning_curve` if the settings ask for them.

    Raises
    ------
    BadFeatures
        There is nothing to evaluate, a model is unknown, or the features do not allow these
        folds or so many repeats.
    LeakError
        A net saw clips that it would score, or clips of their groups.

    See Also
    --------
    mvemo.fuse.results_of_predictions : score the predictions of another program.
    """
    task = task_of(cache.table.task)
    if settings.songs is not None and (settings.learning_curve or not task.decides_songs):
        why = "a learning curve is of segments" if settings.learning_curve else "they need classes"
        raise BadFeatures(f"{cache.path}: songs cannot be decided: {why}; leave --song-level out")
    results = evaluate_once(cache, settings)
    if settings.repeats > 1:
        repeats = evaluate_on_other_folds(cache, results, settings, evaluate_once)
        results = with_repeats(results, repeats)
    results = with_uncertainty(results, n_resamples=settings.n_resamples)
    if settings.learning_curve:
        results = with_learning_curve(cache, results, settings.head, features=settings.features)
    return results


def evaluate_once(cache: Cache, settings: EvaluationSettings) -> Results:
    """Run one evaluation, without repeats, intervals, tests and learning curve."""
    table = cache.table
    prepared = prepare(cache, settings)
    stacked, late = _second_layers(cache, prepared, settings)
    task = task_of(table.task)
    y_true = task.read_labels(table.labels)
    task = task.for_labels(table.classes, y_true, settings.scale or table.scale)
    if settings.permute_labels:
        y_true = permute(y_true, settings.seed)
    seed, n_outputs = settings.seed or 0, len(table.classes)
    clips = Clips(task, y_true, table.groups, prepared.folds, n_outputs, seed)
    oof = predict_all(prepared, clips, settings, stacked=stacked, late=late)
    thresholds = _fit_thresholds(oof, prepared.k)
    models = [_scored(oof, m, prepared.k, thresholds, settings) for m in oof.models]
    results = Results(
        name=table.name,
        task=task,
        classes=table.classes,
        clip_ids=table.clip_ids,
        groups=table.groups,
        y_true=y_true,
        folds=prepared.folds,
        k=prepared.k,
        seed=seed,
        protocol=prepared.features.protocol(
            (*prepared.names, *(model.name for model in prepared.nets))
        ),
        leaky=prepared.leaky,
        synthetic=table.synthetic,
        predicted_by=table.predicted_by,
        permuted=settings.permute_labels,
        models=with_nets(models, [_score_net(prepared, clips, net) for net in prepared.nets]),
        baseline=score_baseline(task, y_true, prepared.folds, prepared.k, n_outputs),
        present=oof.present,
        outliers={
            name: tuple(table.clip_ids[i] for i in np.flatnonzero(far))
            for name, far in oof.outliers.items()
        },
        failures=tuple((f.clip_id, f.stage, f.reason) for f in cache.failures),
        curves=cache.curves,
        provenance=provenance_of(cache, prepared, settings),
        heads=tuple(_with_thresholds(oof, thresholds)),
        choice=choose_model(oof, prepared.k, thresholds) if settings.choose_model else None,
    )
    return results if settings.songs is None else song_level(results, rule=settings.songs)


def _second_layers(
    cache: Cache, prepared: Preparation, settings: EvaluationSettings
) -> tuple[bool, bool]:
    """Return True for the stack and for the product if set, or if named among the models."""
    named = settings.models
    if named is None:
        return settings.stacked, settings.late
    if STACKED in named and not base_models(prepared.models):
        raise BadFeatures(
            f"{cache.path}: {STACKED} stacks two models or more: name those, too, or leave it out"
        )
    if LATE in named and not late_bases(prepared.models):
        raise BadFeatures(
            f"{cache.path}: {LATE} multiplies what two single features or more predict: name "
            "those, too, or leave it out"
        )
    return STACKED in named, LATE in named


def _scored(
    oof: OutOfFold,
    model: Model,
    k: int,
    thresholds: Mapping[Key, F64],
    settings: EvaluationSettings,
) -> ModelResult:
    """Score one model's predictions, filled up by its fallbacks."""
    clips = oof.clips
    outputs, source = oof.predict(model)
    by_clip = None
    if thresholds:
        fallbacks = oof.fallbacks.get(model.name, ())
        keys = [model.key, *(fallback.thresholds for fallback in fallbacks)]
        by_clip = np.stack([thresholds[key] for key in keys])[source, clips.folds]
    result = score_model(clips.task, model, outputs, clips.y_true, clips.folds, k, by_clip)
    scaled: dict[str, float] = {}
    if settings.temperature and clips.task.fits_temperature:
        inner = [oof.predict_inside(model, fold) for fold in range(k)]
        scaled = clips.task.scaled_calibration(clips.y_true, outputs, clips.folds, inner)
    return replace(
        result,
        thresholds=thresholds.get(model.key),
        without_modality=oof.score_without_modality(model),
        n_fallback=int((source > 0).sum()),
        n_untrained=int((oof.has_features(model) & ~complete(outputs)).sum()),
        calibration={**result.calibration, **scaled},
    )


def _fit_thresholds(oof: OutOfFold, k: int) -> dict[Key, F64]:
    """Fit each model's thresholds, float64 (folds, tags), inside each fold's training folds.

    Crossfitted nets saw the training clips, so inner predictions over their features are better
    than those of new clips, and the thresholds may be biased. They do not depend on tested clips.
    The result is empty if the task has no thresholds.
    """
    task, y_true = oof.clips.task, oof.clips.y_true
    if not task.needs_inner:
        return {}
    keys = dict.fromkeys(key for key, _ in oof.inner)
    return {
        key: np.array(
            [
                task.fit_thresholds(y_true, oof.inner[key, fold].astype(np.float64))
                for fold in range(k)
            ]
        )
        for key in keys
    }


def _with_thresholds(oof: OutOfFold, thresholds: Mapping[Key, F64]) -> list[Head]:
    """Return the heads with their thresholds.

    For a head fitted on all clips, the out-of-fold predictions take the place of inner ones.
    """
    if not thresholds:
        return oof.heads
    clips, heads = oof.clips, []
    for head in oof.heads:
        key = (head.model,) if head.model in SECOND_LAYERS else head.features
        if head.fold is not None:
            fitted: F64 | None = thresholds[key][head.fold]
        else:
            outputs = oof.predict_everywhere_alone(key)
            fitted = clips.task.fit_thresholds(clips.y_true, outputs)
        heads.append(replace(head, thresholds=fitted))
    return heads


def _score_net(prepared: Preparation, clips: Clips, model: Model) -> ModelResult:
    """Score the last layer of a net, as it was trained: the tables of J22, L17 and PL20 do so.

    Each clip's outputs are those of the net that never saw its fold. Tags are decided at a
    probability of 0.5: thresholds fitted on clips that the net was trained on would suit only
    those clips.
    """
    outputs = np.full((len(clips.y_true), clips.n_outputs), np.nan)
    for fold in range(prepared.k):
        rows = clips.folds == fold
        outputs[rows] = _outputs_of(prepared, model, fold, clips)[rows]
    return score_model(clips.task, model, outputs, clips.y_true, clips.folds, prepared.k)


def _outputs_of(prepared: Preparation, model: Model, fold: int, clips: Clips) -> F64:
    """Return outputs, float64 (clips, outputs), of a fold's net; NaN rows where missing."""
    values, present = prepared.features.own_outputs(model.name, fold)
    if values.shape[1] != clips.n_outputs:
        raise BadFeatures(
            f"{model.name}: {values.shape[1]} outputs of a net, but {clips.n_outputs} classes, "
            "tags or targets: run 'mvemo extract' again"
        )
    outputs = np.full(values.shape, np.nan)
    outputs[present] = apply_link(values[present].astype(np.float64), clips.task.link)
    return outputs

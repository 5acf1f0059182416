"""The evaluation of features: every clip is scored once, by a head that never saw it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mvemo.fuse import audit, songs
from mvemo.fuse.crossval import comparisons, prediction, preparation
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.heads.fitting import Fit, HeadFitter
from mvemo.fuse.models import Model, is_named
from mvemo.fuse.numeric import Labels, apply_link, codes_of, mean_finite
from mvemo.fuse.results import (
    Choice,
    CurvePoint,
    ModelResult,
    Results,
    score_baseline,
    score_model,
    with_ceilings,
)
from mvemo.fuse.stores import FeatureStore
from mvemo.fuse.tasks import task_of
from mvemo.manifests.array_types import F64, Bools, Ints

# Maximum number of seeds per repeat: few groups can be split into folds in only a few ways.
TRIES = 10
# With fewer values in all features, threads of BLAS wait for each other longer than they work.
FEW_VALUES = 1_000_000
DEFAULT = EvaluationSettings()


def evaluate(store: FeatureStore, settings: EvaluationSettings = DEFAULT) -> Results:
    """Cross-validate every model over the features of a store.

    A head is a linear layer with L2 penalty on features that are standardised on its training
    clips. Everything is fitted and chosen inside the training folds, which all models share.

    Parameters
    ----------
    store
        Open cache (`mvemo.cache.open_cache`), or features in memory
        (`mvemo.fuse.stores.MemoryStore`); its task determines the scores.
    settings
        Settings of the evaluation; by default those of ``mvemo-cv``.

    Returns
    -------
    Scores, intervals, tests and out-of-fold predictions of every model, and `Results.repeats`
    and `Results.learning_curve` if the settings ask for them.

    Raises
    ------
    BadFeatures
        There is nothing to evaluate, a model is unknown, or the features do not allow the
        requested folds or number of repeats.
    LeakError
        A net was trained on clips that it would score, or on clips of their groups.

    """
    task = task_of(store.table.task)
    if settings.songs is not None and settings.learning_curve:
        raise BadFeatures(
            f"{store.path}: --learning-curve scores segments, --song-level songs: leave out one"
        )
    if settings.songs is not None and not task.exclusive:
        raise BadFeatures(
            f"{store.path}: --song-level needs the task multiclass, got {task.name}: leave it out"
        )
    n_values = len(store.table) * sum(spec.dim for spec in store.specs)
    with threadpool_limits(1 if n_values < FEW_VALUES else None, "blas"):
        return _evaluate(store, settings)


def _evaluate(store: FeatureStore, settings: EvaluationSettings) -> Results:
    findings: Sequence[audit.Finding] = ()
    if settings.audit or settings.permute_labels:
        findings = audit.audit_cache(store, settings=settings)
    blocks = audit.label_blocks(store.table, findings) if settings.permute_labels else None
    permuted = settings.permute_labels == 1
    labels = _drawn(store, blocks, settings.seed or 0) if permuted else None
    results = evaluate_once(store, settings, labels)
    if blocks is not None and not permuted:
        results = replace(results, chance=_scores_by_chance(store, settings, blocks))
    if settings.repeats > 1:
        draw = partial(_drawn, store, blocks if permuted else None)
        others = _evaluate_on_other_folds(store, results, settings, draw)
        results = with_repeats(results, others)
    results = comparisons.with_uncertainty(results, n_resamples=settings.n_resamples)
    if settings.learning_curve:
        results = with_learning_curve(store, results, settings)
    if settings.audit:
        results = replace(results, audit=tuple(finding.record() for finding in findings))
    return results


def evaluate_once(
    store: FeatureStore, settings: EvaluationSettings, y_true: Labels | None = None
) -> Results:
    """Run one evaluation without intervals or tests; `y_true` replaces the labels of the store."""
    table = store.table
    prepared = preparation.prepare(store, settings, y_true)
    clips, k = prepared.clips, prepared.k
    oof = prediction.predict_all(prepared, settings)
    models = [oof.score(model, temperature=settings.temperature) for model in oof.models]
    nets = [_score_net(prepared, net) for net in prepared.nets]
    n_single = sum(len(m.features) == 1 and not is_named(m.name) for m in models)
    results = Results(
        name=table.name,
        task=clips.task,
        classes=table.classes,
        clip_ids=table.clip_ids,
        groups=table.groups,
        y_true=clips.y_true,
        folds=clips.folds,
        k=k,
        seed=clips.seed,
        protocol=prepared.features.protocol(prepared.used),
        leaky=prepared.leaky,
        synthetic=table.synthetic,
        predicted_by=table.predicted_by,
        permuted=y_true is not None,
        models=(*models[:n_single], *nets, *models[n_single:]),
        baseline=score_baseline(clips.task, clips.y_true, clips.folds, k, clips.n_outputs),
        present=oof.present,
        layers=oof.layers,
        outliers={
            name: tuple(table.clip_ids[i] for i in np.flatnonzero(far))
            for name, far in oof.outliers.items()
        },
        failures=tuple((f.clip_id, f.stage, f.reason) for f in store.failures),
        curves=store.curves,
        provenance=preparation.provenance_of(prepared, settings),
        heads=tuple(oof.heads_with_thresholds()),
        choice=oof.choose() if settings.choose_model else None,
    )
    if settings.songs is not None:
        return songs.song_level(results, rule=settings.songs)
    return with_ceilings(results, table.disagreement)


def _drawn(store: FeatureStore, blocks: Ints | None, seed: int) -> Labels | None:
    """Return random labels, see `random_labels`; None without blocks."""
    y_true = task_of(store.table.task).read_labels(store.table.labels)
    return None if blocks is None else random_labels(y_true, blocks, seed)


def _scores_by_chance(
    store: FeatureStore, settings: EvaluationSettings, blocks: Ints
) -> dict[str, F64]:
    """Return `Results.chance`: scores on random labels, drawn `permute_labels` times."""
    plain = replace(settings, temperature=False, refit=False, missing_modality=False)
    first = (settings.seed or 0) + 1
    scores: dict[str, list[float]] = {}
    for seed in range(first, first + settings.permute_labels):
        one = evaluate_once(store, plain, _drawn(store, blocks, seed))
        for model in one.models:
            scores.setdefault(model.name, []).append(one.primary_mean(model))
        if one.choice is not None:
            scores.setdefault("", []).append(one.primary_mean(one.choice.nested))
    return {name: np.array(values) for name, values in scores.items()}


def _score_net(prepared: preparation.Preparation, model: Model) -> ModelResult:
    """Score the last layer of a net, as J22, L17 and PL20 do; each fold uses its own net."""
    clips = prepared.clips
    outputs = np.full((len(clips.y_true), clips.n_outputs), np.nan)
    for fold in range(prepared.k):
        values, present = prepared.features.store.vectors(model.name, fold)
        if values.shape[1] != clips.n_outputs:
            raise BadFeatures(
                f"{model.name}: the net has {values.shape[1]} outputs, but there are "
                f"{clips.n_outputs} classes, tags or targets: run 'mvemo extract' again"
            )
        rows = present & (clips.folds == fold)
        outputs[rows] = apply_link(values[rows].astype(float), clips.link)
    return score_model(clips.task, model, outputs, clips.y_true, clips.folds, prepared.k)


def _evaluate_on_other_folds(
    store: FeatureStore,
    first: Results,
    settings: EvaluationSettings,
    draw: Callable[[int], Labels | None],
) -> list[Results]:
    """Return the other repeats; `draw` returns labels for a seed, or None for the true ones."""
    _refuse_bound_folds(store, first)
    table = store.table
    # The first evaluation may use the store's own folds, which have another seed.
    own_folds = first.k == table.k and settings.seed is None
    seed = table.fold_seed if own_folds else first.seed
    # Temperatures are fitted, and heads kept, only in the first evaluation.
    settings = replace(settings, temperature=False, refit=False)
    results = {_partition(first): first}
    for _ in range(TRIES * settings.repeats):
        if len(results) == settings.repeats:
            break
        seed += 1
        other = evaluate_once(store, replace(settings, seed=seed), draw(seed))
        results.setdefault(_partition(other), other)
    if len(results) < settings.repeats:
        raise BadFeatures(
            f"{store.path}: --repeats {settings.repeats} is too large: only {len(results)} "
            f"ways to split {len(set(table.groups))} groups into {first.k} folds were found"
        )
    return list(results.values())[1:]


def _partition(results: Results) -> bytes:
    """Return a key of how the clips are divided into folds, whatever the folds' numbers."""
    _, first, which = np.unique(results.folds, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[which].tobytes()


def _refuse_bound_folds(store: FeatureStore, first: Results) -> None:
    """Raise if the clips cannot be split into other folds."""
    k = store.table.k
    reasons = {
        "its clips have one fixed split (holdout): leave out --repeats, or use frozen features "
        "with --folds": not first.tested.all(),
        "its nets were trained on the present folds (crossfit): leave out --repeats, or extract "
        "with --protocol frozen": first.protocol == "crossfit",
        "its manifest prescribes the folds: leave out --repeats, or give --folds with a number "
        f"other than {k}": first.k == k and store.table.fold_seed < 0,
    }
    for reason, applies in reasons.items():
        if applies:
            raise BadFeatures(f"{store.path}: --repeats needs other folds, but {reason}")


def with_repeats(results: Results, repeats: Sequence[Results]) -> Results:
    """Add evaluations on other folds: scores become means, predictions stay those of the first."""
    if len({_partition(one) for one in (results, *repeats)}) <= len(repeats):
        raise BadFeatures(
            f"{results.name}: two of its repeats have the same folds: each repeat needs other folds"
        )
    for other in repeats:
        if other.clip_ids != results.clip_ids or [m.name for m in other.models] != [
            m.name for m in results.models
        ]:
            raise BadFeatures(f"{other.name}: a repeat has different clips or models")
    return join_repeats(results, repeats)


def join_repeats(results: Results, repeats: Sequence[Results]) -> Results:
    """Return the first evaluation with the mean scores of all; see `with_repeats`."""
    evaluations = tuple(replace(one, heads=(), repeats=()) for one in (results, *repeats))
    choices = [one.choice for one in evaluations if one.choice is not None]
    choice = None
    if len(choices) == len(evaluations):
        inside = tuple(name for one in choices for name in one.inside)
        nested = _over_repeats([one.nested for one in choices])
        choice = Choice(choices[0].model, inside, nested, choices[0].best)
    return replace(
        results,
        repeats=evaluations,
        models=tuple(
            _over_repeats([one.models[i] for one in evaluations])
            for i in range(len(results.models))
        ),
        baseline=_over_repeats([one.baseline for one in evaluations]),
        choice=choice,
    )


def _over_repeats(models: Sequence[ModelResult]) -> ModelResult:
    """Join one model's results on different folds."""
    joined: dict[str, Any] = {}
    for name, join in JOINED.items():
        # Temperatures are fitted only in the first evaluation.
        first, *others = (getattr(model, name) for model in models)
        joined[name] = {
            key: join([value, *(one[key] for one in others if key in one)])
            for key, value in first.items()
        }
    return replace(models[0], **joined)


def _mean(values: Sequence[F64 | float]) -> F64 | float:
    mean = mean_finite(np.array(values, float), axis=0)
    return mean if mean.ndim else float(mean)


# Functions that join each set of scores over repeats.
JOINED: dict[str, Callable[[Sequence[Any]], Any]] = {
    **dict.fromkeys(("scores", "per_output", "calibration", "without_modality"), _mean),
    **dict.fromkeys(("per_fold", "per_output_fold"), np.concatenate),
}


FRACTIONS = (0.1, 0.2, 0.4, 0.7)
# (model, index in `FRACTIONS`) to a pair for each fold: score, and number of training clips.
Scores = dict[tuple[str, int], list[tuple[float, int]]]


def with_learning_curve(
    store: FeatureStore,
    results: Results,
    settings: EvaluationSettings,
    fractions: Sequence[float] = FRACTIONS,
) -> Results:
    """Add the primary metric of every model trained on fewer clips, in whole groups."""
    # Under crossfit only the heads see fewer clips; the nets saw all of the training folds.
    prepared = preparation.prepare(store, settings, results.y_true if results.permuted else None)
    clips, models = prepared.clips, prepared.models
    shares = sorted({*fractions, 1.0})
    # Clips that a single split never tests are also training clips: they form an extra fold.
    masks = learning_curve_masks(
        np.where(clips.folds >= 0, clips.folds, prepared.k),
        clips.groups,
        shares,
        clips.seed,
        clips.y_true if clips.y_true.ndim == 1 else np.zeros_like(clips.folds),
    )[: prepared.k]
    scores: Scores = {}
    strength = {(h.features, h.fold): h.C for h in results.heads if not is_named(h.model)}
    for net_fold, tested in prepared.passes:
        matrices = {name: prepared.features.matrix(name, net_fold) for name in prepared.names}
        fitter = HeadFitter(matrices, clips, settings.head)
        share_of: dict[int, int] = {}
        fits = []
        for fold, i, model in product(tested, range(len(shares)), models):
            C = strength.get((model.features, fold), settings.head.C)
            fits.append(Fit(model, fold, masks[fold, i], C, predict=clips.folds == fold))
            share_of[id(fits[-1])] = i
        for one in fitter.fit(fits):
            fit = one.fit
            score = clips.task.primary(clips.y_true[fit.predict], one.outputs)
            if np.isfinite(score):
                present = [matrices[name].present for name in fit.model.features]
                n_train = int(np.logical_and.reduce([fit.train, *present]).sum())
                scores.setdefault((fit.model.name, share_of[id(fit)]), []).append((score, n_train))
    curves = {model.name: _points(model.name, shares, scores) for model in models}
    return replace(
        results, learning_curve={name: points for name, points in curves.items() if points}
    )


def _points(model: str, shares: Sequence[float], scores: Scores) -> tuple[CurvePoint, ...]:
    """Return the points of one model's curve."""
    n_folds = len(scores.get((model, len(shares) - 1), []))
    points = []
    for i, share in enumerate(shares):
        of_folds = scores.get((model, i), [])
        # A mean over fewer folds would not be comparable.
        if of_folds and len(of_folds) == n_folds:
            score, n_train = np.mean(of_folds, axis=0)
            deviation = float(np.std(of_folds, axis=0)[0])
            points.append((float(share), float(n_train), float(score), deviation))
    return tuple(points)


def learning_curve_masks(
    folds: Ints,
    groups: Sequence[str],
    fractions: Sequence[float],
    seed: int,
    labels: Ints,
) -> Bools:
    """Choose nested sets of whole groups, stratified by label: bool (folds, fractions, clips)."""
    codes = codes_of(groups)
    n_groups = int(codes.max()) + 1
    rng = np.random.default_rng(seed)
    shuffled, spare = rng.permutation(n_groups), rng.random(n_groups)
    votes = np.zeros((n_groups, int(labels.max()) + 1))
    np.add.at(votes, (codes, labels), 1)
    of_class = votes.argmax(axis=1)
    n_folds = int(folds.max()) + 1
    masks = np.zeros((n_folds, len(fractions), len(folds)), bool)
    for fold in range(n_folds):
        train = (folds != fold) & (folds >= 0)
        size = np.bincount(codes[train], minlength=n_groups)
        # The m groups of a class are spread over [0, 1), group i at (i + random number) / m.
        place = np.ones(n_groups)
        for label in np.unique(of_class):
            members = np.flatnonzero((of_class == label) & (size > 0))
            members = members[np.argsort(shuffled[members])]
            place[members] = (np.arange(len(members)) + spare[members]) / max(len(members), 1)
        order = np.argsort(place, kind="stable")
        before = np.empty(n_groups)
        before[order] = np.cumsum(size[order]) - size[order]
        for i, fraction in enumerate(fractions):
            # The margin allows for rounding: 0.7 * 10 may be slightly above 7.
            n_needed = fraction * train.sum() - 1e-9 * len(folds)
            masks[fold, i] = train & (before[codes] < n_needed)
    return masks


# --- random labels
#
# They measure the score by chance. Blocks of clips keep together: the clips of a group, and
# groups with equal or nearly equal clips. Each block gets the labels of a block that is drawn at
# random, with replacement. Without replacement the classes that are rare in a test fold would be
# frequent in its training folds, so that every score would lie below chance (for 96 clips of 6
# classes .04 instead of .167). Blocks make leaks visible: if pieces of one song are in several
# groups, a piece in training has the label of the piece in the test fold, whatever that label is.


def random_labels(y_true: Labels, blocks: Ints, seed: int) -> Labels:
    """Return labels of blocks drawn at random, shape of `y_true`; at least two labels occur."""
    rng = np.random.default_rng([seed, 1])
    members = np.split(np.argsort(blocks, kind="stable"), np.cumsum(np.bincount(blocks))[:-1])
    drawn = np.empty_like(y_true)
    while True:
        for rows in members:
            donor = rng.permutation(members[rng.integers(len(members))])
            drawn[rows] = y_true[np.resize(donor, len(rows))]
        if len(members) < 2 or (drawn != drawn[0]).any() or not (y_true != y_true[0]).any():
            return drawn


def chance_p(score: float, drawn: F64) -> float:
    """Return the p-value of `score`: the share of it and the `drawn` scores that reach it."""
    return float((1 + np.sum(drawn >= score - 1e-12)) / (1 + len(drawn)))

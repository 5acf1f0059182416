"""Out-of-fold predictions of all models, whatever the task: heads, stack, stand-ins."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache import Cache
from mvemo.fuse.clips import Clips
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import Matrix
from mvemo.fuse.heads.head import Head
from mvemo.fuse.heads.links import decision_inputs
from mvemo.fuse.heads.settings import HeadSettings
from mvemo.fuse.heads.stacking import base_models, stack_all, stack_fold, stacked_model
from mvemo.fuse.metrics.averages import complete, mean_finite, mean_of_finite
from mvemo.fuse.models import STACKED, Model, parts_by_absence, parts_in, parts_of
from mvemo.fuse.preparation import Preparation, prepare, provenance_of, shuffled
from mvemo.fuse.tasks.registry import task_of
from mvemo.fuse.views import View, fit_view

F64 = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class OutOfFold:
    """What `predict_all` gives.

    Parameters
    ----------
    clips
        Labels, groups and folds.
    models
        That were asked for, in the order of report.
    outputs
        A model's features to float64 (clips, outputs), by the head that left the clip's
        fold out; NaN rows where a feature is missing. Parts of models are among them.
    parts
        Of `parts_of`: what is left of a fusion with a modality missing.
    inner
        (a model's features, fold) to float32 (clips, outputs): predictions of its training
        clips, each by a head that never saw it.
    bases
        The models that are stacked.
    stack
        The stacked model; None where there is none.
    stack_outputs, stack_inner
        Its own, as in `outputs` and, by fold, as in `inner`.
    stack_without
        ``audio`` and ``video`` to what is said with that modality missing, as in `outputs`:
        by the second layer on what stands in for its bases, or, where a base has nothing
        left, by the mean of the others.
    heads
        All that were fitted.
    present
        Feature name to bool (clips,): which clips have it; under ``crossfit`` of each fold's net.
    """

    clips: Clips
    models: tuple[Model, ...]
    outputs: dict[tuple[str, ...], F64]
    parts: Mapping[tuple[str, str], Model]
    inner: dict[tuple[tuple[str, ...], int], NDArray[np.float32]] = field(default_factory=dict)
    bases: tuple[Model, ...] = ()
    stack: Model | None = None
    stack_outputs: F64 = field(default_factory=lambda: np.zeros((0, 0)))
    stack_inner: dict[int, F64] = field(default_factory=dict)
    stack_without: dict[str, F64] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)
    present: dict[str, NDArray[np.bool_]] = field(default_factory=dict)

    def of(self, model: Model) -> tuple[F64, Ints]:
        """A model's outputs, and who made each clip's.

        Returns
        -------
        float64 (clips, outputs), and int64 (clips,): 0 for the model itself, n for the
        n-th of its `parts_in`, which stands in where a modality is missing (F6).
        """
        return self._filled(model, self.outputs)

    def inner_of(self, model: Model, fold: int) -> F64:
        """float64 (clips, outputs): as `of`, of a fold's training clips, inside them."""
        held = {names: values for (names, f), values in self.inner.items() if f == fold}
        return self._filled(model, held)[0]

    def of_all(self, model: Model) -> F64:
        """As `of`, and of clips that train only (one split) what is said inside training."""
        return self._with_training(self.of(model)[0], lambda: self.inner_of(model, 0))

    def own_of_all(self, names: tuple[str, ...]) -> F64:
        """As `of_all` of the model of these features, without those that stand in."""
        inner = self.inner
        return self._with_training(self.outputs[names], lambda: inner[names, 0].astype(np.float64))

    def of_all_stacked(self) -> F64:
        """As `own_of_all`, of the stack."""
        return self._with_training(self.stack_outputs, lambda: self.stack_inner[0])

    def without(self, model: Model) -> dict[str, float]:
        """The mean score over folds of what is left when a modality is missing (F6).

        Returns
        -------
        ``audio`` and ``video``, missing, to that score, and ``none`` to that of the whole
        model: all of the clips that it predicts itself, so that they can be compared.
        Empty for a model of one modality.
        """
        parts = parts_by_absence(model, self.parts)
        if not parts:
            return {}
        whole = complete(self.outputs[model.features])
        every = {"none": model, **parts}
        return {
            gone: self._mean_score(self.outputs[m.features], whole) for gone, m in every.items()
        }

    def of_stack(self) -> tuple[F64, Ints, dict[str, float]]:
        """The stack's outputs, who made each clip's, and `without`.

        Who: int64 (clips,), 0 for the stack, 1 where video and 2 where audio is missing.
        """
        own, by = self.stack_outputs, np.zeros(len(self.clips.y_true), dtype=np.int64)
        whole = complete(own)
        for n, gone in enumerate(("video", "audio"), start=1):
            other = self.stack_without.get(gone, self.stack_outputs)
            lacking = ~complete(own) & complete(other)
            own = np.where(lacking[:, None], other, own)
            by[lacking] = n
        without = {gone: self._mean_score(v, whole) for gone, v in self.stack_without.items()}
        if without:
            without["none"] = self._mean_score(self.stack_outputs, whole)
        return own, by, without

    def have_all(self, model: Model) -> NDArray[np.bool_]:
        """bool (clips,): tested clips that have every feature of a model."""
        present = [self.present[name] for name in model.features]
        both = np.logical_and.reduce([self.clips.folds >= 0, *present])
        return np.asarray(both, dtype=np.bool_)

    def left_of_stack(self, gone: str) -> tuple[str, ...] | None:
        """The features of the one base that is left of the stack; None where there are more."""
        left = [base for base in self.bases if _left(self, base, gone) is not None]
        return left[0].features if len(left) == 1 < len(self.bases) else None

    def _mean_score(self, said: F64, rows: NDArray[np.bool_]) -> float:
        """Mean over folds of the score of `rows`."""
        folds = self.clips.folds
        scores = [
            self.clips.score(rows & (folds == fold), said) for fold in range(int(folds.max()) + 1)
        ]
        return mean_of_finite(np.array(scores))

    def _with_training(self, outputs: F64, inner: Callable[[], F64]) -> F64:
        train_only = self.clips.folds < 0
        return np.where(train_only[:, None], inner(), outputs) if train_only.any() else outputs

    def _filled(
        self, model: Model, values: Mapping[tuple[str, ...], NDArray[np.floating]]
    ) -> tuple[F64, Ints]:
        own = np.asarray(values[model.features], dtype=np.float64)
        by = np.zeros(len(own), dtype=np.int64)
        for n, part in enumerate(parts_in(model, self.parts), start=1):
            if part.features not in values:
                continue
            other = values[part.features]
            lacking = ~complete(own) & complete(np.asarray(other, dtype=np.float64))
            own = np.where(lacking[:, None], other, own)
            by[lacking] = n
        return own, by


def evaluation(
    cache: Cache,
    settings: HeadSettings,
    *,
    k: int | None,
    seed: int | None,
    permute_labels: bool,
    allow_leak: bool,
    models: Sequence[str] | None,
    stacked: bool,
    missing_modality: bool,
    temperature: bool,
    refit: bool,
) -> tuple[OutOfFold, dict[str, Any]]:
    """What every evaluation does before it scores: parameters as of `mvemo.fuse.evaluate`.

    `inner` as of `predict_all`.

    Returns
    -------
    The predictions, and the fields of its results that do not depend on the task.

    Raises
    ------
    BadFeatures, LeakError
        As for `mvemo.fuse.evaluate`.
    """
    table = cache.table
    asked = None if models is None else [name for name in models if name != STACKED]
    named = models is not None and STACKED in models
    prepared = prepare(cache, k=k, seed=seed, models=asked, allow_leak=allow_leak)
    if named and not base_models(prepared.models):
        raise BadFeatures(
            f"{cache.path}: {STACKED} stacks two models or more: name those, too, or leave it out"
        )
    task = task_of(table.task)
    y_true = task.read_labels(table.labels)
    task = task.for_labels(table.classes, y_true)
    if permute_labels:
        y_true = shuffled(y_true, seed)
    found = predict_all(
        prepared,
        Clips(task, y_true, table.groups, prepared.folds, len(table.classes), seed or 0),
        settings,
        stacked=stacked or named,
        missing_modality=missing_modality,
        inner=task.needs_inner or (temperature and task.fits_temperature),
        refit=refit,
    )
    return found, {
        "name": table.name,
        "task": task,
        "classes": table.classes,
        "clip_ids": table.clip_ids,
        "groups": table.groups,
        "y_true": y_true,
        "folds": prepared.folds,
        "k": prepared.k,
        "seed": seed or 0,
        "protocol": prepared.features.protocol(prepared.names),
        "leaky": prepared.leaky,
        "synthetic": table.synthetic,
        "permuted": permute_labels,
        "present": found.present,
        "failures": tuple((f.clip_id, f.stage, f.reason) for f in cache.failures),
        "curves": cache.curves,
        "provenance": {**provenance_of(cache, prepared, settings.C), "heads": settings.record()},
    }


def predict_all(
    prepared: Preparation,
    clips: Clips,
    settings: HeadSettings,
    *,
    stacked: bool = False,
    missing_modality: bool = False,
    inner: bool = False,
    refit: bool = False,
) -> OutOfFold:
    """Fit the heads of all models and folds, and predict every clip by one that left it out.

    Parameters
    ----------
    prepared
        Models, folds and features, past the leak guard.
    clips
        Labels, groups and folds.
    settings
        Of the heads.
    stacked
        Fit the second layer of F5 (b) as well, where there are models to stack.
    missing_modality
        Fit the heads of what is left of fusions, and let them stand in (F6).
    inner
        Keep predictions inside the training folds of all models, for what else is fitted.
    refit
        Also fit each head on all clips.
    """
    features, models = prepared.features, prepared.models
    parts = parts_of(models, features.modality) if missing_modality else {}
    # A part may be a model itself: heads are known by their features.
    fitted = {model.features: model for model in (*parts.values(), *models)}
    blank = np.full((len(clips.y_true), clips.n_outputs), np.nan)
    found = OutOfFold(clips, models, {names: blank.copy() for names in fitted}, parts)
    bases = base_models(models) if stacked else ()
    if not all(clips.divisible(fold) for fold in range(prepared.k)):
        # Training clips of one group have no inner predictions to stack.
        bases = ()
    if bases:
        found.bases = bases
        found.stack, found.stack_outputs = stacked_model(bases), blank.copy()
        if missing_modality and len(found.stack.modalities) > 1:
            found.stack_without = {"audio": blank.copy(), "video": blank.copy()}
    for net_fold, tested in prepared.views:
        matrices = {name: features.matrix(name, net_fold) for name in prepared.names}
        _note_present(found, matrices, tested)
        # Where no clip lacks a feature no part stands in; but its thresholds are saved.
        need_parts = any(not m.present.all() for m in matrices.values()) or clips.task.needs_inner
        looked_at = _looked_at(models, bases, parts if need_parts else {}, inner)
        view = fit_view(
            clips,
            matrices,
            tested,
            list(fitted.values()),
            looked_at,
            settings,
            net_fold=net_fold,
            refit=list(fitted.values()) if refit else (),
        )
        del matrices
        found.heads += view.heads
        found.inner |= view.inner
        for names, fold in view.scored:
            found.outputs[names][clips.folds == fold] = view.scored[names, fold]
        for fold in tested if bases else ():
            _stack(found, view, bases, fold, inner)
    if not any(complete(said).any() for said in found.outputs.values()):
        raise BadFeatures(
            f"no head can be trained: no fold leaves training clips {clips.task.too_few}"
        )
    if bases and refit and any(head.model == STACKED for head in found.heads):
        found.heads.append(stack_all(clips, {b.name: found.of_all(b) for b in bases}))
    return found


def _looked_at(
    models: Sequence[Model],
    bases: Sequence[Model],
    parts: Mapping[tuple[str, str], Model],
    inner: bool,
) -> list[Model]:
    """Models to fit on inner folds: all or the bases, and their parts."""
    wanted = models if inner else bases
    held = [part for model in wanted for part in parts_in(model, parts)]
    return list({model.features: model for model in (*held, *wanted)}.values())


def _stack(found: OutOfFold, view: View, bases: Sequence[Model], fold: int, inner: bool) -> None:
    """One fold's second layer and its predictions."""
    clips = found.clips
    tested = clips.folds == fold
    outputs = {}
    for base in bases:
        values = found.inner_of(base, fold)
        values[tested] = found.outputs[base.features][tested]
        outputs[base.name] = values
    head, said, held = stack_fold(clips, fold, outputs, view.inner_folds[fold], inner=inner)
    if found.stack_without and inner:
        # Clips that the second layer cannot read, as in `of_stack`.
        others = np.stack([np.where(tested[:, None], np.nan, v) for v in outputs.values()])
        held = np.where(complete(held)[:, None], held, mean_finite(others, axis=0))
    found.stack_inner[fold] = held
    if head is None:
        return
    found.heads.append(head)
    found.stack_outputs[tested] = said[tested]
    for gone, values in found.stack_without.items():
        left = [_left(found, base, gone) for base in bases]
        there = [of[tested] for of in left if of is not None]
        if len(there) == len(bases):
            inputs = [decision_inputs(of, head.link) for of in there]
            values[tested] = head.predict(np.concatenate(inputs, axis=1))
        else:
            values[tested] = np.mean(there, axis=0)


def _left(found: OutOfFold, base: Model, gone: str) -> F64 | None:
    """What a base says with a modality missing; None where nothing of it is left."""
    if gone not in base.modalities:
        return found.outputs[base.features]
    part = parts_by_absence(base, found.parts).get(gone)
    return None if part is None else found.outputs[part.features]


def _note_present(found: OutOfFold, matrices: Mapping[str, Matrix], tested: Sequence[int]) -> None:
    """Which clips have each feature: of a fold's own nets, where there are such."""
    folds = found.clips.folds
    for name, matrix in matrices.items():
        present = found.present.setdefault(name, matrix.present.copy())
        rows = np.isin(folds, tested)
        present[rows] = matrix.present[rows]

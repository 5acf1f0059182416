"""Out-of-fold predictions of all models, whatever the task: heads, stack, stand-ins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.clips import Clips, complete
from mvemo.fuse.head_settings import HeadSettings
from mvemo.fuse.heads import Head
from mvemo.fuse.models import Model, parts_by_absence, parts_in, parts_of
from mvemo.fuse.preparation import Preparation
from mvemo.fuse.stacking import base_models, stack_all, stack_fold, stacked_model
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
    outputs
        A model's features to float64 (clips, outputs), by the head that left the clip's
        fold out; NaN rows where a feature is missing. Parts of models are among them.
    parts
        Of `parts_of`: what is left of a fusion with a modality missing.
    inner
        (a model's features, fold) to float32 (clips, outputs): predictions of its training
        clips, each by a head that never saw it.
    stack
        The stacked model; None where there is none.
    stack_outputs, stack_inner
        Its own, as in `outputs` and, by fold, as in `inner`.
    heads
        All that were fitted.
    missing
        Feature name to number of clips without it.
    """

    clips: Clips
    outputs: dict[tuple[str, ...], F64]
    parts: Mapping[tuple[str, str], Model]
    inner: dict[tuple[tuple[str, ...], int], NDArray[np.float32]] = field(default_factory=dict)
    stack: Model | None = None
    stack_outputs: F64 = field(default_factory=lambda: np.zeros((0, 0)))
    stack_inner: dict[int, F64] = field(default_factory=dict)
    heads: list[Head] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)

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

    def without(self, model: Model) -> dict[str, float]:
        """Missing modality to the mean score over folds of what is then left (F6).

        Of the clips that the whole model predicts, so that it can be compared.
        """
        whole = complete(self.outputs[model.features])
        found = {}
        for gone, part in parts_by_absence(model, self.parts).items():
            said = self.outputs[part.features]
            there = whole & complete(said)
            scores = [
                self.clips.score(there & (self.clips.folds == fold), said)
                for fold in range(int(self.clips.folds.max()) + 1)
                if (there & (self.clips.folds == fold)).any()
            ]
            held = [score for score in scores if np.isfinite(score)]
            found[gone] = float(np.mean(held)) if held else float("nan")
        return found

    def stack_stood_in(self) -> int:
        """Clips that the stack predicts although a feature of its bases is missing."""
        if self.stack is None:
            return 0
        singles = [complete(self.outputs[n]) for n in self.outputs if set(n) <= self._stacked()]
        return int((complete(self.stack_outputs) & ~np.logical_and.reduce(singles)).sum())

    def _stacked(self) -> set[str]:
        return set(self.stack.features) if self.stack else set()

    def _filled(
        self, model: Model, values: Mapping[tuple[str, ...], NDArray[np.floating]]
    ) -> tuple[F64, Ints]:
        own = np.asarray(values[model.features], dtype=np.float64)
        by = np.zeros(len(own), dtype=np.int64)
        for n, part in enumerate(parts_in(model, self.parts), start=1):
            if part.features not in values:
                continue
            other = values[part.features]
            lacking = ~complete(own) & np.isfinite(other).all(axis=1)
            own = np.where(lacking[:, None], other, own)
            by[lacking] = n
        return own, by


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
    blank = (len(clips.labels), clips.n_outputs)
    found = OutOfFold(clips, {names: np.full(blank, np.nan) for names in fitted}, parts)
    bases = base_models(models) if stacked else ()
    for net_fold, tested in prepared.views:
        matrices = {name: features.matrix(name, net_fold) for name in prepared.names}
        found.missing = {name: int((~m.present).sum()) for name, m in matrices.items()}
        # Where no clip lacks a feature no part stands in; but its thresholds are saved.
        need_parts = any(found.missing.values()) or clips.task == "multilabel"
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
        if any(int(view.inner_folds[fold].max()) < 0 for fold in tested):
            # Training clips of one group have no inner predictions to stack.
            bases = ()
        for fold in tested if bases else ():
            _stack(found, view, bases, fold, inner)
    if bases:
        found.stack = stacked_model(bases)
        if refit:
            found.heads.append(stack_all(clips, {b.name: found.of(b)[0] for b in bases}))
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
    if not len(found.stack_outputs):
        found.stack_outputs = np.full((len(clips.labels), clips.n_outputs), np.nan)
    outputs = {}
    for base in bases:
        values = found.inner_of(base, fold)
        values[tested] = found.of(base)[0][tested]
        outputs[base.name] = values
    head, said, held = stack_fold(clips, fold, outputs, view.inner_folds[fold], inner=inner)
    found.heads.append(head)
    found.stack_outputs[tested] = said[tested]
    found.stack_inner[fold] = held

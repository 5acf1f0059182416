"""Models over other models' predictions: the stack and the product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mvemo.fuse.crossval.choice import best_model
from mvemo.fuse.crossval.fold_heads import FoldHeads
from mvemo.fuse.crossval.out_of_fold import OutOfFold
from mvemo.fuse.heads.head import Head, HeadSettings
from mvemo.fuse.heads.late import (
    late_head,
    late_inner,
    late_model,
    late_outputs,
    late_weights,
)
from mvemo.fuse.heads.stacking import stack_fold, stacked_model
from mvemo.fuse.metrics.averages import complete
from mvemo.fuse.models import (
    Key,
    Missing,
    Model,
    Parts,
)


@dataclass(frozen=True)
class Stack:
    """Second layer of the stack, over its bases."""

    bases: tuple[Model, ...]
    model: Model
    parts: Parts  # models left of a base when modalities are missing (`parts_of`)
    inner: bool  # True to predict inside the training folds, too

    @classmethod
    def over(cls, bases: tuple[Model, ...], parts: Parts, inner: bool) -> Stack | None:
        """Make the stack of the bases; None if there are none."""
        return cls(bases, stacked_model(bases), parts, inner) if bases else None

    def decided_by(self, missing: Missing) -> Key:
        """Return the key of the thresholds with modalities missing: each case has its own."""
        return (self.model.name, *missing)

    def predict_fold(self, oof: OutOfFold, fold_heads: FoldHeads, fold: int) -> None:
        """Fit one fold's second layer and predict the fold's clips, into `oof`.

        With modalities missing, another model predicts: the best of those that need none of
        them, by inner predictions of the training clips. The second layer itself would read the
        same remaining feature as several bases.
        """
        clips, key = oof.clips, self.model.key
        tested = clips.folds == fold
        inputs = {}
        for base in self.bases:
            values = oof.predict_inside(base, fold)
            values[tested] = oof.outputs[base.features][tested]
            inputs[base.name] = values
        head, outputs, inner = stack_fold(
            clips, fold, inputs, fold_heads.inner_folds[fold], inner=self.inner
        )
        oof.inner[key, fold] = inner
        fallbacks = oof.fallbacks.get(self.model.name, ())
        best = {f.key: self._best_without(oof, f.missing, fold) for f in fallbacks}
        if self.inner:
            oof.inner |= {(k, fold): oof.inner[best[k], fold] for k in best}
        if head is None:
            return
        oof.heads.append(head)
        oof.outputs[key][tested] = outputs[tested]
        for fallback_key, of in best.items():
            oof.outputs[fallback_key][tested] = oof.outputs[of][tested]

    def _best_without(self, oof: OutOfFold, missing: Missing, fold: int) -> Key:
        """Return the key of the best model that needs none of the missing modalities."""
        models = [m for m in oof.models if not set(missing) & set(m.modalities)]
        models += [parts[missing] for parts in self.parts.values() if missing in parts]
        models = [m for m in {m.key: m for m in models}.values() if (m.key, fold) in oof.inner]
        outputs = [oof.inner[m.key, fold].astype(np.float64) for m in models]
        best = best_model(oof.clips.task, oof.clips.y_true, models, outputs) if models else None
        left = (self._left_of(base, missing) for base in self.bases)
        return next(key for key in left if key) if best is None else models[best].key

    def _left_of(self, base: Model, missing: Missing) -> Key | None:
        """Return the key of what is left of a base with modalities missing; None for nothing."""
        lost = tuple(kind for kind in missing if kind in base.modalities)
        if not lost:
            return base.key
        part = self.parts.get(base.name, {}).get(lost)
        return None if part is None else part.key


@dataclass(frozen=True)
class Product:
    """Product of the calibrated predictions of single features."""

    bases: tuple[Model, ...]  # models of one feature each
    model: Model
    settings: HeadSettings

    @classmethod
    def over(cls, bases: tuple[Model, ...], settings: HeadSettings) -> Product | None:
        """Make the product of the bases; None if there are none."""
        return cls(bases, late_model(bases), settings) if bases else None

    def decided_by(self, missing: Missing) -> Key:
        """Return the key of the thresholds with modalities missing.

        If only one base can predict a clip, its own thresholds are used.
        """
        left = self._without(missing)
        return left[0].features if len(left) == 1 else self.model.key

    def predict_fold(self, oof: OutOfFold, fold_heads: FoldHeads, fold: int) -> None:
        """Calibrate inside one fold's training clips and predict the fold's clips, into `oof`."""
        clips, key = oof.clips, self.model.key
        tested = clips.folds == fold
        inner = np.stack([oof.inner[base.key, fold] for base in self.bases]).astype(np.float64)
        weights = late_weights(clips, inner)
        oof.inner[key, fold] = late_inner(clips, inner, fold_heads.inner_folds[fold])
        outputs = np.stack([oof.outputs[base.key][tested] for base in self.bases])
        if not complete(outputs).any():
            return
        names = [base.name for base in self.bases]
        oof.heads.append(late_head(clips, fold, names, weights, self.settings))
        values = late_outputs(clips, outputs, weights)
        # If all features of a modality are missing, a fallback predicts, or nothing does.
        for missing in self.model.modalities:
            of_modality = [missing in base.modalities for base in self.bases]
            values[~complete(outputs[of_modality]).any(axis=0)] = np.nan
        oof.outputs[key][tested] = values
        for fallback in oof.fallbacks.get(self.model.name, ()):
            left = self._without(fallback.missing)
            rows = [base in left for base in self.bases]
            values = late_outputs(clips, outputs[rows], weights[rows])
            oof.outputs[fallback.key][tested] = values

    def head_of_all(self, oof: OutOfFold) -> Head:
        """Return the layer for new clips, calibrated on all clips' out-of-fold predictions."""
        outputs = np.stack([oof.predict_everywhere(base) for base in self.bases])
        names = [base.name for base in self.bases]
        weights = late_weights(oof.clips, outputs)
        return late_head(oof.clips, None, names, weights, self.settings)

    def _without(self, missing: Missing) -> list[Model]:
        return [base for base in self.bases if not set(missing) & set(base.modalities)]

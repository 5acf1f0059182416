"""Groups of fits as problems of the solver: features as blocks of columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvemo.fuse.arrays import F32, Bools, Ints
from mvemo.fuse.heads.blocks import Block
from mvemo.fuse.heads.fits import Fit, Position
from mvemo.fuse.heads.scaled import ScaledFeatures
from mvemo.fuse.heads.solution import Solution, Start
from mvemo.fuse.heads.solver import solve
from mvemo.fuse.links import Link


@dataclass(frozen=True)
class FitProblems:
    """Fits as the solver takes them."""

    fits: Sequence[Fit]
    factors: Sequence[Sequence[float]]  # of each fit's features
    scaled: ScaledFeatures  # values of all features

    @property
    def names(self) -> list[str]:
        """Return the names of all features."""
        return list(dict.fromkeys(name for fit in self.fits for name in fit.model.features))

    def solve(self, target: F32, weights: F32, link: Link) -> Solution:
        """Fit all to a target (outputs, clips)."""
        rows: Bools = np.asarray((weights > 0).any(axis=0), np.bool_)
        blocks = [self._block(name, rows) for name in self.names]
        C, tol = np.array([(fit.C, fit.tol) for fit in self.fits]).T
        if link == "identity":
            # The last digits of squared errors cost few steps.
            tol = tol * 1e-3
        start = self._start(blocks, len(target))
        return solve(blocks, target[:, rows], weights[:, rows], C, link=link, tol=tol, start=start)

    def position(self, solution: Solution, row: int) -> Position:
        """Return the coefficients of a fit."""
        names, coef = self.names, []
        for name in self.fits[row].model.features:
            members = self._members(name)
            coef.append(solution.coef[names.index(name)][np.searchsorted(members, row)])
        return Position(tuple(coef), solution.intercept[row])

    def scores(self, position: Position, row: int) -> F32:
        """Return the scores of a fit, float32 (clips to predict, outputs)."""
        fit = self.fits[row]
        scores = position.intercept.astype(np.float32)
        for name, coef, factor in zip(
            fit.model.features, position.coef, self.factors[row], strict=True
        ):
            values = self.scaled[name].values
            if fit.predict is not None:
                values = values.take(fit.predict)
            scores = scores + values.scores(coef * np.float32(factor)).T
        return scores

    def _members(self, name: str) -> Ints:
        return np.flatnonzero([name in fit.model.features for fit in self.fits])

    def _block(self, name: str, rows: Bools) -> Block:
        feature, members = self.scaled[name], self._members(name)
        factors = [self.factors[i][self.fits[i].model.features.index(name)] for i in members]
        values = feature.values.take(rows)
        return Block(values, members, np.array(factors), feature.spectrum)

    def _start(self, blocks: Sequence[Block], n_outputs: int) -> Start | None:
        """Return the start of all fits, zeros for fits without one; None if no fit has one."""
        if not any(fit.start for fit in self.fits):
            return None
        intercept = np.zeros((len(self.fits), n_outputs))
        coef = [
            np.zeros((len(block.problems), n_outputs, block.values.shape[1]), np.float32)
            for block in blocks
        ]
        names = self.names
        for i, fit in enumerate(self.fits):
            if fit.start is None:
                continue
            intercept[i] = fit.start.intercept
            for name, part in zip(fit.model.features, fit.start.coef, strict=True):
                b = names.index(name)
                coef[b][np.searchsorted(blocks[b].problems, i)] = part
        return Start(tuple(coef), intercept)


def fits_by_batch(members: Sequence[int], fits: Sequence[Fit], size: int) -> list[list[int]]:
    """Split fits into batches of at most `size`, so that the features bound the memory.

    Fits of the same training clips stay together if there are at most `size`: their products
    then leave out the other clips.
    """
    by_clips: dict[bytes, list[int]] = {}
    for i in members:
        by_clips.setdefault(fits[i].train.tobytes(), []).append(i)
    batches: list[list[int]] = [[]]
    for of_clips in by_clips.values():
        of_clips.sort(key=lambda i: fits[i].model.features)
        for start in range(0, len(of_clips), size):
            part = of_clips[start : start + size]
            if batches[-1] and len(batches[-1]) + len(part) > size:
                batches.append([])
            batches[-1].extend(part)
    return batches

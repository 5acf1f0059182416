"""Features as heads are fitted to them: standardised on some clips, in few columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mvemo.fuse.arrays import F32, Bools
from mvemo.fuse.features import Matrix
from mvemo.fuse.heads.blocks import Spectrum, spectrum_of
from mvemo.fuse.matrices.rows import ArrayRows, MappedRows, Rows
from mvemo.fuse.matrices.scaling import Scaling, fit_scaling

# Clips at most whose span replaces the columns of a feature that has more of these than clips.
SPANNED = 600
# Share of the largest variance below which a direction of the span is rounding.
NEGLIGIBLE = 1e-10


@dataclass(frozen=True)
class ScaledFeature:
    """One feature as the solver takes it."""

    # (clips, columns): standardised, and stopped at the limit; zeros where missing.
    # Coordinates in the span of the clips where these are fewer than the columns: the
    # penalised minimum lies in it, so that it is the same there.
    values: Rows
    scaling: Scaling  # that made them of cached values
    spectrum: Spectrum  # of the values
    # Float32 (columns of the cache, columns), orthonormal: standardised values are `values`
    # times its transpose; None where they are the values.
    basis: F32 | None = None

    def raw_coef(self, coef: F32) -> F32:
        """(outputs, columns) of coefficients to those of standardised cached columns."""
        return coef if self.basis is None else np.asarray(coef @ self.basis.T, np.float32)


@dataclass
class ScaledFeatures:
    """All features, standardised on some clips when they are asked for."""

    matrices: Mapping[str, Matrix]  # feature name to cached values
    rows: Bools  # bool (clips,): to standardise on; those of them that have the feature
    _made: dict[str, ScaledFeature] = field(default_factory=dict)
    # Found once: directions of large variance on some clips are nearly those on others.
    _spectra: dict[str, Spectrum] = field(default_factory=dict)

    def on(self, rows: Bools) -> ScaledFeatures:
        """The same features standardised on other clips."""
        return ScaledFeatures(self.matrices, rows, _spectra=self._spectra)

    def __getitem__(self, name: str) -> ScaledFeature:
        if name not in self._made:
            self._made[name] = self._scale(name)
        return self._made[name]

    def _scale(self, name: str) -> ScaledFeature:
        matrix = self.matrices[name]
        scaling, _ = fit_scaling(matrix.values, self.rows & matrix.present)
        rows: Rows
        if isinstance(matrix.values, Rows):
            rows = MappedRows(matrix.values, scaling.apply)
        else:
            values = scaling.apply(matrix.values)
            values[~matrix.present] = 0.0
            n, dim = values.shape
            if n < dim and n <= SPANNED:
                return _in_span(values, scaling)
            rows = ArrayRows(values)
        if name not in self._spectra:
            self._spectra[name] = spectrum_of(rows)
        return ScaledFeature(rows, scaling, self._spectra[name])


def _in_span(values: F32, scaling: Scaling) -> ScaledFeature:
    """A feature in coordinates of the span of its clips, along its principal directions."""
    exact = values.astype(np.float64)
    squares, directions = np.linalg.eigh(exact @ exact.T)
    kept = squares > NEGLIGIBLE * max(float(squares[-1]), 1e-300)
    size = np.sqrt(squares[kept])
    directions = directions[:, kept]
    return ScaledFeature(
        values=ArrayRows((directions * size).astype(np.float32)),
        scaling=scaling,
        spectrum=Spectrum(squares[kept] / len(values)),
        basis=(exact.T @ (directions / size)).astype(np.float32),
    )

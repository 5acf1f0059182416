"""Features standardised on some clips and reduced to few columns, for fitting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mvemo.fuse.arrays import F32, Bools
from mvemo.fuse.features import Matrix
from mvemo.fuse.heads.blocks import Spectrum, spectrum_of
from mvemo.fuse.matrices.rows import ArrayRows, MappedRows, Rows
from mvemo.fuse.matrices.scaling import Scaling, fit_scaling

# Largest number of clips whose span replaces the columns of a feature that has more columns.
SPANNED = 600
# Directions of the span with less than this share of the largest variance are rounding.
NEGLIGIBLE = 1e-10


@dataclass(frozen=True)
class ScaledFeature:
    """One feature as the solver takes it."""

    # (clips, columns): standardised and clipped to the limit; zeros where missing. If there are
    # fewer clips than columns, these are coordinates in the span of the clips; the penalised
    # minimum lies in that span, so it is the same.
    values: Rows
    scaling: Scaling  # of the cached values
    spectrum: Spectrum  # of `values`
    # float32 (cached columns, columns), orthonormal: standardised values are `values @ basis.T`;
    # None if `values` are the standardised values.
    basis: F32 | None = None

    def raw_coef(self, coef: F32) -> F32:
        """Turn coefficients (outputs, columns) into those of the standardised cached columns."""
        return coef if self.basis is None else np.asarray(coef @ self.basis.T, np.float32)


@dataclass
class ScaledFeatures:
    """All features, each standardised on some clips when it is asked for."""

    matrices: Mapping[str, Matrix]  # feature name to cached values
    rows: Bools  # bool (clips,): clips to standardise on, if they have the feature
    _made: dict[str, ScaledFeature] = field(default_factory=dict)
    # Found only once: directions of large variance hardly depend on the clips.
    _spectra: dict[str, Spectrum] = field(default_factory=dict)

    def on(self, rows: Bools) -> ScaledFeatures:
        """Return the same features, to be standardised on other clips."""
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
    """Return a feature in coordinates along the principal directions of its clips."""
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

"""Features in the solver's form: standardised blocks of columns that problems share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mvemo.fuse.features import Matrix
from mvemo.fuse.scaling import ArrayRows, Rows, Scaling, fit_scaling
from mvemo.manifests.array_types import F32, F64, Bools, Ints

# Number of directions (those of largest variance) along which steps are scaled.
RANK = 64
# Extra random directions, which make the directions found more accurate.
EXTRA = 16
# If there are at most this many clips, and more columns, a feature is reduced to the clips' span.
SPANNED = 600
# Directions with less than this share of the largest variance are only rounding errors.
NEGLIGIBLE = 1e-10


@dataclass(frozen=True)
class Spectrum:
    """Variances along directions, which scale the solver's steps but not its solution."""

    variances: F64  # float64 (directions,): mean squares along the directions
    # float32 (dim, directions), orthonormal; None if the columns are the directions.
    directions: F32 | None = None
    rest: float = 0.0  # mean square of a direction orthogonal to all of them


class Block:
    """Columns of one feature, and the running problems that use them.

    `matrices` are the feature's values, float32 (clips, dim), standardised in one or more ways, and
    their spectra; `of` is the number of each problem's matrix.
    """

    def __init__(
        self, matrices: Sequence[tuple[Rows, Spectrum]], of: Ints, problems: Ints, factors: F64
    ) -> None:
        self.values = [values for values, _ in matrices]
        # int64: indices of the block's problems among the running problems.
        self.slots: Ints = problems
        # int64: positions of the same problems in the whole block.
        self.rows: Ints = np.arange(len(problems))
        self._of = of
        # float64 (problems, 1, directions), or (1, 1, directions) for one matrix.
        variances = np.stack([spectrum.variances for _, spectrum in matrices])[:, None]
        self._variances = variances[of] if len(matrices) > 1 else variances
        # Matrices that have directions share them.
        self._spectrum = matrices[0][1]
        # Factor of the columns in each problem.
        self._factors = factors.astype(np.float32)[:, None, None]
        # Inverse curvatures (`set_curvature`): along the directions, minus the rest; and the rest.
        self._inverse = self._of_rest = np.ones_like(self._factors)

    def scores(self, coef: F32) -> F32:
        """Turn coefficients (problems, outputs, dim) into scores (problems, outputs, clips)."""
        scaled = coef * self._factors
        return self._products(lambda values, x: values.scores(x), scaled, self.values[0].shape[0])

    def gradient(self, residual: F32) -> F32:
        """Turn residuals (problems, outputs, clips) into gradients (problems, outputs, dim)."""
        dim = self.values[0].shape[1]
        product = self._products(lambda values, x: values.gradient(x), residual, dim)
        product *= self._factors
        return product

    def _products(self, multiply: Callable[[Rows, F32], F32], x: F32, width: int) -> F32:
        """Multiply the rows of each problem (problems, outputs, columns) with its matrix."""
        shape = (*x.shape[:2], width)
        if len(self.values) == 1:
            return multiply(self.values[0], x.reshape(-1, x.shape[2])).reshape(shape)
        result = np.empty(shape, np.float32)
        for number, values in enumerate(self.values):
            if (rows := self._of == number).any():
                product = multiply(values, x[rows].reshape(-1, x.shape[2]))
                result[rows] = product.reshape(-1, *shape[1:])
        return result

    def set_curvature(self, curvature: F64, penalty: F64) -> None:
        """Set the Hessian of `precondition`: curvature (problems,), penalty (problems, outputs)."""
        spectrum = self._spectrum
        weight = (curvature * np.square(self._factors[:, 0, 0]))[:, None, None]
        inverse = 1.0 / (weight * self._variances + penalty[:, :, None])
        if spectrum.directions is not None:
            of_rest = 1.0 / (weight * spectrum.rest + penalty[:, :, None])
            inverse -= of_rest
            self._of_rest = of_rest.astype(np.float32)
        self._inverse = inverse.astype(np.float32)

    def precondition(self, vector: F32) -> F32:
        """Multiply a gradient (problems, outputs, dim) by an approximate inverse Hessian."""
        directions = self._spectrum.directions
        if directions is None:
            return vector * self._inverse
        flat = vector.reshape(-1, vector.shape[2])
        along = (flat @ directions).reshape(self._inverse.shape)
        along *= self._inverse
        result = vector * self._of_rest
        result += (along.reshape(-1, directions.shape[1]) @ directions.T).reshape(vector.shape)
        return result

    def drop(self, done: Bools) -> Bools:
        """Drop the problems in `done`, bool (running problems,); return a mask of those kept."""
        kept = ~done[self.slots]
        new_slots = np.cumsum(~done) - 1
        self.slots, self.rows = new_slots[self.slots[kept]], self.rows[kept]
        self._factors, self._inverse = self._factors[kept], self._inverse[kept]
        self._of_rest, self._of = self._of_rest[kept], self._of[kept]
        if len(self._variances) > 1:
            self._variances = self._variances[kept]
        return kept


def spectrum_of(values: Rows) -> Spectrum:
    """Return the directions of largest variance; values not in memory are read three times."""
    n, dim = values.shape
    rank = min(RANK, n, dim)
    width = min(rank + EXTRA, n, dim)
    # Halko, Martinsson & Tropp 2011, "Finding structure with randomness", algorithms 4.4, 5.3.
    draw, total = np.random.default_rng(0), 0.0
    product = np.zeros((width, dim), np.float32)
    for _, block in values.blocks():
        total += float(np.einsum("nd,nd->", block, block, dtype=float)) / n
        product += draw.normal(size=(width, len(block))).astype(np.float32) @ block
    basis = np.linalg.qr(product.T)[0]
    product = np.zeros((width, dim), np.float32)
    for _, block in values.blocks():
        product += (block @ basis).T @ block
    basis = np.linalg.qr(product.T)[0]
    square = np.zeros((width, width), np.float32)
    for _, block in values.blocks():
        along = block @ basis
        square += along.T @ along
    squares, rotation = np.linalg.eigh(square.astype(float) / n)
    variances = np.maximum(squares[::-1][:rank], 0.0)
    directions = basis @ rotation[:, ::-1][:, :rank].astype(np.float32)
    rest = max(total - float(variances.sum()), 0.0) / max(dim - rank, 1)
    return Spectrum(variances, np.ascontiguousarray(directions), rest)


@dataclass(frozen=True)
class ScaledFeature:
    """One feature in the solver's form."""

    # (clips, columns): standardised and clipped, zeros where missing. With fewer clips than columns
    # these are coordinates in the span of the clips, which contains the penalised minimum.
    values: Rows
    scaling: Scaling  # of the cached values
    spectrum: Spectrum  # of `values`
    # float32 (cached columns, columns): standardised values are `values @ basis.T`; None if equal.
    basis: F32 | None = None

    def raw_coef(self, coef: F32) -> F32:
        """Turn rows (n, columns) of coefficients or values into those of the cached columns."""
        return coef if self.basis is None else np.asarray(coef @ self.basis.T, np.float32)


@dataclass
class ScaledFeatures:
    """All features, each standardised on the clips of `rows` at its first use."""

    matrices: Mapping[str, Matrix]  # feature name to cached values
    rows: Bools  # bool (clips,): clips to standardise on, if they have the feature
    _by_name: dict[str, ScaledFeature] = field(default_factory=dict)
    # Computed only once, because directions of large variance hardly depend on the clips.
    _spectra: dict[str, Spectrum] = field(default_factory=dict)
    # Mask and values of the clips last taken, which the next fits often take again.
    _taken: tuple[bytes, dict[str, Rows]] = field(default_factory=lambda: (b"", {}))

    def on(self, rows: Bools) -> ScaledFeatures:
        """Return the same features, standardised on the clips of `rows`."""
        return ScaledFeatures(self.matrices, rows, _spectra=self._spectra)

    def __getitem__(self, name: str) -> ScaledFeature:
        if name not in self._by_name:
            self._by_name[name] = self._scaled(name)
        return self._by_name[name]

    def take(self, name: str, rows: Bools) -> Rows:
        """Return the standardised values of the clips of `rows`."""
        mask = rows.tobytes()
        if self._taken[0] != mask:
            self._taken = mask, {}
        taken = self._taken[1]
        if name not in taken:
            taken[name] = self[name].values.take(rows)
        return taken[name]

    def _scaled(self, name: str) -> ScaledFeature:
        matrix = self.matrices[name]
        scaling, _ = fit_scaling(matrix.values, self.rows & matrix.present)
        if isinstance(matrix.values, Rows):
            rows = matrix.values.map(scaling.apply)
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
    exact = values.astype(float)
    squares, directions = np.linalg.eigh(exact @ exact.T)
    # Columns beyond the rank are zero: the shape does not depend on the clips standardised on.
    kept = squares > NEGLIGIBLE * max(float(squares[-1]), 1e-300)
    directions *= kept
    # The variance of these columns may be any positive number.
    size = np.sqrt(np.where(kept, squares, 1.0))
    return ScaledFeature(
        values=ArrayRows((directions * size).astype(np.float32)),
        scaling=scaling,
        spectrum=Spectrum(np.square(size) / len(values)),
        basis=(exact.T @ (directions / size)).astype(np.float32),
    )

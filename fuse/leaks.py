"""Features that were made from the labels, and rows that belong to other labels.

A measured feature predicts labels only as far as listeners agree and similar clips have similar
labels. A feature made from labels is a function of them. Both are tested on clips of other
groups. Columns that the labels determine, together with the mean labels of the group, are codes,
curves, angles and target encodings, and are found among any number of other columns. Labels that
the whole feature determines were mixed into its columns.

A high accuracy is not evidence: classes that are easy to tell are predicted without error by
honest features. Hence the explained variance counts. At `TOO_GOOD`, two classes are six standard
deviations apart; published models of ratings reach r = .86 at most (Eerola and Anderson 2026). For
classes, only linear models read the whole feature, because neighbours and kernels also explain
all variance of classes that are easy to predict.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np

from mvemo.fuse.features import leave_each_out
from mvemo.fuse.numeric import codes_of
from mvemo.manifests.array_types import F32, F64, Bools, Ints

# Explained variance above which a feature must be made from labels. It is higher for ratings, as
# synthetic ratings without listeners' errors can be predicted very well.
TOO_GOOD, TOO_GOOD_RATINGS = 0.9, 0.95
# Number of nearest neighbours, scales of the kernels, and penalty of kernel ridge regression.
NEIGHBOURS, SCALES, PENALTY = 5, (0.5, 1.0, 2.0), 0.01
# Maximum number of clips on which kernels are fitted, and number of folds.
MOST_FITTED, FOLDS = 1000, 6
# Minimum number of groups to use mean labels, and maximum number of labels with own kernels.
GROUPS, MOST_ALONE = 12, 20
# Number of permutations, and p-values up to which features agree and labels are related.
PERMUTATIONS, AGREE, RELATED = 199, 0.015, 0.03
# Number of principal components for comparing features with each other.
COMPONENTS = 10


class Knowledge(NamedTuple):
    """Relation of a feature and the labels: variance explained on clips of other groups."""

    columns: Bools  # bool (columns,): True if the labels determine the column
    column: float  # largest share of a column's variance that the labels explain
    block: float  # largest share of a label's variance that the feature explains
    made: bool  # True if `block` is as large as only features made from labels reach
    chance: float  # p-value of `column` under labels in random order


def knowledge(z: F32, y: F64, means: F64, folds: Ints, *, numeric: bool) -> Knowledge:
    """Measure the relation of standardised columns (clips, dim) and labels (clips, outputs).

    `means` is from `group_means`; `numeric` is False for indicators of classes or tags.
    """
    from scipy.special import chdtrc  # scipy.stats takes most of a second to import

    basis = _basis(y)
    shares = np.square(basis.T @ z).sum(axis=0) / np.maximum(z.var(axis=0), 1e-12)
    chance = min(1.0, len(shares) * float(chdtrc(basis.shape[1], float(shares.max()))))
    linear = _explained(y, _ridge(z, y, folds))
    few = slice(None, None, -(-len(z) // MOST_FITTED))
    z, y = z[few], _standardised(y[few])
    folds = np.where(folds[few] < 0, folds[few], folds[few] % FOLDS)
    known = np.concatenate([y, _standardised(means[few])], axis=1)
    kernel = _kernel(y) + known @ known.T / known.shape[1]
    if known.shape[1] <= MOST_ALONE:
        kernel += sum(_kernel(column[:, None]) for column in known.T) / known.shape[1]
    of_columns = _explained(z, _kernel_ridge(kernel, z, folds))
    scores = [linear]
    if numeric:
        scores.append(_explained(y, _kernel_ridge(_kernel(z), y, folds)))
        scores.append(_explained(y, _neighbours(z, y, folds)))
    column, block = (float(np.nanmax(np.stack(explained))) for explained in ([of_columns], scores))
    too_good = TOO_GOOD_RATINGS if numeric else TOO_GOOD
    return Knowledge(of_columns > TOO_GOOD, column, block, block > too_good, chance)


def rows_mismatch(features: Mapping[str, tuple[F32, Ints]], y: F64) -> tuple[str, ...]:
    """Return features that agree with each other, if all features are unrelated to the labels.

    `features` maps names to standardised columns and the rows of `y` that have them.
    """
    if any(_chance(z, y[rows]) <= RELATED for z, rows in features.values()):
        return ()
    agreeing: dict[str, None] = {}
    main = {name: (_components(z), rows) for name, (z, rows) in features.items()}
    for a, b in combinations(main, 2):
        shared, i, j = np.intersect1d(main[a][1], main[b][1], return_indices=True)
        if len(shared) > 3 * COMPONENTS and _chance(main[a][0][i], main[b][0][j]) <= AGREE:
            agreeing.update({a: None, b: None})
    return tuple(agreeing)


def _chance(z: F32 | F64, y: F64) -> float:
    """Return the p-value of the relation between rows, by a permutation test.

    The statistic is the share of variance that `y` explains: its mean and maximum over columns, and
    its mean over the first principal components.
    """
    rng = np.random.default_rng(0)
    basis, main = _basis(y), _components(z)
    z = _standardised(np.concatenate([main, z], axis=1)).astype(np.float32)
    orders = [np.arange(len(z)), *(rng.permutation(len(z)) for _ in range(PERMUTATIONS))]
    shares = np.array([np.square(basis[order].T @ z).sum(axis=0) for order in orders])
    later = shares[:, main.shape[1] :]
    strength = np.stack(
        [later.mean(axis=1), later.max(axis=1), shares[:, : main.shape[1]].mean(axis=1)]
    )
    as_strong = (strength[:, 1:] >= strength[:, :1]).sum(axis=1)
    return float(min(1.0, 3 * (1 + as_strong.min()) / (1 + PERMUTATIONS)))


def _basis(y: F64) -> F32:
    """Return orthonormal columns that span the centred labels."""
    basis, size, _ = np.linalg.svd(y - y.mean(axis=0), full_matrices=False)
    return np.asarray(basis[:, size > 1e-6 * max(size[0], 1e-12)], np.float32)


def _components(z: F32 | F64) -> F64:
    """Return the first principal components of rows."""
    z = z - z.mean(axis=0)
    size, left = np.linalg.eigh((z @ z.T).astype(np.float64))
    return left[:, -COMPONENTS:] * np.sqrt(np.maximum(size[-COMPONENTS:], 0))


def group_means(y: F64, group: Ints) -> F64:
    """Return the mean labels of each clip's group; no columns if groups are few or single clips."""
    number = codes_of(group)
    sizes = np.bincount(number)
    total = np.zeros((len(sizes), y.shape[1]))
    np.add.at(total, number, y)
    means = (total / sizes[:, None])[number]
    return means if len(sizes) >= GROUPS and not np.allclose(means, y) else means[:, :0]


def _standardised(x: F32 | F64) -> F64:
    x = x - x.mean(axis=0, dtype=np.float64)
    return x / np.maximum(x.std(axis=0), 1e-12)


def _explained(y: F64 | F32, predicted: F64) -> F64:
    """Return the explained variance of each column, for rows with predictions."""
    done = np.isfinite(predicted).all(axis=1)
    y, predicted = y[done], predicted[done]
    total = np.square(y - y.mean(axis=0)).sum(axis=0) if len(y) else np.zeros(y.shape[1])
    errors = np.square(y - predicted).sum(axis=0)
    return np.where(total > 1e-12, 1 - errors / np.maximum(total, 1e-12), -np.inf)


def _squares(x: F32 | F64) -> F64:
    """Return squared distances of all pairs of rows, divided by the dimension."""
    x = np.asarray(x, np.float64)
    norm = np.square(x).sum(axis=1)
    return np.maximum(norm[:, None] + norm - 2 * x @ x.T, 0) / x.shape[1]


def _kernel(x: F32 | F64) -> F64:
    """Return a kernel of linear and smooth functions of rows (clips, dim)."""
    squares = _squares(x)
    smooth = sum(np.exp(squares / (-2 * scale**2)) for scale in SCALES)
    return smooth + np.asarray(x, np.float64) @ x.T / x.shape[1]


def _kernel_ridge(kernel: F64, y: F64 | F32, folds: Ints) -> F64:
    predicted = np.full(y.shape, np.nan)
    for train, test in leave_each_out(folds):
        system = kernel[np.ix_(train, train)] + PENALTY * np.eye(int(train.sum()))
        offset = y[train].mean(axis=0)
        coef = np.linalg.solve(system, y[train] - offset)
        predicted[test] = kernel[np.ix_(test, train)] @ coef + offset
    return predicted


def _neighbours(z: F32, y: F64, folds: Ints) -> F64:
    predicted, squares = np.full(y.shape, np.nan), _squares(z)
    for train, test in leave_each_out(folds):
        nearest = np.argsort(squares[np.ix_(test, train)], axis=1)[:, :NEIGHBOURS]
        predicted[test] = y[train][nearest].mean(axis=1)
    return predicted


def _ridge(z: F32, y: F64, folds: Ints) -> F64:
    """Predict by ridge regressions with a weak penalty."""
    predicted = np.full(y.shape, np.nan)
    whole = z.T @ z if z.shape[1] < len(z) else None
    for train, test in leave_each_out(folds):
        x, rest = z[train], z[~train]
        n, mean, offset = len(x), x.mean(axis=0), y[train].mean(axis=0)
        residual = (y[train] - offset).astype(np.float32)
        # The smaller of the two systems has the same solution. A difference takes less time than
        # the product of the training clips.
        wide = whole is None and x.shape[1] > n
        if whole is not None:
            gram = whole - rest.T @ rest - n * np.outer(mean, mean)
        else:
            x = x - mean
            gram = x @ x.T if wide else x.T @ x
        system = gram.astype(np.float64)
        system[np.diag_indices_from(system)] += n / 100
        coef = np.linalg.solve(system, residual if wide else x.T @ residual).astype(np.float32)
        predicted[test] = (z[test] - mean) @ (x.T @ coef if wide else coef) + offset
    return predicted

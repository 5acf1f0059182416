"""Adaptation of a final model to a few labelled clips, without the clips that it was made of.

The scores of a head are s = W z + b for standardised features z. An adapted head adds V u with
u = (W z / r, 1, z / sqrt(dim)), whose blocks have a mean square of about 1, so that it can mix the
outputs anew, shift them, and read the features differently. V minimises the sum of the losses plus
|V|^2 / (2 C): for small C the head stays as it was. u is linear in z, so an adapted head is a
`Head` again, and fusions of heads follow their bases.

People often label the clips that the model doubted, and improving these may harm the others. So
unlabelled clips are anchors: their targets are the outputs of the head before adaptation. All
anchors together weigh as much as the labelled clips, times the share of labels that confirm the
model (beyond chance), so that outputs that are always wrong are not kept.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from mvemo.fuse import bootstrap, features, models
from mvemo.fuse.final import corrections, expected_scores
from mvemo.fuse.final.model import FinalModel, Vectors, head_inputs, predict_clips
from mvemo.fuse.heads.head import Head
from mvemo.fuse.numeric import Link, apply_link, complete
from mvemo.manifests.array_types import F64, Bools

# Strengths to choose from; 0 leaves the model unchanged. In a test on 50 music videos, adapting to
# the most doubtful ones with more than 1 made the predictions of the other videos worse.
STRENGTHS = (0.0, 0.01, 0.1, 1.0)
FOLDS, INNER_FOLDS = 5, 3
# A strength above 0 is chosen only if its loss is below that of 0 in this share of resamples.
CERTAIN = 0.9


@dataclass(frozen=True)
class _Inputs:
    """Inputs of one head for all clips: u = `coordinates` @ `basis`."""

    head: Head
    rows: Bools  # bool (clips,): clips with all features of the head
    scores: F64  # float64 (clips, outputs)
    coordinates: F64  # float64 (clips, rank)
    basis: F64  # float64 (rank, outputs + 1 + dim)
    mixing: F64  # float64 (outputs, dim): its product with z is the first block of u

    def adapted(self, target: F64, weights: F64, strength: float) -> Head:
        """Return the head fitted to targets (NaN: the head's own output) and weights of clips."""
        head, rows = self.head, self.rows & (weights.sum(axis=1) > 0)
        if not strength or not rows.any():
            return head
        y, scores = target[rows], self.scores[rows]
        y = np.where(np.isnan(y), apply_link(scores, head.link), y)
        x = self.coordinates[rows]
        found = _fit(scores, x, y, weights[rows], strength, head.link)
        n_outputs, dim = self.mixing.shape
        mix, shift, read = np.split(found @ self.basis, [n_outputs, n_outputs + 1], axis=1)
        coef = head.coef + mix @ self.mixing + read / np.sqrt(dim)
        ends = head.ends
        if ends is not None:
            known = np.concatenate([ends, target[rows]])
            ends = np.stack([np.fmin.reduce(known), np.fmax.reduce(known)])
        intercept = head.intercept + shift[:, 0]
        return replace(head, coef=coef.astype(np.float32), intercept=intercept, ends=ends)


class Adaptation:
    """Adaptation of a model to any part of the labelled clips.

    `vectors` are features of all clips, NaN for missing ones; the labelled `clips` come first.
    """

    def __init__(self, model: FinalModel, vectors: Vectors, clips: features.Clips) -> None:
        self.model = model
        self.clips = clips
        self._vectors = vectors
        self._before = predictor_outputs(model, vectors)
        target = clips.target.T
        self._target = np.full(self._before.shape[1:], np.nan)
        self._target[: len(target)] = target
        self._inputs = {
            i: _inputs(head, head_inputs(head, vectors))
            for i, head in enumerate(model.heads.heads)
            if head.model not in models.NAMED
        }

    def adapted(self, rows: Bools, strength: float) -> FinalModel:
        """Return the model adapted to the labelled clips in `rows`, bool (labelled clips,)."""
        heads, weights = list(self.model.heads.heads), np.zeros(self._target.shape)
        weights[: len(rows)] = rows[:, None]
        weights[len(rows) :] = self._anchors(rows)
        for i, inputs in self._inputs.items():
            heads[i] = inputs.adapted(self._target, weights, strength)
        return replace(self.model, heads=replace(self.model.heads, heads=tuple(heads)))

    def _anchors(self, rows: Bools) -> F64:
        """Return the weights of the anchors, float64 (anchors, outputs)."""
        n, n_outputs = len(rows), len(self.model.classes)
        outputs, known = first_of(self._before), rows & complete(first_of(self._before)[:n])
        old, true = outputs[:n][known], self._target[:n][known]
        link, others = self.model.heads.heads[0].link, outputs[n:]
        if link == "softmax":
            # Each class starts with one correct prediction (a pseudocount).
            predicted = old.argmax(axis=1)
            hits = true[np.arange(len(predicted)), predicted]
            right = 1 + np.bincount(predicted, hits, n_outputs)
            share = right / (1 + np.bincount(predicted, minlength=n_outputs))
            trust = (share - 1 / n_outputs) / (1 - 1 / n_outputs)
            trust = trust[np.nan_to_num(others).argmax(axis=1)][:, None]
        elif link == "sigmoid":
            trust = 2 * (1 + ((old >= 0.5) == true).sum(axis=0)) / (1 + len(true)) - 1
        else:
            spread = np.square(true - true.mean(axis=0)).sum(axis=0)
            trust = 1 - np.square(true - old).sum(axis=0) / np.maximum(spread, 1e-12)
        most = min(1.0, float(rows.sum()) / max(len(others), 1))
        return np.broadcast_to(np.clip(trust, 0, 1) * most, others.shape)

    def choose(self, rows: Bools) -> float:
        """Choose the strength by cross-validation on the clips in `rows`; 0 if no gain is certain.

        The loss includes the change of the anchors' outputs, with the anchors' weights.
        """
        clips, task, before = self.clips, self.clips.task, first_of(self._before)
        n = len(clips.groups)
        decided, anchors = task.decide(before), self._anchors(rows).mean(axis=1)
        gains = np.full((len(STRENGTHS), len(before)), np.nan)
        gains[:, n:] = 0.0
        folds = features.leave_each_out(clips.folds_of(rows, INNER_FOLDS))
        for train, test in folds:
            tested = np.flatnonzero(test)
            for i, strength in enumerate(STRENGTHS[1:], start=1):
                model = self.adapted(train, strength)
                after = first_of(predictor_outputs(model, self._vectors))
                old, new = (
                    task.losses(clips.y_true[tested], one[tested]) for one in (before, after)
                )
                gains[i, tested] = old - new
                old, new = (task.losses(decided[n:], one[n:]) for one in (before, after))
                gains[i, n:] += np.nan_to_num(anchors * (old - new)) / len(folds)
        gains[0] = 0.0
        known = np.isfinite(gains).all(axis=0)
        best = int(gains[:, known].sum(axis=1).argmax())
        names = [*clips.groups, *(f"anchor {i}" for i in range(len(before) - n))]
        resamples = bootstrap.resample_groups([names[row] for row in np.flatnonzero(known)])
        better = resamples.sums(gains[best, known][:, None])[1:, 0] > 0
        return STRENGTHS[best] if better.mean() >= CERTAIN else 0.0

    def out_of_fold(self) -> F64:
        """Return `predictor_outputs` of models that were adapted to the groups of other folds."""
        n = len(self.clips.groups)
        result = np.full_like(self._before[:, :n], np.nan)
        for train, test in features.leave_each_out(self.clips.folds_of(np.ones(n, bool), FOLDS)):
            model = self.adapted(train, self.choose(train))
            result[:, test] = predictor_outputs(model, self._vectors)[:, :n][:, test]
        return result


def adapted_model(
    base: FinalModel, corrected: corrections.CorrectedClips, before: F64
) -> tuple[FinalModel, F64]:
    """Adapt the heads to the corrected clips; return the model, and out-of-fold outputs."""
    clips, vectors = corrected.clips, corrected.vectors
    linear, task, y_true = linear_part(base), clips.task, clips.y_true
    both = {k: np.concatenate([x, corrected.others[k]]) for k, x in vectors.items()}
    adaptation, everything = Adaptation(linear, both, clips), np.ones(len(y_true), bool)
    after, strength = adaptation.out_of_fold(), adaptation.choose(everything)
    constant = corrected.constant_outputs
    learned, *others = (
        np.nanmean(task.losses(y_true, one)) for one in (first_of(after), before, constant)
    )
    if not strength or learned >= min(others):
        return base, before
    new = adaptation.adapted(everything, strength)
    predictors = []
    for predictor, outputs in zip(linear.predictors, after, strict=True):
        rows = corrected.scored & complete(outputs)
        one = replace(predictor, nonconformity=(), optional=())
        if rows.any():
            names = [clips.groups[row] for row in np.flatnonzero(rows)]
            one = expected_scores.with_limits(one, y_true[rows], outputs[rows], names, task.link)
        predictors.append(one)
    keys = np.union1d(base.training_keys, corrected.keys(base))
    return replace(new, predictors=tuple(predictors), training_keys=keys), first_of(after)


def linear_part(model: FinalModel) -> FinalModel:
    """Return the model without its kernel heads, which cannot be adapted."""
    heads = tuple(head for head in model.heads.heads if head.rows is None)
    predictors = tuple(p for p in model.predictors if p.name not in models.WITH_KERNEL)
    return replace(model, heads=replace(model.heads, heads=heads), predictors=predictors)


def predictor_outputs(model: FinalModel, vectors: Vectors) -> F64:
    """Return outputs, float64 (predictors, clips, outputs); NaN for clips that lack a feature."""
    present = {key: complete(values) for key, values in vectors.items()}
    shape = len(model.predictors), len(next(iter(present.values()))), len(model.classes)
    outputs = np.full(shape, np.nan)
    for i, predictor in enumerate(model.predictors):
        keys = [(s.name, s.fold) for s in model.specs if s.name in predictor.features]
        rows = np.logical_and.reduce([present[key] for key in keys])
        if rows.any():
            outputs[i, rows] = predict_clips(
                model, predictor, {key: vectors[key][rows] for key in keys}
            )
    return outputs


def first_of(outputs: F64) -> F64:
    """Return each clip's outputs by the first predictor that predicts it: (clips, outputs)."""
    first = complete(outputs).argmax(axis=0)
    return outputs[first, np.arange(outputs.shape[1])]


def _inputs(head: Head, x: F64) -> _Inputs:
    rows = complete(x)
    z = (np.where(rows[:, None], x, head.mean) - head.mean) / head.scale
    if head.limit is not None:
        np.clip(z, -head.limit, head.limit, out=z)
    mixing = head.coef.astype(np.float64)
    plain = z @ mixing.T
    scores = plain + head.intercept
    if head.link == "softmax":
        mixing = mixing - mixing.mean(axis=0)
    size = np.sqrt(np.square(z @ mixing.T).sum(axis=1).mean()) or 1.0
    mixing = mixing / size
    u = np.concatenate([z @ mixing.T, np.ones((len(z), 1)), z / np.sqrt(z.shape[1])], axis=1)
    if len(u) >= u.shape[1]:
        return _Inputs(head, rows, scores, u, np.eye(u.shape[1]), mixing)
    # A change to another orthonormal basis of the clips' span does not change a ridge penalty.
    values, turned = np.linalg.eigh(u @ u.T)
    kept = values > 1e-10 * values.max()
    root = np.sqrt(values[kept])
    return _Inputs(
        head, rows, scores, turned[:, kept] * root, (turned[:, kept] / root).T @ u, mixing
    )


def _fit(scores: F64, x: F64, target: F64, weights: F64, strength: float, link: Link) -> F64:
    """Fit coefficients (outputs, rank) by the penalised loss of scores + x @ coefficients.T."""
    if link == "identity":
        found = []
        for i, w in enumerate(weights.T):
            gram = (x.T * w) @ x + np.eye(x.shape[1]) / strength
            found.append(np.linalg.solve(gram, x.T @ (w * (target - scores)[:, i])))
        return np.array(found)
    shape = target.shape[1], x.shape[1]

    def objective(flat: F64) -> tuple[float, F64]:
        found = flat.reshape(shape)
        total = scores + x @ found.T
        if link == "softmax":
            # Each term is a share of the log of the sum over classes.
            terms = logsumexp(total, axis=1, keepdims=True) * target - target * total
        else:
            terms = np.logaddexp(0.0, total) - target * total
        loss = (weights * terms).sum() + np.square(found).sum() / (2 * strength)
        slope = (weights * (apply_link(total, link) - target)).T @ x + found / strength
        return float(loss), slope.ravel()

    start = np.zeros(shape[0] * shape[1])
    options = {"ftol": 1e-6, "maxiter": 200}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(shape)

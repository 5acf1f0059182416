"""The decision for a whole song from those for its segments (J22: 30 s in segments of 10 s)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.models import Model
from mvemo.fuse.results import ModelResult, Results, score_baseline, score_model
from mvemo.manifests import song_of

F64 = NDArray[np.float64]
Rule = Literal["mean", "log-mean", "vote"]
RULES: tuple[Rule, ...] = ("mean", "log-mean", "vote")
# A segment's least probability of a class, so that one segment alone cannot rule it out.
LEAST_PROBABILITY = 1e-6
# Weight of the mean probabilities beside votes: it decides between equally many alone.
_TIE = 1e-6


def song_level(
    results: Results, *, by: Literal["clip", "group"] = "clip", rule: Rule = "mean"
) -> Results:
    """The same evaluation with one prediction for each song.

    Segments that a model did not predict are left out of their song's decision; a song
    without any is not predicted. Heads and nets stay those trained on segments.

    Parameters
    ----------
    results
        Of segments, multiclass.
    by
        What a song is: ``clip``, the clip that segments were cut from (`song_of` their
        ids), or ``group``.
    rule
        ``mean`` of the segments' probabilities; ``log-mean``, their geometric mean (the
        product of independent witnesses), scaled to sum 1; ``vote``, the share of segments
        whose first class it is, equal shares in the order of mean probability.

    Returns
    -------
    Results whose clips are songs, in the order of their first segments, and whose name
    says so. Where labels are permuted a song has that of its first segment. Intervals,
    comparisons, learning curves, repeats and scores with a modality missing are those of
    segments, and left out.

    Raises
    ------
    BadFeatures
        An unknown rule, or a song whose segments differ in label, group or fold.
    """
    if rule not in RULES:
        raise BadFeatures(f"rule {rule!r} is not known: one of {', '.join(RULES)}")
    names = results.groups if by == "group" else [song_of(c) for c in results.clip_ids]
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        first.setdefault(name, i)
    index = {name: n for n, name in enumerate(first)}
    song = np.array([index[name] for name in names], dtype=np.int64)
    rows = np.array(list(first.values()), dtype=np.int64)
    _check(results, list(first), song, rows)
    y_true, folds = results.y_true[rows], results.folds[rows]
    models = tuple(
        _scored(model, decide(model.outputs, song, len(rows), rule), y_true, folds, results)
        for model in results.models
    )
    return replace(
        results,
        name=f"{results.name}, by song",
        clip_ids=tuple(first),
        groups=tuple(results.groups[row] for row in rows),
        y_true=y_true,
        folds=folds,
        models=models,
        baseline=score_baseline(results.task, y_true, folds, results.k, len(results.classes)),
        # A song has a feature where one of its segments has it.
        present={
            name: np.bincount(song, present, len(rows)) > 0
            for name, present in results.present.items()
        },
        provenance={
            **results.provenance,
            "songs": {"segments": len(names), "songs": len(rows), "by": by, "rule": rule},
        },
        comparisons=(),
        repeats=(),
        learning_curve={},
    )


def decide(probabilities: F64, song: NDArray[np.int64], n_songs: int, rule: Rule) -> F64:
    """Probabilities of songs.

    Parameters
    ----------
    probabilities
        float64 (segments, classes), NaN rows where not predicted.
    song
        int64 (segments,), from 0 to `n_songs` - 1.
    rule
        As for `song_level`.

    Returns
    -------
    float64 (songs, classes), rows summing to 1; NaN rows for songs without a prediction.
    """
    there = np.isfinite(probabilities).all(axis=1)
    held, of = probabilities[there], song[there]
    count = np.bincount(of, minlength=n_songs)[:, None].astype(np.float64)
    count[count == 0] = np.nan
    mean = _sums(held, of, n_songs) / count
    if rule == "mean":
        return mean
    if rule == "vote":
        votes = np.eye(probabilities.shape[1])[held.argmax(axis=1)]
        shares: F64 = (1 - _TIE) * _sums(votes, of, n_songs) / count + _TIE * mean
        return shares
    logs = _sums(np.log(np.maximum(held, LEAST_PROBABILITY)), of, n_songs) / count
    scores = np.exp(logs - logs.max(axis=1, keepdims=True))
    scaled: F64 = scores / scores.sum(axis=1, keepdims=True)
    return scaled


def _sums(values: F64, of: NDArray[np.int64], n: int) -> F64:
    result = np.zeros((n, values.shape[1]))
    np.add.at(result, of, values)
    return result


def _check(
    results: Results,
    songs: Sequence[str],
    song: NDArray[np.int64],
    first: NDArray[np.int64],
) -> None:
    """Refuse songs whose segments do not belong together."""
    if not results.task.decides_songs:
        raise BadFeatures(f"{results.name}: songs are decided for classes, not {results.task.name}")
    groups = np.array(results.groups, dtype=np.str_)
    facts = {"group": groups, "fold": results.folds}
    if not results.permuted:
        facts["label"] = results.y_true
    for what, values in facts.items():
        wrong = np.flatnonzero(values != values[first][song])
        if len(wrong):
            row = int(wrong[0])
            raise BadFeatures(
                f"{results.name}: segment {results.clip_ids[row]!r} has another {what} than "
                f"{results.clip_ids[int(first[song[row]])]!r} of its song {songs[song[row]]!r}"
            )


def _scored(
    model: ModelResult,
    outputs: F64,
    y_true: NDArray[np.int64],
    folds: NDArray[np.int64],
    results: Results,
) -> ModelResult:
    plain = Model(model.name, model.features, model.modalities)
    return score_model(results.task, plain, outputs, y_true, folds, results.k)

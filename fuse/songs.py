"""Decisions for whole songs from their segments (J22: 30 s in segments of 10 s)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from mvemo.fuse import models, numeric
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.results import ModelResult, Results, score_baseline, score_model
from mvemo.manifests import song_of
from mvemo.manifests.array_types import F64, Ints

SongRule = Literal["mean", "log-mean", "vote"]
RULES: tuple[SongRule, ...] = ("mean", "log-mean", "vote")
# Smallest probability of a class in a segment, so that no single segment can exclude a class.
MIN_PROBABILITY = 1e-6
# Weight of the mean probabilities added to votes; it is only large enough to break ties.
TIE_WEIGHT = 1e-6


def song_level(
    results: Results, *, by: Literal["clip", "group"] = "clip", rule: SongRule = "mean"
) -> Results:
    """Return the evaluation with one prediction per song.

    Segments without a prediction are left out. Heads and nets are still those of segments.

    Parameters
    ----------
    results
        Multiclass results of segments.
    by
        Unit that counts as a song: the ``clip`` that segments were cut from, or ``group``.
    rule
        ``mean``, the mean of the segments' probabilities; ``log-mean``, their geometric mean,
        scaled to a sum of 1; ``vote``, the share of segments in which a class is the most
        probable (ties are broken by the mean).

    Returns
    -------
    Results whose clips are songs, in the order of their first segments (if labels are permuted,
    with the first segment's label), without intervals, comparisons, learning curves and repeats.

    Raises
    ------
    BadFeatures
        The rule is unknown, the labels are not classes, or segments of a song differ in label,
        group or fold.

    Examples
    --------
    >>> import numpy as np
    >>> from mvemo.fuse import Predictions, results_of_predictions
    >>> predictions = Predictions(
    ...     classes=("calm", "tense"), clip_ids=("a@0", "a@10", "b@0"), groups=("a", "a", "b"),
    ...     y_true=np.array([0, 0, 1]), folds=np.array([0, 0, 0]), k=1,
    ...     outputs={"net": np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])},
    ... )
    >>> songs = song_level(results_of_predictions(predictions))
    >>> songs.clip_ids, songs.models[0].outputs[0].round(2).tolist()
    (('a', 'b'), [0.65, 0.35])
    """
    if rule not in RULES:
        raise BadFeatures(f"unknown rule {rule!r}; expected one of {', '.join(RULES)}")
    names = results.groups if by == "group" else tuple(map(song_of, results.clip_ids))
    index = {name: n for n, name in enumerate(dict.fromkeys(names))}
    song = np.array([index[name] for name in names], dtype=np.int64)
    # Index of the first segment of each song.
    _, rows = np.unique(song, return_index=True)
    _check(results, tuple(index), song, rows)
    y_true, folds = results.y_true[rows], results.folds[rows]
    # A song has a feature if any of its segments has it.
    present = {
        name: np.bincount(song, values, len(rows)) > 0 for name, values in results.present.items()
    }

    def decided(model: ModelResult) -> ModelResult:
        outputs = decide_songs(model.outputs, song, len(rows), rule)
        plain = models.Model(model.name, model.features, model.modalities, model.by_net)
        scored = score_model(results.task, plain, outputs, y_true, folds, results.k)
        has = [results.present[name] for name in model.features if name in results.present]
        if model.by_net:
            has = [model.valid]
        having_all = np.logical_and.reduce([results.tested, *has])
        complete_songs = np.bincount(song, having_all, len(rows)) > 0
        return replace(scored, n_untrained=int((complete_songs & ~scored.valid).sum()))

    choice = results.choice and replace(results.choice, nested=decided(results.choice.nested))
    return replace(
        results,
        name=f"{results.name}, by song",
        clip_ids=tuple(index),
        groups=tuple(results.groups[row] for row in rows),
        y_true=y_true,
        folds=folds,
        models=tuple(decided(model) for model in results.models),
        choice=choice,
        baseline=score_baseline(results.task, y_true, folds, results.k, len(results.classes)),
        present=present,
        provenance={
            **results.provenance,
            "songs": {"segments": len(names), "songs": len(rows), "by": by, "rule": rule},
        },
        comparisons=(),
        repeats=(),
        learning_curve={},
    )


def decide_songs(proba: F64, song: Ints, n_songs: int, rule: SongRule) -> F64:
    """Return probabilities (songs, classes) from (segments, classes); NaN rows are ignored."""
    valid = numeric.complete(proba)
    proba, song = proba[valid], song[valid]
    count = np.bincount(song, minlength=n_songs)[:, None].astype(np.float64)
    count[count == 0] = np.nan

    def mean_by_song(values: F64) -> F64:
        total = np.zeros((n_songs, values.shape[1]))
        np.add.at(total, song, values)
        return total / count

    if rule == "log-mean":
        return numeric.softmax(mean_by_song(np.log(np.maximum(proba, MIN_PROBABILITY))))
    mean = mean_by_song(proba)
    if rule == "vote":
        votes = np.eye(proba.shape[1])[proba.argmax(axis=1)]
        mean = (1 - TIE_WEIGHT) * mean_by_song(votes) + TIE_WEIGHT * mean
    return mean


def _check(results: Results, songs: Sequence[str], song: Ints, first: Ints) -> None:
    """Raise if segments of a song differ; `first` has the index of each song's first one."""
    if not results.task.exclusive:
        raise BadFeatures(f"{results.name}: songs need task multiclass, got {results.task.name}")
    columns = {"group": np.array(results.groups), "fold": results.folds}
    if not results.permuted:
        columns["label"] = results.y_true
    for name, values in columns.items():
        for row in np.flatnonzero(values != values[first][song]):
            raise BadFeatures(
                f"{results.name}: segment {results.clip_ids[row]!r} differs in its {name} from "
                f"{results.clip_ids[first[song[row]]]!r} of its song {songs[song[row]]!r}"
            )

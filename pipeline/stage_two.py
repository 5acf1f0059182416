"""Stage two as a function: evaluate a feature cache, write the report, save the heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.cache import Cache, open_cache
from mvemo.fuse import (
    Results,
    evaluate,
    format_table,
    output_table,
    save_heads,
    song_level,
    task_of,
    write_output_report,
    write_report,
)
from mvemo.fuse.clips import partition
from mvemo.fuse.report.summary import one_split
from mvemo.fuse.songs import Rule
from mvemo.fuse.statistics.uncertainty import with_learning_curve, with_repeats, with_uncertainty
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.provenance import provenance
from mvemo.pipeline.settings import FuseSettings


def run_fuse(
    features: Path,
    settings: FuseSettings,
    *,
    out: Path,
    k: int | None = None,
    seed: int | None = None,
    models: Sequence[str] | None = None,
    permute_labels: bool = False,
    protocol: str | None = None,
    repeats: int = 1,
    learning_curve: bool = False,
    songs: Rule | None = None,
    save: bool = True,
) -> str:
    """Evaluate every model over the cache and write the report.

    Parameters
    ----------
    features
        The cache; nothing else is read.
    settings
        Of the heads.
    out
        Folder of ``report.html``, ``metrics.json`` and ``predictions.csv``; made if
        needed, and nothing else in it is touched.
    k, seed
        Number of folds, and the seed of folds made here; None for the cache's own.
    models
        Names of those to evaluate; None for all that the features allow.
    permute_labels
        Shuffle the labels first: a check that must come out at chance.
    protocol
        What the features are expected to be; ``shared`` accepts optimistic scores.
    repeats
        Evaluations on as many different folds; more than one needs features that all folds
        share.
    learning_curve
        Also score heads trained on fewer clips.
    songs
        Report whole songs instead of segments, decided by this rule (`song_level`).
    save
        Also fit and save the heads, per fold and over all clips, as ``heads.npz``.

    Returns
    -------
    The table for the terminal, with where the report lies.
    """
    with open_cache(features) as cache:
        held = sorted({spec.protocol for spec in cache.specs if spec.kind == "vector"})
        if protocol is not None and held and protocol not in held:
            raise BadOption(
                f"{features}: its features are made under {', '.join(held)}, not {protocol!r}"
            )
        if songs is not None and (learning_curve or not task_of(cache.table.task).decides_songs):
            why = "a learning curve is of segments" if learning_curve else "they need classes"
            raise BadOption(f"{features}: songs cannot be decided: {why}; leave --song-level out")
        head = settings.head()

        def once(with_seed: int | None, first: bool) -> Results:
            common: dict[str, Any] = {
                "k": k,
                "seed": with_seed,
                "permute_labels": permute_labels,
                "allow_leak": protocol == "shared",
                "models": models,
                "head": head,
                "stacked": settings.stacked and models is None,
                "missing_modality": settings.missing_modality,
                "refit": save and first,
            }
            made = evaluate(cache, temperature=settings.temperature and first, **common)
            return made if songs is None else song_level(made, rule=songs)

        results = once(seed, True)
        if repeats > 1:
            again = _repeats(cache, results, repeats, seed, once)
            results = with_repeats(results, again)
        results = with_uncertainty(results, n_resamples=settings.n_resamples)
        if learning_curve:
            results = with_learning_curve(cache, results, head)
        results = replace(
            results,
            provenance={
                **results.provenance,
                **provenance(features=features.name, settings=asdict(settings)),
                "stage_one": cache.provenance,
            },
        )
        out.mkdir(parents=True, exist_ok=True)
        if results.task.decides_songs:
            write_report(results, out)
            table = format_table(results)
        else:
            write_output_report(results, out)
            table = output_table(results)
        lines = [table, "", f"report: {out / 'report.html'}"]
        if save:
            save_heads(out / "heads.npz", results)
            lines.append(f"heads: {out / 'heads.npz'}")
    return "\n".join(lines)


def _repeats(
    cache: Cache,
    first: Results,
    repeats: int,
    seed: int | None,
    once: Callable[[int, bool], Results],
) -> list[Results]:
    """Further evaluations, each on folds that no other is on.

    Raises
    ------
    BadOption
        There are no such folds.
    """
    table, path = cache.table, cache.path
    if one_split(first):
        raise BadOption(
            f"{path}: --repeats needs other folds, but its clips have one split (holdout): "
            "evaluate once, or ask for --folds of frozen features"
        )
    if first.protocol == "crossfit":
        raise BadOption(
            f"{path}: --repeats needs other folds, but its nets are bound to theirs (crossfit): "
            "evaluate once, or extract with --protocol frozen"
        )
    own = first.k == table.k
    if own and table.fold_seed < 0:
        raise BadOption(
            f"{path}: --repeats needs other folds, but its manifest prescribes these: evaluate "
            f"once, or ask for another number of --folds than {table.k}"
        )
    # The first may be on the cache's own folds, whose seed is not that of the evaluation.
    with_seed = table.fold_seed if own and seed is None else first.seed
    found = [first]
    for _ in range(10 * repeats):
        if len(found) == repeats:
            break
        with_seed += 1
        made = once(with_seed, False)
        # Few groups can be dealt in few ways.
        dealt = partition(made.folds)
        if not any(np.array_equal(dealt, partition(other.folds)) for other in found):
            found.append(made)
    else:
        raise BadOption(
            f"{path}: --repeats {repeats} asks for more different folds than were found for "
            f"{len(set(table.groups))} groups in {first.k} folds: {len(found)}"
        )
    return found[1:]

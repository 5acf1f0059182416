"""Scores of predictions on clips that people judged: corrected, or confirmed as right."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse.final.clip_prediction import Caution, ClipPrediction
from mvemo.manifests import read_manifest
from mvemo.manifests.errors import MvemoError
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.models.boxed import LEAST_JUDGED

# A prediction, and a person's answer: names of classes or tags, or ratings by target.
Judged = tuple[ClipPrediction, tuple[str, ...] | dict[str, float]]


def judged_words(judged: Iterable[Judged]) -> str:
    """Return the score on judged clips with its 95 % interval; '' for too few clips.

    The score of ratings is Pearson's r with Fisher's interval; that of labels is the share of exact
    matches with the interval of Clopper & Pearson (1934). Training clips do not count.
    """
    known = [(found, label) for found, label in judged if Caution.TRAINED_ON not in found.cautions]
    n = len(known)
    if n < LEAST_JUDGED:
        return ""
    if isinstance(known[0][1], dict):
        return f"{', '.join(_r_words(t, known) for t in known[0][1])} on {n} of your judged clips"
    from scipy.stats import binomtest  # a slow import

    k = sum({*found.moods} == {*label} for found, label in known)
    low, high = (100 * end for end in binomtest(k, n).proportion_ci(method="exact"))
    share = f"{100 * k / n:.0f} %, 95 % interval {low:.0f} to {high:.0f} %"
    return f"right on {k} of {n} of your judged clips ({share})"


def _r_words(target: str, known: Iterable[tuple[ClipPrediction, Any]]) -> str:
    pairs = np.array([[found.ratings[target], label[target]] for found, label in known])
    if (np.ptp(pairs, axis=0) == 0).any():
        return f"no r for {target}, whose ratings are all the same"
    from scipy.stats import pearsonr

    found = pearsonr(*pairs.T)
    low, high = found.confidence_interval()
    return f"r {found.statistic:.2f} for {target} (95 % interval {low:.2f} to {high:.2f})"


def judged_in(
    works: Iterable[Path], predictions: Iterable[ClipPrediction], task: str
) -> Iterator[Judged]:
    """Yield the predictions with a person's confident judgement in these work folders."""
    labels: dict[str, Any] = {}
    for path in (work / "corrections.csv" for work in works if (work / "corrections.csv").exists()):
        try:
            manifest = read_manifest(path, media=False)
        except MvemoError as error:
            tell_note(f"{str(error).splitlines()[0]}: its judged clips do not count")
            continue
        for clip in manifest.clips if manifest.task == task else ():
            if dict(clip.extra).get("unsure") != "1":
                rated = dict(zip(manifest.classes, clip.label, strict=False))
                label = rated if task == "regression" else clip.label
                labels[os.path.realpath(manifest.media_path(clip))] = label
    for found in predictions:
        judged = labels.get(os.path.realpath(found.path))
        if found.is_predicted and judged is not None:
            yield found, judged

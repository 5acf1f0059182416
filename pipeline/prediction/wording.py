"""Text about predictions for people: table, legend, and score on judged clips.

A judged clip is one that a person corrected, or confirmed as right.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse.final.clip_prediction import Caution, ClipPrediction
from mvemo.fuse.final.formats import format_of, relative_cell
from mvemo.fuse.final.model import FinalModel
from mvemo.fuse.final.prediction_records import records
from mvemo.fuse.tasks import task_of
from mvemo.manifests import read_manifest
from mvemo.manifests.errors import MvemoError
from mvemo.manifests.text_table import align_columns, shown_name
from mvemo.pipeline.console.messages import tell_note, verbosity
from mvemo.pipeline.models import boxed

# Maximum number of columns between path and predictor in the terminal's table.
MOST_COLUMNS = 4
# A prediction, and a person's answer: names of classes or tags, or ratings by target.
Judged = tuple[ClipPrediction, tuple[str, ...] | dict[str, float]]


def predictions_table(
    model: FinalModel, predictions: Sequence[ClipPrediction], measured: str = ""
) -> str:
    """Return the text for the terminal: clips, notes without repeats, problems and a legend."""
    written, level = format_of(model), verbosity()
    n = sum(bool(prediction.relative) for prediction in predictions)
    header = [*written.header, *["relative"] * (n > 0)]
    rows = []
    # Files that a note applies to, by kind and text of the note.
    files = defaultdict[tuple[str, str], list[str]](list)
    for record in records(model, predictions):
        file = shown_name(record["path"])
        if "error" in record:
            files["not predicted", record["error"]].append(file)
            continue
        cells = [*written.cells(record), *[relative_cell(record)] * (n > 0)]
        rows.append([file, *cells, (record["model"] or "").partition("/")[2]])
        for note in record["notes"] if level != "quiet" else ():
            if level == "verbose" and note == Caution.UNLIKE.text:
                note += f" ({record['unlikeness']:.1f} times as far as nearly all of them)"
            files["note", note].append(file)
    notes = [
        f"{kind}: {of[0] if len(of) == 1 else f'{len(of)} clips, the first {of[0]}'}: {text}"
        for (kind, text), of in files.items()
    ]
    if not rows:
        return "\n".join(notes)
    lines = []
    if len(header) > MOST_COLUMNS:
        for file, *cells, predictor in rows:
            pairs = [(f"  {name}", cell) for name, cell in zip(header, cells, strict=True)]
            lines += [f"{file}  by {predictor}", *align_columns(pairs, left=(0, 1)), ""]
    else:
        left = {0, *range(1 + len(written.header), len(rows[0]))}
        left |= {1 + column for column in written.text_columns}
        lines += [*align_columns([["path", *header, "by"], *rows], left=left), ""]
    lines += [*notes, ""] if notes else []
    if level != "quiet":
        lines += legend(model, predictions, level == "normal", measured)
        lines += [f"relative: quadrant and ranks (0 to 1) among {n} clips of this call"] * (n > 0)
    return "\n".join(lines).rstrip("\n")


def legend(
    model: FinalModel,
    predictions: Sequence[ClipPrediction],
    brief: bool = False,
    measured: str = "",
) -> list[str]:
    """Return lines on the model, its scores and values; if `brief`, in plain words.

    `measured` is its score on judged clips, which replaces the expected score.
    """
    facts, lines = model.facts, []
    used = {p.predictor.name for p in predictions if p.predictor is not None}
    for predictor in (p for p in model.predictors if p.name in used):
        score, ends = boxed.score_cells(model.expected_of(predictor))
        if brief or predictor.expected.get("per_group"):
            lines.append(
                f"  by {predictor.name}: {boxed.expected_words(model, predictor, ends=not brief)}"
            )
        elif not score:
            lines.append(f"{predictor.name}: not evaluated separately; not calibrated")
        else:
            title, ends = task_of(model.task).primary_title, f" ({ends})" if ends else ""
            lines.append(
                f"{predictor.name}: {title} {score}{ends} on clips that it was not trained on, in "
                "cross-validation"
            )
    clips, groups = facts["n_clips"], facts["n_groups"]
    # If a coverage was asked for, the notes of the clips include this warning.
    promised = model.task == "regression" and model.coverage is None
    warnings = [model.few_groups(p.predictor) for p in predictions if promised and p.predictor]
    return [
        f"{model.name} was trained on {clips} clips. On "
        + ("your clips:" if measured else "new clips, expect:")
        if brief
        else f"model {model.name}: trained on {clips} clips of {groups} groups",
        *([f"  {measured}"] if measured else lines),
        *([] if brief else boxed.elsewhere_words(model)),
        *format_of(model).legend(brief),
        *dict.fromkeys(f"note: {few}" for few in warnings if few),
        *(f"note: {note}" for note in facts["notes"]),
    ]


def judged_words(judged: Iterable[Judged]) -> str:
    """Return the score on judged clips with its 95 % interval; '' for too few clips.

    The score of ratings is Pearson's r with Fisher's interval; that of labels is the share of exact
    matches with the interval of Clopper & Pearson (1934). Training clips do not count.
    """
    known = [(found, label) for found, label in judged if Caution.TRAINED_ON not in found.cautions]
    n = len(known)
    if n < boxed.LEAST_JUDGED:
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

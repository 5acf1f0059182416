"""Predictions of other programs, scored as if mvemo had cross-validated them.

The files do not state what a model was trained on; every report of them says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.fuse.crossval.evaluation import with_repeats
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.models import Model
from mvemo.fuse.results import OTHERS, Results, score_baseline, score_model, with_ceilings
from mvemo.fuse.tasks import task_of
from mvemo.fuse.tasks.prediction_columns import check_outputs
from mvemo.manifests import Manifest
from mvemo.manifests.annotators import disagreement_of
from mvemo.manifests.array_types import F64, Ints
from mvemo.manifests.labels import label_kind
from mvemo.manifests.splits.assignment import parts_of_groups
from mvemo.manifests.text_table import listed


@dataclass(frozen=True)
class Predictions:
    """The contents of one or more prediction files.

    Parameters
    ----------
    classes
        Names of the classes, tags or targets.
    clip_ids, groups
        Id and group of each clip; a clip without a group forms a new group.
    y_true
        Labels, as in `Results.y_true`.
    folds
        int64 (clips,): 0 to k - 1; -1 for clips that were not tested. All 0 if there are no folds.
    k
        Number of folds.
    outputs
        Model name to float64 (clips, classes); NaN rows where the model made no prediction.
    files
        Name and SHA-256 of each file.
    task
        ``multiclass``, ``multilabel`` or ``regression``.
    notes
        Sentences that state how the predictions were changed.
    repeats
        All evaluations, this one first, if there are several on different folds.
    """

    classes: tuple[str, ...]
    clip_ids: tuple[str, ...]
    groups: tuple[str, ...]
    y_true: NDArray[Any]
    folds: Ints
    k: int
    outputs: Mapping[str, F64]
    files: tuple[tuple[str, str], ...] = ()
    task: str = "multiclass"
    notes: tuple[str, ...] = ()
    repeats: tuple[Predictions, ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        """Describe the predictions in one line."""
        return f"<Predictions: {len(self.clip_ids)} clips, {self.task}: {listed([*self.outputs])}>"


def results_of_predictions(
    predictions: Predictions,
    *,
    name: str = "predictions",
    synthetic: bool = False,
    scale: str = "",
    provenance: Mapping[str, Any] | None = None,
    from_logits: bool = False,
) -> Results:
    """Score predictions, for the same report as an evaluation by mvemo.

    Clips that were not tested are not scored: the model may have been trained on them. The
    results are `leaky` if a group is in several folds, or has both tested clips and others.

    Parameters
    ----------
    predictions
        Predictions, as `read_predictions` returns them.
    name
        Name of the data set.
    synthetic
        True for generated clips, which the files do not state.
    scale
        Scale of valence and arousal, such as ``1..9``; empty if unknown.
    provenance
        JSON values to keep with the files' names and digests.
    from_logits
        True if `outputs` are logits instead of probabilities.

    Raises
    ------
    BadFeatures
        Outputs, labels, folds or ids are not as `Predictions` states; the message names the clip.

    Examples
    --------
    >>> import numpy as np
    >>> predictions = Predictions(
    ...     classes=("calm", "tense"), clip_ids=("a", "b"), groups=("a", "b"), k=1,
    ...     y_true=np.array([0, 1]), folds=np.array([0, 0]),
    ...     outputs={"net": np.array([[0.9, 0.1], [0.6, 0.4]])},
    ... )
    >>> results_of_predictions(predictions).models[0].scores["accuracy"]
    0.5
    """
    facts: dict[str, Any] = {"synthetic": synthetic, "scale": scale, "provenance": provenance}
    first, *others = (
        score_predictions(_checked(one, from_logits), name=name, **facts)
        for one in predictions.repeats or (predictions,)
    )
    return with_repeats(first, others) if others else first


def score_predictions(
    p: Predictions,
    *,
    name: str = "",
    synthetic: bool = False,
    scale: str = "",
    provenance: Mapping[str, Any] | None = None,
) -> Results:
    """Return `results_of_predictions` of one evaluation, without checking the predictions."""
    task = task_of(p.task).for_labels(p.classes, p.y_true, scale)
    tested = (p.folds >= 0)[:, None]
    labels = p.y_true, p.folds, p.k
    models = tuple(
        score_model(task, Model(model, (), ()), np.where(tested, outputs, np.nan), *labels)
        for model, outputs in p.outputs.items()
    )
    folds = parts_of_groups(zip(p.groups, p.folds.tolist(), strict=True))
    n_straddling = sum(len(of_group) > 1 for of_group in folds.values())
    return Results(
        name=name,
        task=task,
        classes=p.classes,
        clip_ids=p.clip_ids,
        groups=p.groups,
        y_true=p.y_true,
        folds=p.folds,
        k=p.k,
        seed=0,
        protocol=OTHERS,
        leaky=n_straddling > 0,
        synthetic=synthetic,
        permuted=False,
        models=models,
        baseline=score_baseline(task, *labels, len(p.classes)),
        provenance={
            "prediction_files": [{"name": file, "sha256": sha256} for file, sha256 in p.files],
            "prediction_notes": list(p.notes),
            "groups_in_several_folds": n_straddling,
            **(provenance or {}),
        },
    )


def with_manifest(results: Results, manifest: Manifest) -> Results:
    """Add what the manifest of the clips states: who predicted its labels, and their ceilings."""
    results = replace(results, predicted_by=manifest.predicted_by)
    disagreement = disagreement_of(manifest)
    if disagreement is None:
        return results
    row_of = {clip_id: row for row, clip_id in enumerate(manifest.clip_ids)}
    return with_ceilings(results, disagreement[[row_of[clip_id] for clip_id in results.clip_ids]])


def _checked(p: Predictions, from_logits: bool) -> Predictions:
    """Return predictions with checked probabilities, or raise `BadFeatures`."""
    task_of(p.task)
    kind, n, n_classes = label_kind(p.task), len(p.clip_ids), len(p.classes)
    for what, names in (("clip id", p.clip_ids), ("class", p.classes)):
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise BadFeatures(f"duplicate {what} {repeated[0]!r}")
    y_true, folds = np.asarray(p.y_true), np.asarray(p.folds)
    if n_classes == 1 and kind.numeric and y_true.shape == (n,):
        y_true = y_true[:, None]
    outputs = {model: np.asarray(values) for model, values in p.outputs.items()}
    if not outputs:
        raise BadFeatures("outputs: expected at least one model")
    shapes = {"groups": (n,), "folds": (n,), "y_true": kind.shape(n, n_classes)}
    arrays = {"groups": np.empty(len(p.groups)), "folds": folds, "y_true": y_true}
    for what, values in (arrays | {f"outputs of {m!r}": v for m, v in outputs.items()}).items():
        shape = shapes.get(what, (n, n_classes))
        if values.shape != shape or values.dtype.kind not in "biuf":
            got = f"{values.dtype} {values.shape}"
            raise BadFeatures(f"{what}: expected numbers in the shape {shape}, got {got}")
    wrong = np.flatnonzero(kind.invalid(y_true, n_classes))
    if len(wrong):
        top = n_classes - 1 if kind.exclusive else 1
        least = "finite numbers" if kind.numeric else f"0 to {top}"
        clip, got = p.clip_ids[wrong[0]], y_true[wrong[0]]
        raise BadFeatures(f"y_true of clip {clip!r}: expected {least}, got {got}")
    used = {*folds.tolist()} - {-1}
    if used != {*range(p.k)} or not used:
        listing = f"0 to {p.k - 1}, and -1 for clips that were not tested"
        raise BadFeatures(f"folds: expected each of {listing}, got {sorted(used)}")
    checked, n_divided = {}, 0
    for model, values in outputs.items():
        rows = []
        for clip, row in zip(p.clip_ids, values.astype(np.float64).tolist(), strict=True):
            place = f"clip {clip!r} of model {model!r}"
            numbers, divided = check_outputs(p.task, place, [*map(repr, row)], from_logits)
            rows.append(numbers)
            n_divided += divided
        checked[model] = np.array(rows)
    notes = (*p.notes, *divided_note(n_divided, n * len(outputs)))
    labels, folds = y_true.astype(kind.dtype), folds.astype(np.int64)
    return replace(p, y_true=labels, folds=folds, outputs=checked, notes=notes)


def divided_note(n_divided: int, n_rows: int) -> list[str]:
    """Return a note on rows of probabilities that were divided by their sum, if there are any."""
    note = (
        f"In {n_divided} of {n_rows} rows the probabilities do not sum to 1, because they are "
        "rounded: they were divided by their sum."
    )
    return [note] * bool(n_divided)

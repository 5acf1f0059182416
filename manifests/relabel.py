"""Labels that a person corrected, and the limit that annotators put on the scores of ratings."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mvemo.manifests.errors import BadManifest, MissingManifest, Problems, Report
from mvemo.manifests.labels import Label, label_kind
from mvemo.manifests.model import Manifest
from mvemo.manifests.recognition import DEVIATION
from mvemo.manifests.tables import format_names, plain_text, read_table

ANNOTATORS = "annotators"
CORRECTED = "corrected"


def format_label(label: Label, task: str) -> str:
    """Return a label in one cell: the class, or the tags or ratings separated by ``;``."""
    if label_kind(task).numeric:
        return ";".join(f"{float(value):.4g}" for value in label)
    return format_names([*map(str, label)], ";")


def relabel(manifest: Manifest, table: str | Path) -> tuple[Manifest, int]:
    """Return the manifest with a person's corrections, and the number of labels that changed.

    Parameters
    ----------
    manifest
        Clips with their labels so far.
    table
        CSV with the columns ``clip_id`` and ``corrected``, as ``mvemo labels --out`` writes it. A
        cell has one class, or tags or ratings separated by ``;``; ``[]`` stands for no tags. Rows
        with an empty cell change nothing.

    Raises
    ------
    BadManifest
        A row names an unknown clip or class, or a clip twice; the message names the row.

    Examples
    --------
    >>> import tempfile
    >>> from mvemo.manifests import Clip
    >>> table = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = table.write_text("clip_id,corrected\\na,\\nb,calm\\n")
    >>> clips = (Clip("a", "", ("calm",), "a"), Clip("b", "", ("tense",), "b"))
    >>> relabelled, changed = relabel(
    ...     Manifest("two", "multiclass", ("calm", "tense"), clips, Path()), table
    ... )
    >>> [clip.label for clip in relabelled.clips], changed
    ([('calm',), ('calm',)], 1)
    """
    path = Path(table)
    content, problems = read_table(path, error=BadManifest, missing=MissingManifest), Problems(path)
    header, known = content.header, {clip.clip_id for clip in manifest.clips}
    if missing := [name for name in ("clip_id", CORRECTED) if name not in header]:
        listing = ", ".join(map(repr, header))
        raise BadManifest(f"{path}: has no column {missing[0]!r}, only {listing}")
    labels: dict[str, Label] = {}
    for line, cells in content.full_rows(problems):
        row = dict(zip(header, map(plain_text, map(str.strip, cells)), strict=True))
        name = row["clip_id"]
        if not row[CORRECTED]:
            continue
        if name not in known:
            problems.add(line, f"unknown clip {name!r}: not in the manifest {manifest.name}")
        elif name in labels:
            problems.add(line, f"clip {name!r} is corrected twice")
        labels[name] = _parse(row[CORRECTED], manifest, problems.at(line))
    problems.raise_any()
    clips = tuple(replace(c, label=labels.get(c.clip_id, c.label)) for c in manifest.clips)
    changed = sum(a.label != b.label for a, b in zip(clips, manifest.clips, strict=True))
    return replace(manifest, clips=clips), changed


def _parse(cell: str, manifest: Manifest, report: Report) -> Label:
    kind, classes = label_kind(manifest.task), manifest.classes
    if not kind.numeric:
        names = kind.parse({"label": cell}, classes, report)
        return tuple(name for name in classes if name in names)
    values = cell.split(";")
    if len(values) != len(classes):
        report(f"expected {len(classes)} ratings ({'; '.join(classes)}), got {cell!r}")
        return ()
    return kind.parse(dict(zip(classes, values, strict=True)), classes, report)


@dataclass(frozen=True)
class Ceiling:
    """Best R2 that any model can have for one target, since annotators disagree."""

    target: str
    deviation: float  # of one annotator, in the target's unit (root of the mean variance)
    ratio: float  # mean variance of one annotator, over the variance of the targets
    annotators: float | None  # per clip (harmonic mean); None if unknown
    r2: float | None  # None if the number of annotators is unknown

    def sentence(self) -> str:
        """Return the ceiling as a sentence."""
        start = f"{self.target}: one annotator deviates by {self.deviation:.3g}"
        if self.r2 is None:
            return (
                f"{start}; the number of annotators is unknown, with N of them R2 cannot exceed "
                f"1 - {self.ratio:.3g} / N (give --annotators N)"
            )
        return f"{start}; with {self.annotators:.3g} annotators R2 cannot exceed {self.r2:.3f}"


def rating_ceilings(
    manifest: Manifest, clip_ids: Collection[str] | None = None, annotators: int | None = None
) -> list[Ceiling]:
    """Return the ceiling of R2 for each target whose deviations the manifest states.

    The mean of N annotators with the deviation s differs from what all people would say by a
    variance of s^2 / N. No model can predict this part, so R2 is at most 1 - mean(s^2 / N) over
    the variance of the targets (Spearman's correction for attenuation, with a perfect predictor).

    Parameters
    ----------
    manifest
        Clips with the columns ``TARGET deviation`` and, if known, ``annotators``.
    clip_ids
        Clips to take; None for all.
    annotators
        Number of annotators per clip where the manifest has no column for it.

    Raises
    ------
    BadManifest
        A deviation is not a number of 0 or more, or a number of annotators is below 1.
    """
    problems, found = Problems(Path(manifest.name)), []
    clips = [c for c in manifest.clips if clip_ids is None or c.clip_id in clip_ids]
    extras = [dict(clip.extra) for clip in clips]
    counts = _numbers(extras, ANNOTATORS, 1.0, problems)
    if annotators is not None:
        counts = np.where(np.isnan(counts), annotators, counts)
    for i, target in enumerate(manifest.classes if label_kind(manifest.task).numeric else ()):
        deviations = _numbers(extras, DEVIATION.format(target), 0.0, problems)
        known = np.isfinite(deviations)
        if not known.any():
            continue
        values = np.array([float(clip.label[i]) for clip in clips])[known]
        variance, squares = float(values.var()), np.square(deviations[known])
        r2 = n = None
        if variance > 0 and np.isfinite(counts[known]).all():
            n = float(1 / np.mean(1 / counts[known]))
            r2 = float(1 - np.mean(squares / counts[known]) / variance)
        ratio = float(squares.mean() / variance) if variance > 0 else np.inf
        found.append(Ceiling(target, float(np.sqrt(squares.mean())), ratio, n, r2))
    problems.raise_any()
    return found


def _numbers(
    extras: list[dict[str, str]], column: str, least: float, problems: Problems
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return a column as numbers, NaN for empty cells."""
    values = np.full(len(extras), np.nan)
    for i, cells in enumerate(extras):
        if cell := cells.get(column, "").strip():
            try:
                values[i] = float(cell)
            except ValueError:
                problems.add(0, f"{column} {cell!r} is not a number")
            if values[i] < least:
                problems.add(0, f"{column}: expected a number from {least:g} on, got {cell!r}")
    return values

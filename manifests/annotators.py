"""Labels by several annotators: their mean or majority, and the limit that they put on scores."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from statistics import multimode
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mvemo.manifests.array_types import F64
from mvemo.manifests.cells import are_numbers, parse_number, to_numbers
from mvemo.manifests.clip_rows import Row, must_agree
from mvemo.manifests.errors import Problems
from mvemo.manifests.labels import Label, LabelKind, label_kind
from mvemo.manifests.model import Manifest

# Columns of a manifest in addition to those of `Clip`.
ANNOTATOR = "annotator"  # the person who gave the label of the row
ANNOTATORS = "annotators"  # number of people behind the label of the clip
DEVIATION = "{} deviation"  # standard deviation of one annotator's rating of a target
AGREEMENT = "agreement"  # mean agreement of one annotator with the majority of the others
VOTES = "{} votes"  # number of annotators who gave a class
RESIDUAL = "{} residual deviation"  # deviation without the mean difference between annotators

Extra = list[tuple[str, str]]


def mean_label(targets: Sequence[str], ratings: ArrayLike) -> tuple[Label, Extra]:
    """Return the mean of ratings (annotators, targets), their deviations and their number.

    NaN stands for a missing rating. The number is that of the target with the fewest ratings.
    """
    values = np.ascontiguousarray(np.transpose(ratings), np.float64)
    given = [column[np.isfinite(column)] for column in values]
    extra: Extra = [
        (DEVIATION.format(name), f"{column.std(ddof=1):.4g}")
        for name, column in zip(targets, given, strict=True)
        if len(column) > 1
    ]
    label = tuple(float(column.mean()) if len(column) else np.nan for column in given)
    return label, [*extra, (ANNOTATORS, str(min(map(len, given))))]


def majority_label(votes: Sequence[str]) -> tuple[Label, Extra]:
    """Return the most frequent class (the alphabet decides ties), and the mean agreement.

    An annotator whose class is the most frequent one among the others has an agreement of 1, or of
    1 / m if m classes are equally frequent among the others; all other annotators have 0.
    """
    counts, agreement = Counter(votes), 0.0
    for name, count in counts.items():
        others = {**counts, name: count - 1}
        most = max(others.values())
        if others[name] == most:
            agreement += count / list(others.values()).count(most)
    label = min(counts, key=lambda name: (-counts[name], name))
    extra, number = Extra(), (ANNOTATORS, str(len(votes)))
    if len(votes) > 1:
        extra = [(VOTES.format(name), str(n)) for name, n in sorted(counts.items())]
        extra = [(AGREEMENT, f"{agreement / len(votes):.4g}"), number, *extra]
    return (label,), extra or [number]


def nominal_alpha(votes: Iterable[Sequence[str] | Mapping[Any, float]]) -> float:
    """Return Krippendorff's alpha of the classes, or the votes by class, given to each clip.

    1 minus observed over expected disagreement (Krippendorff 2011, Computing Krippendorff's
    Alpha-Reliability, section C); clips with one vote do not count. NaN without any variation.
    """
    of_clips: list[Counter[Any]] = [c for c in map(Counter, votes) if sum(c.values()) > 1]
    totals = sum(of_clips, Counter[Any]())
    n = sum(totals.values())

    def unequal_pairs(counts: Mapping[str, int]) -> int:
        return sum(counts.values()) ** 2 - sum(count**2 for count in counts.values())

    observed = sum(unequal_pairs(counts) / (sum(counts.values()) - 1) for counts in of_clips)
    expected = unequal_pairs(totals)
    return 1 - (n - 1) * observed / expected if expected else float("nan")


def interval_alpha(means: F64, deviations: F64, counts: F64) -> float:
    """Return Krippendorff's alpha of ratings with squared differences (section C, interval data).

    The arguments are float64 (clips,): mean, standard deviation (n - 1) and number of each clip's
    ratings, from which the sums of squared differences follow. NaN without any variation.
    """
    several = (counts > 1) & np.isfinite(means) & np.isfinite(deviations)
    m, variances, x = counts[several], np.square(deviations[several]), means[several]
    n = m.sum()
    if not n:
        return float("nan")
    squares = ((m - 1) * variances).sum() + (m * np.square(x - np.average(x, weights=m))).sum()
    return float(1 - (n - 1) * (m * variances).sum() / (n * squares)) if squares else float("nan")


def two_way_icc(means: F64, deviations: F64, residuals: F64, k: float) -> tuple[float, float]:
    """Return ICC(2,1) and ICC(2,k), the absolute agreement of one and of k annotators.

    Annotators who all rated all clips are a random sample (Shrout & Fleiss 1979, Intraclass
    Correlations: Uses in Assessing Rater Reliability, case 2). float64 (clips,) as `RESIDUAL`.
    """
    n, within = len(means), np.square(deviations).sum()
    of_clips, error = k * means.var(ddof=1), np.square(residuals).sum() / (n - 1)
    of_annotators = within - error * (n - 1)
    bias, gain = (of_annotators - error) / n, of_clips - error
    return float(gain / (of_clips + (k - 1) * error + k * bias)), float(gain / (of_clips + bias))


def _residual_deviations(targets: Sequence[str], clips: Sequence[Sequence[Row]]) -> list[Extra]:
    """Return each clip's cells of `RESIDUAL`; no cells if an annotator did not rate all clips."""
    given = [{dict(row.extra)[ANNOTATOR]: row.label for row in rows} for rows in clips]
    people = given[0].keys()
    if any(one.keys() != people for one in given):
        return [[] for _ in clips]
    values = np.array([[one[name] for name in people] for one in given], np.float64)
    values -= values.mean(axis=1, keepdims=True)
    deviations = (values - values.mean(axis=0)).std(axis=1) * np.sqrt(1 + 1 / (len(people) - 1))
    cells = [zip(map(RESIDUAL.format, targets), row, strict=True) for row in deviations.tolist()]
    return [[(name, f"{x:.6g}") for name, x in of_clip if np.isfinite(x)] for of_clip in cells]


def with_annotators(manifest: Manifest, number: int) -> Manifest:
    """Return the manifest with a number of annotators for clips that do not state one."""
    clips = []
    for clip in manifest.clips:
        extra = {ANNOTATORS: f"{number}", **dict(clip.extra)}
        extra[ANNOTATORS] = extra[ANNOTATORS] or f"{number}"
        clips.append(replace(clip, extra=tuple(extra.items())))
    return replace(manifest, clips=tuple(clips))


def merge_annotators(
    rows: Sequence[Row],
    kind: LabelKind,
    classes: Sequence[str],
    problems: Problems,
    skip: bool = False,
) -> tuple[list[Row], list[str]]:
    """Return one row for each clip whose rows differ in the annotator, and notes on them.

    Blank labels do not count. A clip with only blank labels is a problem, or left out with `skip`.
    """
    by_clip: dict[Any, list[Row]] = {}
    for row in rows:
        by_clip.setdefault(_clip(row), []).append(row)
    names = classes if kind.numeric else ["class"]
    if len(by_clip) == len(rows):
        return _labelled(rows, names, problems, skip), []
    people = [dict(row.extra)[ANNOTATOR] for row in rows]
    first: dict[Any, Row] = {}
    for row, name in zip(rows, people, strict=True):
        other = first.setdefault((_clip(row), name), row)
        if not name:
            problems.add(row.line, "empty annotator: name the person, or leave the row out")
        elif other is not row:
            problems.add(row.line, f"annotator {name!r} repeats the clip of line {other.line}")
    for name in ("path", "start", "duration", "group", "fold", "split"):
        message = f"its {name} differs from that of the same clip in line {{other.line}}"
        must_agree(rows, _clip, name, message, problems)
    if problems.found:
        return _labelled([of_clip[0] for of_clip in by_clip.values()], names, problems, skip), []
    merged, n_ties, n_blank, more = [], 0, 0, [Extra() for _ in by_clip]
    if kind.numeric:
        more = _residual_deviations(classes, [*by_clip.values()])
    for of_clip, residual in zip(by_clip.values(), more, strict=True):
        labels = [row.label for row in of_clip]
        n_blank += sum(bool(_blank(one, names)) for one in labels)
        votes = [str(one[0]) for one in labels if one]
        label, new = mean_label(classes, labels) if kind.numeric else majority_label(votes)
        n_ties += not kind.numeric and len(multimode(votes)) > 1
        extra = _merge_extra([dict(row.extra) for row in of_clip])
        extra = [item for item in extra if item[0] not in {ANNOTATOR, *dict(new)}]
        merged.append(replace(of_clip[0], label=label, extra=(*extra, *new, *residual)))
    what = "means" if kind.numeric else "majorities"
    notes = [f"labels: {what} of {len(rows)} rows by {len({*people})} annotators"]
    if not kind.numeric:
        given = [[str(row.label[0]) for row in clip if row.label] for clip in by_clip.values()]
        notes[0] += f", Krippendorff's alpha {nominal_alpha(given):.3f} (nominal)"
    if n_ties:
        notes.append(f"{n_ties} clips have a tie: their class is the first in alphabetical order")
    if n_blank:
        notes.append(f"{n_blank} rows have a blank label or rating, which does not count")
    labelled = _labelled(merged, names, problems, skip)
    if len(labelled) < len(merged):
        notes.append(f"{len(merged) - len(labelled)} clips without a label are left out")
    return labelled, notes


def _blank(label: Label, names: Sequence[str]) -> list[str]:
    """Return the names of the targets, or of the class, that a label lacks."""
    pairs = zip_longest(names, label)
    return [name for name, value in pairs if value is None or value != value]


def _labelled(
    rows: Sequence[Row], names: Sequence[str], problems: Problems, skip: bool
) -> list[Row]:
    """Return the rows with a complete label; the others are problems unless `skip` is True."""
    blank = {id(row): _blank(row.label, names) for row in rows}
    for row in [] if skip or problems.found else rows:
        if blank[id(row)]:
            listed = " and ".join(blank[id(row)])
            cure = "leave the clip out with 'mvemo manifest import --skip-unlabelled'"
            problems.add(row.line, f"nobody gave the {listed} of this clip: {cure}")
    return [row for row in rows if not blank[id(row)]]


def _merge_extra(rows: Sequence[Mapping[str, str]]) -> Extra:
    """Return the other facts of a clip's rows: the mean of numbers, the most frequent text."""
    merged = Extra()
    for name in rows[0]:
        cells = [row[name] for row in rows if row[name]]
        if len({*cells}) > 1 and are_numbers(cells):
            cells = [f"{np.mean(to_numbers(cells)):.6g}"]
        merged.append((name, min(multimode(cells), default="")))
    return merged


def _clip(row: Row) -> Any:
    return row.clip_id or (row.path, row.start)


def disagreement_of(manifest: Manifest) -> F64 | None:
    """Return each clip's number of annotators and their disagreement, float64 (clips, 1 + n).

    The disagreement on ratings is `DEVIATION` for each target and, if known, `RESIDUAL` for each
    target. That on classes is the share of annotators who do not agree with the majority and, if
    known, the number of votes for each class. NaN stands for an unknown value. Return None if
    there is no disagreement; raise `BadManifest` for cells that are not such numbers.
    """
    kind = label_kind(manifest.task)
    names = [DEVIATION.format(name) for name in manifest.classes] if kind.numeric else [AGREEMENT]
    known = {name for clip in manifest.clips for name, _ in clip.extra}
    if not (kind.numeric or kind.exclusive) or not known & {*names}:
        return None
    if not kind.numeric and ANNOTATORS not in known:
        # Without the number of annotators, a column of this name may mean something else.
        return None
    more = [(RESIDUAL if kind.numeric else VOTES).format(name) for name in manifest.classes]
    names = [ANNOTATORS, *names, *more * bool(known & {*more})]
    found = np.full((len(manifest), len(names)), np.nan)
    problems = Problems(Path(manifest.name))
    report = problems.at(0)
    for i, clip in enumerate(manifest.clips):
        cells = dict(clip.extra)
        for j, name in enumerate(names):
            low, high = float(name == ANNOTATORS), 1.0 if name == AGREEMENT else np.inf
            if cell := cells.get(name, "").strip():
                where = f"clip {clip.clip_id!r}: {name}"
                found[i, j] = value = parse_number(cell, where, report)
                if value < low or value > high:
                    wanted = f"{low:g} or more" if high == np.inf else f"{low:g} to {high:g}"
                    report(f"{where}: expected {wanted}, got {cell!r}")
    problems.raise_any()
    if not kind.numeric:
        found[:, 1] = 1 - found[:, 1]
        # If a scheme replaced classes, some votes are missing, and the clip's votes are not used.
        whole = np.nansum(found[:, 2:], axis=1) == found[:, 0]
        found[:, 2:] = np.where(whole[:, None], np.nan_to_num(found[:, 2:]), np.nan)
    return found


@dataclass(frozen=True)
class Ceiling:
    """Best scores that a model can have for one target, or one annotator's for classes."""

    target: str  # empty for classes
    clips: int  # number of clips whose annotators' disagreement is known
    annotators: float | None  # per clip (harmonic mean); None if unknown
    deviation: float | None = None  # of one annotator (root of the mean variance)
    ratio: float | None = None  # mean variance of one annotator, over the variance of the labels
    alpha: float | None = None  # Krippendorff's, of single annotators; None if it is not known
    icc: tuple[float, float] | None = None  # `two_way_icc`, if all annotators rated all clips
    scores: Mapping[str, float] = field(default_factory=dict)  # score -> its ceiling, if known

    def record(self) -> dict[str, Any]:
        """Return the ceiling as JSON values; each score has a key of its own."""
        facts = asdict(self)
        return facts | facts.pop("scores")

    def sentence(self) -> str:
        """Return the ceiling as a sentence."""
        agree = "" if self.alpha is None else f"; Krippendorff's alpha {self.alpha:.3f}"
        agree += ", ICC(2,1) {:.3f}, ICC(2,k) {:.3f}".format(*self.icc) if self.icc else ""
        if "accuracy" in self.scores:
            share = f"{100 * self.scores['accuracy']:.1f} % of {self.clips} clips"
            return f"one annotator: agrees with the majority for {share}{agree}"
        start = f"{self.target}: one annotator deviates by {self.deviation:.3g}"
        if not self.scores and self.annotators is not None:
            return f"{start}; no ceiling is defined, because all labels are equal"
        if not self.scores:
            return (
                f"{start}; the number of annotators is unknown, with N of them R2 cannot exceed "
                f"1 - {self.ratio:.3g} / N (give --annotators N to mvemo manifest import or scan)"
            )
        ends = "R2 cannot exceed {r2:.3f}, r {pearson_r:.3f}".format(**self.scores)
        return f"{start}; with {self.annotators:.3g} annotators {ends}{agree}"


def ceilings_of(
    task: str,
    names: Sequence[str],
    labels: NDArray[Any],
    disagreement: F64,
    annotators: int | None = None,
) -> tuple[Ceiling, ...]:
    """Return the ceiling of each target whose deviations are known, or that of the classes.

    The mean of N annotators with the deviation s differs from what all people would say by a
    variance of s^2 / N, if annotators err independently. No model can predict this part: R2 is at
    most 1 - mean(s^2 / N) / var(labels), the reliability of the labels, and r at most its root
    (Spearman 1904, The Proof and Measurement of Association between Two Things, correction for
    attenuation, with a perfect predictor). For classes it is the mean agreement of one annotator
    with the majority: no strict limit, but a model above it agrees more than people do.
    `disagreement` has the rows of `labels`; `annotators` is their number where it is unknown.
    """
    kind, found = label_kind(task), []
    counts = np.where(np.isnan(disagreement[:, 0]), annotators or np.nan, disagreement[:, 0])
    for i, target in enumerate(names if kind.numeric else ("",)):
        known = np.isfinite(disagreement[:, 1 + i])
        if not known.any():
            continue
        values, n_clips, inverse = disagreement[known, 1 + i], int(known.sum()), 1 / counts[known]
        n = float(1 / inverse.mean()) if np.isfinite(inverse).all() else None
        if not kind.numeric:
            cast = disagreement[known, 2:]
            rows = cast[np.isfinite(cast).all(axis=1)].tolist()
            alpha = _finite(nominal_alpha(dict(enumerate(row)) for row in rows))
            accuracy = {"accuracy": float(1 - values.mean())}
            found.append(Ceiling(target, n_clips, n, alpha=alpha, scores=accuracy))
            continue
        squares, variance, scores = np.square(values), float(labels[known, i].var()), {}
        if variance > 0 and n is not None:
            r2 = max(0.0, 1 - float(np.mean(squares * inverse)) / variance)
            scores = {"r2": r2, "pearson_r": r2**0.5}
        deviation = float(np.sqrt(squares.mean()))
        ratio = float(squares.mean()) / variance if variance > 0 else np.inf
        alpha = _finite(interval_alpha(labels[known, i], values, counts[known]))
        icc, left = None, disagreement[known, 1 + len(names) + i :][:, :1].ravel()
        if len(left) > 1 and n is not None and np.isfinite(left).all() and variance > 0:
            icc = two_way_icc(labels[known, i], values, left, n)
        found.append(Ceiling(target, n_clips, n, deviation, ratio, alpha, icc, scores))
    return tuple(found)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None

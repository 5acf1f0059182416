"""Audit of features: faults of data that make scores too good or too bad.

The audit reads features and labels only; it fits small models inside folds that keep groups
whole. Features of nets that were trained on the clips know the labels of their training clips,
so they are compared with each other but not with the labels.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TypedDict

import numpy as np

from mvemo.cache import ClipTable, open_cache
from mvemo.fuse.features import PLAIN, Clips, Features, FeatureSettings, Matrix
from mvemo.fuse.leaks import MOST_FITTED, Knowledge, group_means, knowledge, rows_mismatch
from mvemo.fuse.near_pairs import COLUMNS, ROWS, near_rows, repeated_columns
from mvemo.fuse.numeric import codes_of
from mvemo.fuse.scaling import MIN_CLIPS, Scaling, fit_scaling, row_blocks
from mvemo.fuse.stores import FeatureStore
from mvemo.fuse.tasks import task_of
from mvemo.manifests import read_manifest
from mvemo.manifests.array_types import F32, F64, Bools, Ints
from mvemo.manifests.labels import UNLABELLED
from mvemo.manifests.layouts.file_names import source_of_piece
from mvemo.manifests.text_table import Tabular, listed

# Standard deviations of columns that differ by more than this factor have different units.
UNITS = 1e6
# A batch effect: groups explain this share of the variance, and this many times the labels' share.
BATCH = 0.1
BATCH_RATIO = 2.0
FOLDS = 6
# Outliers (`fit_scaling`) among vectors that are compared with each other.
VERY_FAR = 50.0
# Minimum number of clips to audit a feature, and maximum number for measuring its `Knowledge`.
FEWEST, MOST_SCORED = 20, 20_000
# Chance probability below which labels are related to a feature.
BY_CHANCE = 0.01
# A row is shifted if its log-likelihood ratio exceeds SURELY + log(number of rows) and MIRRORED
# times minus the median ratio, and if at least the share CELLS of its cells fits better.
SURELY, MIRRORED, CELLS = 10.0, 0.5, 0.5
_REMOVE = "--exclude {0}, or import it again without them (--skip-columns)"
_JOIN = "--merge-groups joins their groups, --drop-duplicates keeps one of them"
# Remedy for each kind of fault; {0} stands for the feature.
CURES = {
    "shifted-rows": "correct the rows of the table, and import it again",
    "outlier": "look at the clips; they are not used for scaling",
    "constant": _REMOVE,
    "duplicate-columns": _REMOVE,
    "units": _REMOVE,
    "duplicate-across-groups": _JOIN,
    "duplicate-across-splits": _JOIN,
    "label-conflict": "correct the labels: see 'mvemo labels'",
    "label-leakage": "--exclude {0}, unless you know how it was made",
    "rows-mismatch": "check the order of rows in the files of features and labels",
    "batch-effect": "keep groups whole, and try --set fuse.within_groups=true",
    "source-across-groups": "--merge-groups joins their groups",
    "source-across-splits": "put the clips of a source into one split, or test without these clips",
}
# Rows of a fault that concerns all clips.
NO_ROWS: Ints = np.zeros(0, np.int64)
Pairs = tuple[tuple[str, str], ...]


class FindingRecord(TypedDict):
    """Fault of the data as JSON values, see `Finding`."""

    kind: str
    feature: str
    clips: list[str]
    message: str
    cure: str


@dataclass(frozen=True)
class Finding:
    """One fault of the data: its kind, the clips, a sentence, and the cure."""

    kind: str  # such as ``duplicate-across-groups``
    feature: str  # empty for a fault of the labels or groups
    clips: tuple[str, ...]  # ids; empty if the fault concerns all clips
    message: str
    cure: str
    pairs: Pairs = field(default=(), repr=False)  # clips with equal or similar vectors

    def record(self) -> FindingRecord:
        """Return the finding as JSON values."""
        return FindingRecord(
            kind=self.kind,
            feature=self.feature,
            clips=list(self.clips),
            message=self.message,
            cure=self.cure,
        )


class Findings(Tabular, tuple[Finding, ...]):
    """Findings of an audit, shown as a table in notebooks."""

    def caption(self) -> str:
        """Return the number of findings as text."""
        return f"{len(self)} faults of the data"

    def records(self) -> list[FindingRecord]:
        """Return the findings as JSON values."""
        return [finding.record() for finding in self]


def first_of_each(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Map each name in `pairs` to the first name that it is connected with by pairs."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    names = list(dict.fromkeys(name for pair in pairs for name in pair))
    number = {name: i for i, name in enumerate(names)}
    a, b = np.array([[number[x], number[y]] for x, y in pairs], np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(a)), (a, b)), (len(names), len(names)))
    component = connected_components(graph, directed=False)[1].tolist()
    first: dict[int, str] = {}
    return {name: first.setdefault(of, name) for name, of in zip(names, component, strict=True)}


def label_blocks(table: ClipTable, findings: Iterable[Finding]) -> Ints:
    """Return the number of each clip's block, int64 (clips,), from the findings of an audit."""
    of_group = [
        (clip, f"group {group}") for clip, group in zip(table.clip_ids, table.groups, strict=True)
    ]
    alike = chain.from_iterable(f.pairs for f in findings if f.kind.endswith("-across-groups"))
    first = first_of_each([*of_group, *alike])
    return codes_of([first[clip] for clip in table.clip_ids])


def audit_cache(
    store: FeatureStore, splits: Mapping[str, str] | None = None, settings: FeatureSettings = PLAIN
) -> Findings:
    """Look for faults of the data in features of clips.

    `splits` maps clips to ``train``, ``val`` or ``test``; by default as the table does. Features
    larger than the `memory` of the settings are not audited.
    """
    table = store.table
    if splits is None and table.splits is not None:
        names = [("train", "val", "test")[i] for i in table.splits]
        splits = dict(zip(table.clip_ids, names, strict=True))
    features = Features(store, settings)
    if features.streamed:
        return Findings()
    audit = _Audit(store, features, splits)
    findings = [
        finding
        for name in features.modality
        for finding in audit.feature(name, features.raw_matrix(name, 0))
    ]
    return Findings((*findings, *audit.leakage(), *audit.sources(), *audit.few_groups()))


def audit_file(features: str | Path, manifest: str | Path | None = None) -> Findings:
    """Audit a feature file or a folder of shards, with the column ``split`` of a manifest."""
    splits = None
    if manifest is not None:
        splits = {c.clip_id: c.split or "" for c in read_manifest(manifest, media=False).clips}
    with open_cache(features) as cache:
        return audit_cache(cache, splits)


class _Audit:
    """Labels, groups and folds that all features are compared with."""

    def __init__(
        self, store: FeatureStore, features: Features, splits: Mapping[str, str] | None
    ) -> None:
        table = self.table = store.table
        self.features, self.splits = features, splits
        self.group = codes_of(table.groups)
        self.is_numeric = table.task == "regression"
        self.k = table.k or min(FOLDS, int(self.group.max()) + 1)
        self.known: dict[str, Knowledge] = {}
        self.compared: dict[str, tuple[F32, Ints]] = {}
        # If no clip has a tag, there are no names of tags.
        self.labelled = table.task != UNLABELLED and table.labels.size > 0
        if self.labelled:
            task, folds = task_of(table.task), table.folds
            y_true = task.read_labels(table.labels)
            clips = Clips(task, y_true, table.groups, folds, len(table.classes))
            self.y: F64 = (y_true if self.is_numeric else clips.target.T).astype(np.float64)
            self.means = group_means(self.y, self.group)
            everything = np.ones(len(table), np.bool_)
            self.folds = folds if table.k else clips.folds_of(everything, self.k)

    def ids(self, rows: Ints) -> tuple[str, ...]:
        return tuple(self.table.clip_ids[row] for row in rows.tolist())

    def finding(
        self, kind: str, name: str, rows: Ints, message: str, pairs: Pairs = (), cure: str = ""
    ) -> Finding:
        """Return a fault of a feature, or of the labels or groups if `name` is empty."""
        text = f"{name}: {message}" if name else message
        return Finding(kind, name, self.ids(rows), text, cure or CURES[kind].format(name), pairs)

    def feature(self, name: str, matrix: Matrix) -> Iterator[Finding]:
        """Yield the findings of one feature."""
        rows = np.flatnonzero(matrix.present)
        if len(rows) < FEWEST:
            return
        values = np.asarray(matrix.values)
        values = values if matrix.present.all() else values[rows]
        scaling, far = fit_scaling(values, np.ones(len(rows), np.bool_))
        constant = values.min(axis=0) == values.max(axis=0)
        protocols = {spec.protocol for spec in self.features.variants[name]}
        if protocols == {"imported"}:
            # Nets of mvemo may have units that never fire, which is no fault of the data.
            yield from self._columns(name, values, far, scaling.scale)
            if (shifted := shifted_rows(values)).any():
                which = f"the values of {shifted.sum()} of {len(rows)} clips"
                message = f"{which} are one column to the left or right of where they belong"
                yield self.finding("shifted-rows", name, rows[shifted], message)
        if far.any():
            message = f"{far.sum()} of {len(rows)} clips are far from all others"
            yield self.finding("outlier", name, rows[far], message)
        yield from self._duplicates(name, values, rows)
        trained = protocols - {"frozen", "imported", "none"}
        if self.labelled and not constant.all() and not trained:
            step = -(-len(rows) // MOST_SCORED)
            z = scaling.apply(values[::step])[:, ~constant]
            few = rows[::step]
            if self.k > 1:
                known = knowledge(
                    z, self.y[few], self.means[few], self.folds[few], numeric=self.is_numeric
                )
                derived = np.zeros(len(constant), np.bool_)
                derived[~constant] = known.columns
                self.known[name] = known._replace(columns=derived)
            step = -(-len(z) // MOST_FITTED)
            self.compared[name] = z[::step].copy(), few[::step]
            yield from self._batches(name, values, scaling, rows)

    def _columns(self, name: str, values: F32, far: Bools, scale: F64) -> Iterator[Finding]:
        constant = values.min(axis=0) == values.max(axis=0)
        faults = [("constant", constant, "are constant")]
        if not constant.all():
            repeated = repeated_columns(values, far)
            faults += [("duplicate-columns", repeated, "equal another column or a multiple")]
            other_unit = ~constant & (scale > UNITS * np.median(scale[~constant]))
            faults += [("units", other_unit, "have values of another size")]
        for kind, mask, fault in faults:
            if mask.any():
                message = f"{mask.sum()} of {len(mask)} columns {fault}: {_numbers(mask)}"
                yield self.finding(kind, name, NO_ROWS, message)

    def _duplicates(self, name: str, values: F32, rows: Ints) -> Iterator[Finding]:
        # Rows whose columns are all at their minimum (silence) are equal without being copies.
        least = values.min(axis=0)
        told = np.concatenate([(part > least).any(axis=1) for part in row_blocks(values)])
        if not told.all():
            values, rows = values[told], rows[told]
        if len(rows) < FEWEST:
            return
        near = near_rows(values, self.group[rows], VERY_FAR)
        if not len(near.pairs):
            return
        pairs = rows[near.pairs]
        n_equal, n_near = len(near.rows(equal=True)), len(near.rows())
        alike = (
            f"equal or nearly equal vectors (cosine above {near.threshold:.4f}, which random "
            "pairs hardly reach)"
        )
        message = (
            f"{n_near} of {len(rows)} clips have {alike} in another group; {n_equal} of them "
            "equal ones"
        )
        names = tuple((self.table.clip_ids[a], self.table.clip_ids[b]) for a, b in pairs.tolist())
        yield self.finding("duplicate-across-groups", name, np.unique(pairs), message, names)
        if self.splits is not None:
            split = np.array([self.splits.get(clip, "") for clip in self.table.clip_ids])[pairs]
            crossing = split[:, 0] != split[:, 1]
            if crossing.any():
                message = (
                    f"{crossing.sum()} pairs of clips in different splits have {alike}; "
                    f"{(crossing & near.equal).sum()} of them equal ones"
                )
                across = np.unique(pairs[crossing])
                yield self.finding("duplicate-across-splits", name, across, message)
        if self.labelled:
            apart = np.abs(self.y[pairs[:, 0]] - self.y[pairs[:, 1]]).max(axis=1)
            apart = apart > (2 * self.y.std(axis=0).max() if self.is_numeric else 0.5)
            if apart.any():
                message = f"{apart.sum()} pairs of clips with different labels have {alike}"
                yield self.finding("label-conflict", name, np.unique(pairs[apart]), message)

    def leakage(self) -> Iterator[Finding]:
        """Yield features made from the labels, and features whose rows do not match the labels."""
        for name, known in self.known.items():
            if not known.columns.any() and not known.made:
                continue
            facts = []
            if known.columns.any():
                n, numbers = known.columns.sum(), _numbers(known.columns)
                facts.append(
                    f"labels explain up to {known.column:.1%} of the variance of {n} of "
                    f"{len(known.columns)} columns ({numbers})"
                )
            if known.made:
                facts.append(f"all columns explain up to {known.block:.1%} of a label's")
            message = (
                f"{' and '.join(facts)} on clips of other groups, as only values made from the "
                "labels do"
            )
            yield self.finding("label-leakage", name, NO_ROWS, message)
        related = not self.labelled or any(
            known.chance < BY_CHANCE for known in self.known.values()
        )
        if names := () if related else rows_mismatch(self.compared, self.y):
            message = (
                f"the labels are unrelated to every feature, but {listed(names)} agree with each "
                "other: the rows may belong to other clips than the labels"
            )
            yield self.finding("rows-mismatch", "", NO_ROWS, message)

    def _batches(self, name: str, values: F32, scaling: Scaling, rows: Ints) -> Iterator[Finding]:
        group = codes_of(self.group[rows])
        sizes = np.bincount(group)
        if len(sizes) < 2 or np.median(sizes) < MIN_CLIPS:
            return
        y = self.y[rows]
        order = np.argsort(group, kind="stable")
        starts = np.cumsum(sizes) - sizes
        varies = np.maximum.reduceat(y[order], starts) != np.minimum.reduceat(y[order], starts)
        if varies.any(axis=1).mean() < 0.5:
            # Each group has one label, so groups and labels cannot be told apart.
            return
        design = np.column_stack([np.ones(len(y)), y[:, : y.shape[1] - (not self.is_numeric)]])
        basis, size, _ = np.linalg.svd(design, full_matrices=False)
        basis = basis[:, size > 1e-10 * size[0]]
        total = of_groups = of_labels = 0.0
        for start in range(0, values.shape[1], COLUMNS):
            columns = slice(start, start + COLUMNS)
            part = replace(scaling, shift=scaling.shift[columns], scale=scaling.scale[columns])
            centred = part.apply(values[order, columns]).astype(np.float64)
            centred -= centred.mean(axis=0)
            total += np.square(centred).sum()
            of_groups += np.square(np.add.reduceat(centred, starts)).sum(axis=1) @ (1 / sizes)
            of_labels += np.square(basis[order].T @ centred).sum()
        shares = [
            1 - (1 - part / total) * (len(y) - 1) / max(1, len(y) - n)
            for part, n in ((of_groups, len(sizes)), (of_labels, design.shape[1]))
        ]
        if shares[0] > BATCH and shares[0] > BATCH_RATIO * max(shares[1], 0.0):
            message = (
                f"groups explain {shares[0]:.0%} of the variance, labels {shares[1]:.0%}: "
                "the feature tells groups apart better than labels"
            )
            yield self.finding("batch-effect", name, NO_ROWS, message)

    def sources(self) -> Iterator[Finding]:
        """Yield clips whose names tell that one source was cut across several groups or splits."""
        pieces: dict[str, list[int]] = {}
        for row, clip in enumerate(self.table.clip_ids):
            if source := source_of_piece(clip.partition("@")[0]):
                pieces.setdefault(source, []).append(row)
        splits = [(self.splits or {}).get(clip, "") for clip in self.table.clip_ids]
        for what, of in (("groups", self.table.groups), ("splits", splits)):
            apart = [rows for rows in pieces.values() if len({of[row] for row in rows}) > 1]
            if apart:
                rows = np.sort(np.concatenate(apart))
                ids = self.table.clip_ids
                pairs = tuple((ids[r[0]], ids[row]) for r in apart for row in r[1:])
                message = (
                    f"{len(rows)} clips are, by their names, pieces of {len(apart)} sources that "
                    f"are in several {what}, such as {listed(self.ids(rows)[:2])}"
                )
                pairs = pairs if what == "groups" else ()
                yield self.finding(f"source-across-{what}", "", rows, message, pairs)

    def few_groups(self) -> Iterator[Finding]:
        """Yield classes and tags that occur in fewer groups than there are folds."""
        if not self.labelled or self.is_numeric:
            return
        for name, has in zip(self.table.classes, self.y.T > 0.5, strict=True):
            n = len(np.unique(self.group[has]))
            if has.any() and n < self.k:
                text = f"{name}: its {has.sum()} clips are in {n} groups, fewer than {self.k} folds"
                cure = f"use --folds {max(2, n)}, or add clips of other groups"
                yield self.finding("few-groups", "", np.flatnonzero(has), text, cure=cure)


def _numbers(mask: Bools) -> str:
    return listed([*map(str, np.flatnonzero(mask))], 8)


def shifted_rows(values: F32) -> Bools:
    """Return a mask of rows whose values fit the columns far better after a shift by one column.

    Values of a column have Student's t distribution with 3 degrees of freedom, so that outliers
    count little. Columns of the same distribution cannot be told apart.
    """
    few = values[:: -(-len(values) // ROWS)]
    low, centre, high = np.quantile(few, (0.05, 0.5, 0.95), axis=0).astype(np.float32)
    # A column with long tails, such as a sigmoid output, has values far from its middle half.
    spread = np.maximum(1.48 * np.median(np.abs(few - centre), axis=0), (high - low) / 6)
    told = spread > 0
    shifted = np.zeros(len(values), np.bool_)
    if told.sum() < 3:
        return shifted
    centre, spread = centre[told], spread[told]
    for step in (-1, 1):
        ratio, better = np.empty(len(values)), np.empty(len(values))
        for block in np.array_split(np.arange(len(values)), len(row_blocks(values))):
            block_values, other = values[block], np.roll(values[block], step, axis=1)
            gain = _misfit(block_values[:, told], centre, spread) - _misfit(
                other[:, told], centre, spread
            )
            ratio[block], better[block] = gain.sum(axis=1), (gain > 0).mean(axis=1)
        least = max(SURELY + np.log(len(values)), -MIRRORED * np.median(ratio))
        shifted |= (ratio > least) & (better >= CELLS)
    return shifted


def _misfit(rows: F32, centre: F32, spread: F32) -> F32:
    """Return minus the log-likelihood of each cell, without constants."""
    return 2 * np.log1p(np.square((rows - centre) / spread) / 3)

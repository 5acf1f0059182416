"""Columns of a user's own table, recognised by their names and cells.

Nothing is guessed silently: `Recognised.notes` states what was taken for what, and the option that
changes it; where two columns suit equally well, `Recognised.questions` asks for one.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from mvemo.manifests import dimensions, text_files
from mvemo.manifests.annotators import AGREEMENT, ANNOTATOR, ANNOTATORS, DEVIATION
from mvemo.manifests.cells import are_numbers, to_numbers, to_whole
from mvemo.manifests.labels import PLANE, UNLABELLED, Task, is_flag
from mvemo.manifests.tables import LISTS, RESERVED, TableRows, is_missing

# Number of cells by which the kind of a column is recognised.
_SAMPLE = 1000

_WORDS = text_files.read_toml(Path(__file__).with_name("columns.toml"))
_NAMES, _OTHER = _WORDS["names"], _WORDS["other"]
# Names of groups if their cells repeat.
_WORKS = re.compile("id$|film|movie|video|work|piece|band|performer|playlist|session|series")
# Dates that a spreadsheet writes for texts such as 1-2 or 3.5.
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mrz|mär|mai|okt|dez"
_DATE = re.compile(
    rf"\d{{1,2}}[-. /]*({_MONTHS})[a-z]?\.?|({_MONTHS})[-. /]+\d\d|\d{{4}}-\d\d-\d\d( 00:00:00)?",
    re.I,
)
# Longest start or duration, in seconds, that is recognised: larger numbers count samples.
_MOST_SECONDS = 7200
# Largest difference of times, in seconds, that counts as a rounding error.
_ROUNDED = 0.051
# A number in a form that is refused, such as 1.234,5 or 50 %.
_LIKE_NUMBER = re.compile(r"[^a-z]*\d[^a-z]*", re.I).fullmatch
_PREFIX = "label_"  # of the names of columns with ratings, or with 0 and 1 for a tag
# Possible separators of the tags in a cell; the first separator that occurs is used.
_MARKS = (";", "|", ",")
_SUFFIX = re.compile(r"\.(wav|mp3|ogg|oga|opus|flac|m4a|aac|aiff?|mp4|mkv|avi|mov|webm|m4v)$", re.I)


@dataclass(frozen=True)
class Recognised:
    """Meaning of the columns of a table."""

    columns: Mapping[str, str] = field(default_factory=dict)  # our name -> theirs
    task: Task = "unlabelled"
    targets: Mapping[str, str] = field(default_factory=dict)  # target or tag -> column
    deviations: Mapping[str, str] = field(default_factory=dict)  # target -> column
    # Columns for another task: target or label -> column.
    kept: Mapping[str, str] = field(default_factory=dict)
    unnamed: Mapping[str, str] = field(default_factory=dict)  # empty name -> column
    notes: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()

    @property
    def named(self) -> dict[str, str]:
        """All recognised columns: our name -> theirs."""
        kept = {DEVIATION.format(name): column for name, column in self.deviations.items()}
        return {**self.kept, **self.columns, **self.targets, **kept}

    @property
    def numbers(self) -> list[str]:
        """Our names of the columns that hold numbers."""
        rated = self.targets if self.task == "regression" else self.kept
        of_clip = ["start", "end", "duration", ANNOTATORS, AGREEMENT]
        return [*of_clip, *rated, *map(DEVIATION.format, self.deviations)]

    @property
    def renamed(self) -> dict[str, str]:
        """The columns to rename: our name -> theirs."""
        renamed = {ours: theirs for ours, theirs in self.named.items() if ours != theirs}
        return {**renamed, **self.unnamed}


def recognise(
    table: TableRows, given: Mapping[str, str] | None = None, task: Task | None = None
) -> Recognised:
    """Recognise the columns of a table.

    `given` maps our names to the columns that the user named; there is no question about these.
    """
    return _Recogniser(table, [*filter(None, table.header)], dict(given or {}), task).run()


@dataclass
class _Recogniser:
    table: TableRows
    header: Sequence[str]
    given: dict[str, str]
    task: Task | None
    columns: dict[str, str] = field(default_factory=dict)  # our name -> theirs
    notes: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    # Ratings and their deviations, which are kept next to classes.
    kept: dict[str, str] = field(default_factory=dict)
    deviations: dict[str, str] = field(default_factory=dict)

    def sample(self, name: str) -> list[str]:
        """Return at most `_SAMPLE` cells, evenly spread over a column."""
        cells = self.table.cells(name)
        return cells[:: 1 + len(cells) // _SAMPLE]

    def numbers(self, name: str) -> Sequence[str]:
        """Return some cells of a column, with decimal points if they are numbers."""
        return self.table.points(self.sample(name))

    def run(self) -> Recognised:
        if any(_SUFFIX.search(name) or "|" in name for name in self.header):
            # There is no header: the first row is a clip, or is not separated into cells.
            return Recognised(task=self.task or "multiclass")
        if rows := [n for n in self.header if self.header.count(n) > 1 and n in self.sample(n)]:
            text = f"the first row holds {rows[0]!r} like the rows below it: write names above them"
            return Recognised(task=self.task or "multiclass", questions=(text,))
        self.columns |= {ours: name for ours, name in self.given.items() if ours in _NAMES}
        self._find_path()
        # The annotator comes first: if there is one, ids may repeat.
        of_clip = ("clip_id", "group", "start", "duration", "end", "fold", "split")
        for ours in (ANNOTATOR, *of_clip, ANNOTATORS):
            self._find(ours)
        self._choose_end()
        if self.task == UNLABELLED:
            return self._done(UNLABELLED)
        chosen = {ours: name for ours, name in self.given.items() if ours not in _NAMES}
        if chosen and self.task == "multilabel" and "label" not in self.columns:
            return self._done("multilabel", chosen)
        if self.task is None and dimensions.DIMENSIONS.keys() & chosen.keys():
            self.task = "regression"
        free = [name for name in self.header if name not in {*self.columns.values()}]
        of_means, of_deviations = dimensions.rated_columns(free)
        rated_names = {*chain(*of_means.values()), *of_deviations.values()}
        # A column with the name of a rating may have a few wrong cells, which are reported later.
        numbers = [
            name
            for name in free
            if are_numbers(self.numbers(name))
            or (name in rated_names and _are_mostly_numbers(self.numbers(name)))
        ]
        flags = [name for name in free if _is_binary(self.sample(name))]
        means, deviations = dimensions.rated_columns(numbers)
        prefixed = _with_prefix(flags)
        if prefixed and self.task != "regression" and len(prefixed) == len(_with_prefix(free)):
            return self._labels(prefixed, free)
        prefixed = _with_prefix([name for name in numbers if name not in deviations.values()])
        means = {name: [column] for name, column in prefixed.items()} or means
        if self.task == "regression":
            means |= {name: [column] for name, column in chosen.items()}
        rated = [*chain(*means.values(), deviations.values())]
        free = [name for name in free if name not in rated]
        if self.task != "regression":
            self.kept = {name: found[0] for name, found in means.items()}
            self.deviations = {n: column for n, column in deviations.items() if n in means}
        if self.task == "regression" or (self.task is None and (prefixed or {*PLANE} & {*means})):
            listed, labels = _list(chain(*means.values())), self._label_columns(free)
            if self.task and len(labels) == 1:
                self.kept = {"label": labels[0]}
            if self.task or not (labels or "label" in self.columns):
                return self._ratings(means, deviations)
            if labels and labels != ["label"]:
                cure = "--task regression, or --task multiclass"
                self._ask(f"ratings in {listed}, classes in {_either(labels)}", cure)
                return self._done("multiclass")
            self.notes.append(f"ratings in {listed} are kept; to use them: --task regression")
        named = self._named("label")
        return self._labels({n: n for n in flags if n in free and n not in named}, free)

    def _ratings(self, means: dict[str, list[str]], deviations: dict[str, str]) -> Recognised:
        order = [*(name for name in dimensions.DIMENSIONS if name in means), *means]
        ratings = {name: means[name][0] for name in order}
        for name, column in ratings.items():
            if len(means[name]) > 1:
                self._ask(f"{name} may be {_either(means[name])}", f"--column {name}=NAME")
                continue
            low, high = _range(self.table.points(self.table.cells(column)))
            extra = f", deviations in {deviations[name]!r}" if name in deviations else ""
            if extra or column != name:
                self._note(f"{name}: ratings in {column!r} ({low:g} to {high:g}){extra}", name, "")
        self.deviations = {name: column for name, column in deviations.items() if name in ratings}
        return self._done("regression", ratings)

    def _labels(self, tags: Mapping[str, str], free: Sequence[str]) -> Recognised:
        """Return the classes or tags, which are in one column, or in a column for each tag."""
        labels = [self.columns[ours] for ours in ("label",) if ours in self.columns]
        named = bool(labels)
        if not named:
            labels = self._label_columns([name for name in free if name not in tags.values()])
            named = bool({*labels} & {*self._named("label")})
        spread = len(tags) > 1 if self.task is None else bool(tags) and self.task == "multilabel"
        if spread and labels and self.task is None and not named:
            where = f"classes in {_either(labels)}, tags in {_list(tags.values())}"
            self._ask(where, "--task multiclass, or --task multilabel")
            return self._done("multiclass")
        holds_tags = any(n == "label" or _hold_tags(self.table.cells(n)) for n in labels if spread)
        if spread and (not labels or not named or (self.task and not holds_tags)):
            listed = _list(tags.values())
            self._note(f"tags: {len(tags)} columns of 0 and 1, {listed}", "TAG", "")
            return self._done("multilabel", tags)
        if len(labels) == 1:
            return self._label(labels[0])
        used = {*self.columns.values()}
        left = [name for name in self.header if name not in used and not self._is_other(name)]
        if labels:
            self._ask(f"the classes may be {_either(labels)}", "--column label=NAME")
        elif self.task is None and tags:
            cure = "--task multilabel for tags, or --column label=NAME for classes"
            self._ask(f"0 and 1 in {_list(tags.values())}", cure)
        elif self.task is None and left:
            self.questions.append(
                f"no labels were recognised in {_list(left)}: name their column with --column "
                "label=NAME, or give --task unlabelled for clips without labels"
            )
        return self._done(self.task or UNLABELLED)

    def _label(self, name: str) -> Recognised:
        self.columns["label"] = name
        self._find(AGREEMENT)
        words = self.table.cells(name)
        if self.task is None and are_numbers(words) and not all(map(_is_whole, words)):
            self.questions.append(
                f"its labels are numbers, such as {words[0]!r}: read ratings with --task "
                "regression --column NAME=COLUMN, or numbers of classes with --task multiclass"
            )
        if dates := [cell for cell in words if _DATE.fullmatch(cell)]:
            self.questions.append(
                f"{len(dates)} cells of {name!r} are dates, which a spreadsheet makes of other "
                f"text, such as {dates[0]!r}: write the labels as text"
            )
        listed = _hold_tags(words) or (_plain(name) in _OTHER["lists"] and holds_mark(",", words))
        kind = self.task or ("multilabel" if listed else "multiclass")
        noun = "tags" if kind == "multilabel" else f"{len({*words} - {''})} classes"
        if self.task is None and not listed:
            marks = [mark for mark in "/+&#" if _recur(words, mark)]
            self.notes += [f"label: for several tags in a cell, --separator {m!r}" for m in marks]
        self._note(f"label: {noun} in {name!r}", "label", name)
        return self._done(kind)

    def _done(self, task: Task, targets: Mapping[str, str] | None = None) -> Recognised:
        renamed = "end" in self.columns and "duration" in self.header
        unnamed = {"": "duration"} if renamed else {}
        facts = self.columns, task, targets or {}, self.deviations, self.kept, unnamed
        found = Recognised(*facts, questions=(*self.questions,))
        for ours in {"clip_id", "group"} & self.columns.keys():
            cells = self.sample(self.columns[ours])
            dates = [cell for cell in cells if _DATE.fullmatch(cell)]
            if dates and len(dates) < len(cells):
                text = f"{ours}: a spreadsheet may have made dates of other text, as {dates[0]!r}"
                self.notes.append(text)
        used = {*found.named.values(), *self.given.values()}
        used |= {*RESERVED} - {*unnamed.values()}
        unused = [name for name in self.header if name not in used]
        free = [] if "group" in self.columns else unused
        works = [f"{name!r} ({n} groups)" for name in free if (n := self._n_works(name))]
        if works:
            self.notes.append(
                f"no column is the group; clips of one song, film or artist must share a group, "
                f"which may be in {', '.join(works[:6])}: give --column group=NAME"
            )
        if unused:
            self.notes.append(f"columns that are not used: {_list(unused, 20)}")
        return replace(found, notes=(*self.notes,))

    def _n_works(self, name: str) -> int:
        """Return the number of groups if a column may name songs, films or artists; otherwise 0."""
        cells, plain = [c for c in self.table.cells(name) if not is_missing(c)], _plain(name)
        n_groups = len({*cells})
        words = not are_numbers(self.sample(name)) and plain not in _OTHER["texts"]
        whole = all(map(_is_whole, self.sample(name))) and _WORKS.search(plain)
        likely = 2 < n_groups < len(cells) and (words or whole)
        return n_groups if likely and plain not in _NAMES["group"] else 0

    def _note(self, text: str, ours: str, column: str) -> None:
        if ours not in self.given and ours != column:
            self.notes.append(f"{text}; another column: --column {ours}=NAME")

    def _ask(self, text: str, cure: str) -> None:
        commands = "'mvemo manifest import'"
        if "--task" not in cure:
            commands = f"'mvemo extract', 'mvemo predict' or {commands}"
        self.questions.append(f"{text}: give {cure} to {commands}")

    def _named(self, ours: str) -> list[str]:
        """Return the columns whose name may stand for our name `ours`, the most likely first."""
        known = _NAMES[ours]
        named = [name for name in self.header if _plain(name) in known]
        return sorted(named, key=lambda name: (name != ours, known.index(_plain(name))))

    def _is_other(self, name: str) -> bool:
        """Return True if a column has a name of something other than labels."""
        others = [_NAMES[ours] for ours in ("path", "clip_id", "group")]
        return _plain(name) in chain(*others, _OTHER["texts"], _OTHER["titles"])

    def _find_path(self) -> None:
        if "path" in self.columns:
            return
        named = [name for name in self._named("path") if not _is_binary(self.sample(name))]
        media = [name for name in named if _are_files(self.sample(name))]
        media = media or [name for name in self.header if _are_files(self.sample(name))] or named
        if "path" in self.header:
            media = ["path"]
        if len(media) > 1:
            self._ask(f"the paths may be {_either(media)}", "--column path=NAME")
        elif media:
            self.columns["path"] = media[0]
            n_files = len({*self.table.cells(media[0])})
            self._note(f"path: {n_files} files in {media[0]!r}", "path", media[0])

    def _find(self, ours: str) -> None:
        if ours in self.columns:
            return
        names = (name for name in self._named(ours) if name not in self.columns.values())
        suiting = (name for name in names if self._suits(ours, name))
        # Of several ids or groups, the most likely one is taken.
        suited = [*islice(suiting, 1 if ours in ("clip_id", "group") else None)]
        # An offset counts only if there is no other column.
        suited = [name for name in suited if _plain(name) != "offset"] or suited
        if not suited:
            return
        self.columns[ours] = suited[0]
        if len(suited) > 1 and suited[0] != ours:
            self._ask(f"the {ours} may be {_either(suited)}", f"--column {ours}=NAME")
        else:
            n = f" ({len({*self.table.cells(suited[0])})} groups)" if ours == "group" else ""
            self._note(f"{ours}: column {suited[0]!r}{n}", ours, suited[0])

    def _choose_end(self) -> None:
        """Keep only one of the columns of ends and durations; ask the user if they disagree."""
        columns = self.columns
        if "end" not in columns:
            return
        if "duration" in columns:
            start, seconds, end = (
                self._seconds(columns.get(name)) for name in ("start", "duration", "end")
            )
            sums = [a + b for a, b in zip(start or [0.0] * len(end), seconds, strict=False)]
            same = all(abs(a - b) < _ROUNDED for a, b in zip(sums, end, strict=False))
            if not same and not {"duration", "end"} & self.given.keys():
                both = f"the segments may end at {columns['end']!r} or last {columns['duration']!r}"
                self._ask(both, "--column end=NAME, or --column duration=NAME")
            del columns["duration" if "end" in self.given else "end"]
            return
        start_name = repr(columns["start"]) if "start" in columns else "0"
        self._note(f"duration: {columns['end']!r} minus {start_name}", "duration", "")
        if n_open := self.table.cells(columns["end"]).count(""):
            self.notes.append(f"duration: {n_open} rows without an end last until their file ends")

    def _seconds(self, name: str | None) -> list[float]:
        cells = self.table.points(self.table.cells(name or ""))
        seconds = ["nan" if is_missing(cell) else cell for cell in cells]
        return to_numbers(seconds) if are_numbers(seconds) else []

    def _suits(self, ours: str, name: str) -> bool:
        """Return True if the cells of a column can be what its name says."""
        cells, sample = self.table.cells(name), self.sample(name)
        different = len({*cells})
        if ours in ("clip_id", "group"):
            if name == ours:
                return True
            missing = [*filter(is_missing, cells)]
            if ours == "group" and missing and different > 1:
                words = _list(sorted({*missing} - {""}))
                named = f" (of them {words})" if words else ""
                text = f"{name!r} is not used as group: it has {len(missing)} empty cells{named}"
                self.notes.append(text)
            if missing:
                return False
            if ours == "group":
                return different > 1
            if ANNOTATOR not in self.columns:
                return different == len(cells)
            # If there are annotators, ids that occur only once are ids of rows, not of clips.
            return different < len(cells) and "path" not in self.columns
        if ours == ANNOTATOR:
            path = self.columns.get("path")
            ids = map(self.table.cells, [path] if path else self._named("clip_id"))
            return any(len({*of_one}) < len(of_one) for of_one in ids) and different > 1
        if ours == "split":
            return all(cell.lower()[:3] in _SPLITS for cell in sample)
        if ours == "fold":
            return all(map(_is_whole, sample))
        numbers = self.table.points([cell for cell in sample if not is_missing(cell)])
        if ours == "end" and _plain(name) == "offset":
            starts = self._seconds(self.columns.get("start")) or [0.0] * len(cells)
            if any(a >= b for a, b in zip(starts, self._seconds(name), strict=False)):
                return False
        return are_numbers(numbers) and (name == ours or _range(numbers)[1] <= _MOST_SECONDS)

    def _label_columns(self, free: Sequence[str]) -> list[str]:
        """Return the columns that may hold classes or tags."""
        named = [name for name in self._named("label") if name in free]
        if named:
            return named[:1] if named[0].lower() == "label" else named
        free = [name for name in free if not self._is_other(name)]
        return [name for name in free if _may_be_classes(self.sample(name))]


_SPLITS = ("tra", "val", "dev", "tes", "eva", "")  # first letters of the names of splits


def _are_files(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and sum(map(bool, map(_SUFFIX.search, filled))) >= 0.9 * len(filled)


def _is_binary(cells: Sequence[str]) -> bool:
    return bool(cells) and all(map(is_flag, cells))


def _is_whole(cell: str) -> bool:
    with suppress(ValueError):
        return not cell or to_whole(cell) is not None
    return False


def tag_separator(cells: Sequence[str]) -> str:
    """Return the separator of the tags in the cells of a column."""
    return next((mark for mark in _MARKS if holds_mark(mark, cells)), _MARKS[0])


def holds_mark(mark: str, cells: Sequence[str]) -> bool:
    """Return True if the separator is between two names of a cell that is not JSON."""
    return any(
        mark in cell and not cell.startswith(LISTS) and len(_split(cell, mark)) > 1
        for cell in cells
    )


def _hold_tags(cells: Sequence[str]) -> bool:
    """Return True if cells list several names, most of which also occur in other cells."""
    different = [*{*cells}]
    if any(cell.startswith(LISTS) and cell[-1] in "]})" for cell in different):
        return True
    mark = tag_separator(different)
    return holds_mark(mark, different) and (mark != "," or _recur(different, mark))


def _recur(cells: Sequence[str], mark: str) -> bool:
    """Return True if most of the names that a mark separates occur in several different cells."""
    parts = [_split(cell, mark) for cell in {*cells}]
    counts = Counter(chain.from_iterable(parts))
    joined = {*chain.from_iterable(tags for tags in parts if len(tags) > 1)}
    return 2 * sum(counts[tag] > 1 for tag in joined) > len(joined)


def _split(cell: str, mark: str) -> list[str]:
    return [part for part in map(str.strip, cell.split(mark)) if part]


def _with_prefix(names: Iterable[str]) -> dict[str, str]:
    named = [name for name in names if name.lower().startswith(_PREFIX)]
    return {name[len(_PREFIX) :]: name for name in named}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _may_be_classes(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    most = max(2, min(8, len(filled) - 1), len(filled) // 5)
    return 2 <= len({*filled}) <= most and not are_numbers(filled)


def _are_mostly_numbers(cells: Sequence[str]) -> bool:
    full = [cell for cell in cells if cell]
    return 2 * sum(are_numbers([cell]) or bool(_LIKE_NUMBER(cell)) for cell in full) > len(full)


def _range(cells: Sequence[str]) -> tuple[float, float]:
    # Testing each cell is slow, and columns with wrong cells are rare.
    numbers = cells if are_numbers(cells) else [cell for cell in cells if are_numbers([cell])]
    values = [value for value in to_numbers([*filter(None, numbers)]) if value == value]
    return min(values, default=math.nan), max(values, default=math.nan)


def _list(names: Iterable[str], most: int = 6) -> str:
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:most]) + (" …" if len(quoted) > most else "")


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names[:4])

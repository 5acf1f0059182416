"""Columns of a user's own table, recognised by their names and cells.

Nothing is guessed silently: `Recognised.notes` states what was taken for what, and the option that
changes it; where two columns suit equally well, `Recognised.questions` asks for one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mvemo.manifests.labels import Task, is_flag
from mvemo.manifests.tables import are_numbers

Cells = Callable[[str], list[str]]

# Our column -> names of it in tables, in order of preference; compared in lower case, without
# marks between words.
_NAMES = {
    "path": (
        *("path", "file", "filename", "filepath", "audio", "audiopath", "audiofile", "video"),
        *("videopath", "videofile", "wav", "mp3", "media", "mediapath", "location"),
    ),
    "clip_id": ("clipid", "id", "songid", "trackid", "musicid", "fileid", "uid"),
    "group": (
        *("group", "artist", "artistid", "artistname", "singer", "speaker", "actor", "composer"),
        *("album", "albumid", "albumname", "song", "songname", "source", "sourcegroup"),
    ),
    "start": ("start", "starttime", "offset", "onset", "begin"),
    "duration": ("duration", "length", "durationseconds", "seconds"),
    "fold": ("fold", "cvfold", "foldid"),
    "split": ("split", "set", "subset", "partition"),
    "label": (
        *("label", "class", "emotion", "mood", "quadrant", "category", "tags", "tag", "moods"),
        *("emotions", "labels", "emotionlabel", "moodlabel", "target", "annotation"),
    ),
}
_SUFFIX = re.compile(r"\.(wav|mp3|ogg|oga|opus|flac|m4a|aac|aiff?|mp4|mkv|avi|mov|webm|m4v)$", re.I)
# Words of a rated dimension in the name of a column.
_DIMENSIONS = {
    "valence": ("valence", "val", "pleasure", "pleasantness"),
    "arousal": ("arousal", "aro", "activation"),
    "dominance": ("dominance", "dom"),
    "energy": ("energy",),
    "tension": ("tension",),
}
_LETTERS = {"v": "valence", "a": "arousal", "d": "dominance"}
_MEAN = {"mean", "avg", "average", "m", "mu", "label", "rating", "score", "static", "value", "song"}
_DEVIATION = {"std", "sd", "dev", "deviation", "stdev", "sigma", "stddev", "uncertainty"}


@dataclass(frozen=True)
class Recognised:
    """Meaning of the columns of a table."""

    columns: Mapping[str, str] = field(default_factory=dict)  # our name -> theirs
    task: Task = "unlabelled"
    targets: Mapping[str, str] = field(default_factory=dict)  # target or tag -> column
    deviations: Mapping[str, str] = field(default_factory=dict)  # target -> column
    notes: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()


def recognise(
    header: Sequence[str],
    cells: Cells,
    given: Mapping[str, str] | None = None,
    task: Task | None = None,
) -> Recognised:
    """Recognise the columns of a table.

    Parameters
    ----------
    header, cells
        Names of the columns, and a function that returns the cells of one.
    given
        Columns that the user named, by our names; they are not asked for.
    task
        Task that the user stated; None to recognise it.
    """
    work = _Recogniser([name for name in header if name], cells, dict(given or {}))
    return work.run(task)


@dataclass
class _Recogniser:
    header: Sequence[str]
    cells: Cells
    given: dict[str, str]
    notes: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)

    def run(self, task: Task | None) -> Recognised:
        columns = dict(self.given)
        self._find_path(columns)
        for ours in ("clip_id", "group", "start", "duration", "fold", "split"):
            self._find(ours, columns)
        used = {*columns.values()}
        free = [name for name in self.header if name not in used]
        targets, deviations = rated_columns(free)
        ratings = {name: found[0] for name, found in targets.items()}
        for name, found in targets.items():
            if len(found) > 1:
                self._ask(f"{name} may be {_either(found)}", f"--column {name}=NAME")
        labels = self._label_columns(free, ratings.values(), deviations.values())
        tags = [name for name in free if _is_binary(self.cells(name)) and name not in labels]
        # A column that is named as in a manifest is taken without a question.
        plane = {"valence", "arousal"} <= ratings.keys() and labels != ["label"]
        plane = plane or task == "regression"
        if "label" in columns or task in ("multiclass", "multilabel"):
            labels = [columns["label"]] if "label" in columns else labels
        elif plane and ratings and labels and task is None:
            self._ask(
                f"ratings in {_list(ratings.values())}, classes in {_either(labels)}",
                "--task regression, or --task multiclass",
            )
        if plane and ratings and (not labels or task == "regression"):
            for name, column in ratings.items():
                low, high = _range(self.cells(column))
                extra = f", deviations in {deviations[name]!r}" if name in deviations else ""
                self._note(f"{name}: ratings in {column!r} ({low:g} to {high:g}){extra}", name)
            return self._done(columns, "regression", ratings, deviations)
        if len(labels) == 1:
            columns["label"] = labels[0]
            words = self.cells(labels[0])
            kind = task or ("multilabel" if _lists_tags(words) else "multiclass")
            noun = "tags" if kind == "multilabel" else f"{len({*words})} classes"
            self._note(f"label: {noun} in {labels[0]!r}", "label")
            return self._done(columns, kind)
        if labels:
            self._ask(f"the classes may be {_either(labels)}", "--column label=NAME")
        elif len(tags) > 1 and task in (None, "multilabel"):
            self.notes.append(f"tags: {len(tags)} columns of 0 and 1, {_list(tags)}")
            return self._done(columns, "multilabel", {name: name for name in tags})
        return self._done(columns, task or "unlabelled")

    def _done(
        self,
        columns: Mapping[str, str],
        task: Task,
        targets: Mapping[str, str] | None = None,
        deviations: Mapping[str, str] | None = None,
    ) -> Recognised:
        return Recognised(
            columns, task, targets or {}, deviations or {}, (*self.notes,), (*self.questions,)
        )

    def _note(self, text: str, ours: str) -> None:
        if ours not in self.given and ours not in self.header:
            self.notes.append(f"{text}; another column: --column {ours}=NAME")

    def _ask(self, text: str, cure: str) -> None:
        self.questions.append(f"{text}: give {cure}")

    def _named(self, ours: str) -> list[str]:
        """Return the columns with one of the names of ours, in order of preference."""
        plain = {name: re.sub(r"[^a-z0-9]", "", name.lower()) for name in self.header}
        known = _NAMES[ours]
        named = [name for name in self.header if plain[name] in known]
        return sorted(named, key=lambda name: known.index(plain[name]))

    def _find_path(self, columns: dict[str, str]) -> None:
        if "path" in columns:
            return
        named = self._named("path")
        media = [name for name in named if _are_files(self.cells(name))]
        media = media or [name for name in self.header if _are_files(self.cells(name))] or named
        if "path" in media:
            media = ["path"]
        if len(media) > 1:
            self._ask(f"the paths may be {_either(media)}", "--column path=NAME")
        elif media:
            columns["path"] = media[0]
            self._note(f"path: column {media[0]!r}", "path")

    def _find(self, ours: str, columns: dict[str, str]) -> None:
        if ours in columns:
            return
        for name in self._named(ours):
            cells = self.cells(name)
            if name in columns.values() or (ours == "clip_id" and len({*cells}) < len(cells)):
                continue
            if ours in ("start", "duration") and not are_numbers(cells):
                continue
            if ours == "split" and not all(cell.lower()[:3] in _SPLITS for cell in cells):
                continue
            if ours == "fold" and not all(map(str.isdecimal, filter(None, cells))):
                continue
            columns[ours] = name
            n = f" ({len({*cells})} groups)" if ours == "group" else ""
            self._note(f"{ours}: column {name!r}{n}", ours)
            return

    def _label_columns(
        self, free: Sequence[str], ratings: Iterable[str], deviations: Iterable[str]
    ) -> list[str]:
        """Return the columns that may hold classes or tags."""
        others = {*ratings, *deviations}
        named = [
            name
            for name in self._named("label")
            if name in free and name not in others and not _is_binary(self.cells(name))
        ]
        if named:
            return named[:1] if named[0].lower() == "label" else named
        return [name for name in free if name not in others and _may_be_classes(self.cells(name))]


_SPLITS = ("tra", "val", "dev", "tes", "eva", "")


def rated_columns(header: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the columns of each rated dimension's means, and of its deviations.

    Examples
    --------
    >>> rated_columns(["song", "Valence(mean)", "Arousal(mean)", "Valence(std)", "arousal_max"])
    ({'valence': ['Valence(mean)'], 'arousal': ['Arousal(mean)']}, {'valence': 'Valence(std)'})
    """
    means: dict[str, list[str]] = {}
    deviations: dict[str, str] = {}
    words = {
        name: re.findall("[a-z]+", re.sub("([a-z])([A-Z])", r"\1 \2", name).lower())
        for name in header
    }
    letters = {word for parts in words.values() for word in parts} >= {"v", "a"}
    for name, parts in words.items():
        found = {
            dimension
            for dimension, names in _DIMENSIONS.items()
            for word in parts
            if word in names or (letters and _LETTERS.get(word) == dimension)
        }
        rest = {word for word in parts if not any(word in n for n in _DIMENSIONS.values())}
        rest -= {*_LETTERS} if letters else set()
        if len(found) != 1:
            continue
        (dimension,) = found
        if rest <= _MEAN:
            means.setdefault(dimension, []).append(name)
        elif rest <= _MEAN | _DEVIATION:
            deviations.setdefault(dimension, name)
    for dimension, columns in means.items():
        # A column that says that it is a mean is preferred to one that says nothing.
        stated = [name for name in columns if {*words[name]} & {"mean", "avg", "average"}]
        means[dimension] = stated or columns
    return means, deviations


def _are_files(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return bool(filled) and sum(map(bool, map(_SUFFIX.search, filled))) >= 0.9 * len(filled)


def _is_binary(cells: Sequence[str]) -> bool:
    return bool(cells) and all(map(is_flag, cells))


def _lists_tags(cells: Sequence[str]) -> bool:
    return any(mark in cell for cell in cells for mark in ";|,") or any(
        cell.startswith("[") for cell in cells
    )


def _may_be_classes(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell]
    return 2 <= len({*filled}) <= max(8, len(filled) // 5) and not are_numbers(filled)


def _range(cells: Sequence[str]) -> tuple[float, float]:
    values = [float(cell) for cell in cells if cell] if are_numbers(cells) else [float("nan")]
    return min(values), max(values)


def _list(names: Iterable[str], most: int = 6) -> str:
    quoted = [repr(name) for name in names]
    return ", ".join(quoted[:most]) + (" …" if len(quoted) > most else "")


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names[:4])

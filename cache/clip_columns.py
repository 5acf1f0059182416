"""Search for clip ids and for labels among the columns of another program's table."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from mvemo.cache.errors import BadCache
from mvemo.cache.table import ClipTable
from mvemo.manifests import labels, tables
from mvemo.manifests.cells import are_numbers

# Default names of the column or data set with the clip ids.
ID_NAMES = ("clip_id", "clip_ids")
# A column whose name ends with one of these words has clip ids, even if they are whole numbers.
# Words of `_COUNTERS` after it do not count.
_CLIP_WORDS = {"id", "ids", "uid", "clip", "clips", "song", "songs", "track", "tracks", "segment"}
_CLIP_WORDS |= {"file", "filename", "path", "name", "names"}
_COUNTERS = {"unnamed", "index", "level", "number", "no", "nr"}
# Names of labels, folds, splits and groups, without marks between words.
_LABEL_NAMES = {"label", "labels", "class", "classes", "emotion", "emotions", "mood", "moods"}
_LABEL_NAMES |= {"quadrant", "category", "tag", "tags", "target", "targets", "fold", "folds"}
_LABEL_NAMES |= {"cvfold", "split", "splits", "subset", "partition", "group", "groups"}
# Leading zeros of a number, and its decimals if they are zero.
_PADDING = re.compile(r"^0+(?=[0-9])|\.0*$")
_PLAIN_NUMBER = re.compile(r"([1-9][0-9]*|0)(\.0*)?|")
_MISSING = frozenset(("None", "nan", "NaN", "NaT", "<NA>"))


def texts_of(values: Iterable[Any]) -> list[str]:
    """Return values of any type as cells of a table; missing values become empty."""
    return [v if type(v) is str else _text(v) for v in values]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    text = str(value).strip()
    return "" if text in _MISSING and not isinstance(value, str) else text


def find_ids(
    where: str,
    columns: Mapping[str, Any],
    names: Mapping[str, str],
    numbers: Collection[str] = (),
    skipped: Collection[str] = (),
) -> tuple[str, ...]:
    """Return the columns of clip ids, which all name the same clips; empty if there are none.

    Whole numbers may be ids or features. They are ids if the column's name says so, or if the rows
    have the order of the clips; otherwise an error asks the user.

    `names` maps ids and paths to clip ids, in the order of the clips. The user chose the columns
    `numbers` as features, and does not want to be asked about the columns `skipped`.
    """
    order = [*dict.fromkeys(names.values())]
    sure: dict[str, list[str]] = {}
    few: dict[str, int] = {}
    same, unsure = [], []
    known = {*names} | {_PADDING.sub("", PurePosixPath(name).stem) for name in names}
    for name, values in columns.items():
        sample = texts_of(values[:: max(1, len(values) // 64)])
        numbers_of_sample = {*sample} | {_PADDING.sub("", cell) for cell in sample}
        # A column of numbers is not one of ids if a sample of it names no clip.
        if are_numbers(sample) and known.isdisjoint(numbers_of_sample):
            continue
        cells = texts_of(values)
        ids = tables.match_ids(cells, names)[0]
        n_named = len({*ids} & {*order})
        # Whole numbers with leading zeros are texts: no feature is written like this.
        is_text = not all(map(_PLAIN_NUMBER.fullmatch, cells))
        if 2 * n_named <= min(len(ids), len(order)):
            # If a few texts name clips, the column has ids, most of which are unknown.
            few |= {name: n_named} if n_named > 1 and is_text else {}
        elif not is_text and name in numbers:
            continue
        elif is_text or names_clips(name, cells):
            sure[name] = [*ids]
        elif [*ids] == order:
            same.append(name)
        elif name not in skipped:
            unsure.append(name)
    named = sorted(sure, key=lambda name: not _is_id_name(name))
    for name in named[1:]:
        if sure[name] != sure[named[0]] and not _is_id_name(named[0]) and name not in skipped:
            raise BadCache(
                f"{where}: {named[0]!r} and {name!r} both name clips, but not the same: give "
                f"--id-column {named[0]}, or --id-column {name}"
            )
    if unsure and not sure and not same:
        asked = max(unsure, key=bool)
        raise BadCache(
            f"{where}: {asked!r} holds whole numbers that are also clip ids: give --id-column "
            f"{asked} if they name the clips, otherwise name it in --columns or --skip-columns"
        )
    if not sure:
        return (*same, *sorted(few, key=lambda name: -few[name])[:1])[:1]
    return tuple(name for name in named if sure[name] == sure[named[0]])


def _is_id_name(name: str) -> bool:
    return name.rpartition("/")[2] in ID_NAMES


def names_clips(name: str, cells: Sequence[str] = ()) -> bool:
    """Return True if whole numbers in a column may be clip ids, to judge by the column's name.

    Without a name they may be, unless they number the rows from 0 or 1.
    """
    last = name.rpartition("/")[2]
    if words := [word for word in tables.words_of(last) if word not in _COUNTERS]:
        return words[-1] in _CLIP_WORDS
    counts = ([str(i) for i in range(start, start + len(cells))] for start in (0, 1))
    return not name.isdigit() and (not len(cells) or [*cells] not in counts)


def is_label(name: str, table: ClipTable | None) -> bool:
    """Return True for the name of a label, target, tag, fold, split or group."""
    outputs = table.classes if table and not labels.label_kind(table.task).exclusive else ()
    plain, *known = map(tables.bare_name, (name, *outputs))
    return plain in _LABEL_NAMES or plain.removeprefix("label") in known

"""Manifests as CSV files: read, and checked with every problem named at once.

The file is plain CSV in UTF-8. Lines above the table may state what a table cannot::

    # mvemo manifest 1
    # name: my videos
    # task: multiclass
    # classes: Exciting, Fear, Sad
    # root: .
    path,label,group

``classes`` may also be a JSON list, for names that hold commas; for regression, and for
tags without a column ``label``, it names the columns of the targets or tags. ``root`` is
relative to the file's own folder. ``scale`` is that of valence and arousal, as ``1..9``;
``predicted`` names the model that made the labels, where no people did. A CSV without any
such line, with columns ``path`` and ``label``, is a multiclass manifest with its classes in
alphabetical order.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from mvemo.manifests.columns import Columns, parse_rows
from mvemo.manifests.labels import (
    PLANE,
    TASKS,
    Label,
    LabelKind,
    Task,
    is_flag,
    label_kind,
    parse_scale,
)
from mvemo.manifests.layouts.sources import source_of
from mvemo.manifests.media_files import check_media
from mvemo.manifests.model import Manifest
from mvemo.manifests.problems import Problem, Problems
from mvemo.manifests.rows import Row, finish_rows
from mvemo.manifests.tables import MANIFEST_VERSION, RESERVED, Table, parse_names, read_table

# Columns that only `mvemo predict` writes all of.
_OF_PREDICT = {"model", "notes", "error"}


@dataclass(frozen=True)
class _Given:
    """What the caller of `read_manifest` gives in place of what the file states."""

    root: str | Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    task: Task | None = None
    classes: Sequence[str] | None = None
    name: str | None = None
    scale: str | None = None


def read_manifest(
    path: str | Path,
    *,
    root: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    task: Task | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    scale: str | None = None,
    media: bool = True,
) -> Manifest:
    """Read a manifest, or a user's own CSV.

    Columns: ``path``, and ``label``; for multilabel tags separated by ``;`` in it, or a
    column of 0 and 1 for each tag; for regression a column for each target. Optional:
    ``clip_id`` (default: the path without its suffix, with ``@start`` for segments of one
    file), ``group`` (default: the clip's id; for segments of one file, that file), ``start``
    and ``duration`` in seconds, ``fold`` (from 0), ``split``. Other columns are kept in
    `Clip.extra` where the file is one of ours, else ignored.

    Parameters
    ----------
    path
        The CSV file.
    root
        Folder of the media files; default: what the file states, else its own folder.
    columns
        The file's own name of a column, where it differs: ``{"path": "file"}``. For
        regression and multilabel, names that are none of the above are the targets or tags.
    task, classes, name, scale
        In place of what the file states.
    media
        Whether a media file that does not exist is a problem.

    Returns
    -------
    The manifest, its clips in the order of the rows.

    Raises
    ------
    MissingManifest
        No such file.
    BadManifest
        With all problems of the file, a line each.

    See Also
    --------
    check_manifest : The problems as a list.
    write_manifest : The way back.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "songs.csv"
    >>> _ = path.write_text("file,label,group\\na.mp3,calm,1\\nb.mp3,tense,2\\n")
    >>> manifest = read_manifest(path, columns={"path": "file"}, media=False)
    >>> manifest.classes, manifest.clip_ids, manifest.labels
    (('calm', 'tense'), ('a', 'b'), array([0, 1]))
    """
    path = Path(path)
    problems = Problems(path)
    given = _Given(root, columns or {}, task, classes, name, scale)
    with _no_collection():
        manifest, rows = _parse(path, problems, given)
        # Broken rows have been reported; without them the rest is still a whole manifest.
        manifest = replace(manifest, clips=tuple(row.clip() for row in rows))
    if media:
        check_media(manifest.root, rows, problems, links=root is not None)
    problems.raise_any()
    return manifest


def check_manifest(
    path: str | Path,
    *,
    root: str | Path | None = None,
    media: bool = True,
    infer_groups: bool = False,
) -> list[Problem]:
    """All problems of a manifest, in order of their lines; empty for a good one.

    Also what can be read and is hardly meant: names that differ in case alone, tags that hold
    the separator of others, empty files.

    Parameters
    ----------
    path, root, media
        As for `read_manifest`.
    infer_groups
        Whether pieces of one source, by their names (`source_of`), that are in different
        groups are a problem.

    Returns
    -------
    Many lines with a problem of one kind are one `Problem`, with their count.

    Raises
    ------
    MissingManifest
        No such file.

    See Also
    --------
    read_manifest : Raises the problems.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "songs.csv"
    >>> _ = path.write_text("path,label,start\\na.mp3,calm,0\\nb.mp3,tense,-1\\nc.mp3,,0\\n")
    >>> for problem in check_manifest(path, media=False):
    ...     print(problem.line, problem.message)
    3 start -1 is negative; seconds from 0
    4 empty label
    """
    path = Path(path)
    problems = Problems(path)
    with _no_collection():
        manifest, rows = _parse(path, problems, _Given(root))
    if media:
        check_media(manifest.root, rows, problems, links=root is not None, empty=True)
    labels: dict[Label, tuple[int, int]] = {}
    for row in rows:
        line, count = labels.get(row.label, (row.line, 0))
        labels[row.label] = line, count + 1
    for line, message in label_kind(manifest.task).doubts(labels):
        problems.add(line, message)
    if infer_groups:
        _check_sources(rows, problems)
    return problems.in_order()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the search for cycles, which rows have none of: a third of a large file's time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _parse(path: Path, problems: Problems, given: _Given) -> tuple[Manifest, list[Row]]:
    """What the file states, without clips, and the rows of these with their lines."""
    table = read_table(path, problems)
    readable = not problems.found
    if table.kind not in ("", "manifest"):
        problems.add(1, f"this is a file of mvemo {table.kind}, not a manifest")
    elif table.kind and table.version != MANIFEST_VERSION:
        problems.add(
            1, f"manifest version {table.version}; this program reads version {MANIFEST_VERSION}"
        )
    task = given.task or _stated_task(table, problems)
    synthetic = table.setting("synthetic", "false").lower()
    if synthetic not in ("true", "false"):
        problems.add(table.line("synthetic"), f"synthetic is {synthetic!r}; write true or false")
    root = Path(given.root) if given.root is not None else path.parent / table.setting("root", ".")
    if given.root is None and root.is_dir() and root.resolve() == Path(root.resolve().anchor):
        problems.add(
            table.line("root"),
            f"the media root {str(root)!r} is the whole file system: give --root if it is meant",
        )
    if not root.is_dir():
        problems.add(table.line("root"), f"the media root {str(root)!r} is not a folder")
    kind = label_kind(task)
    spread = kind.numeric or (kind.named_by_columns and not _has_label_column(table, given))
    classes = _stated_classes(table, kind, spread, given, problems)

    rows: list[Row] = []
    if readable and table.rows:
        rows = parse_rows(table, Columns(kind, spread, classes, given.columns, root), problems)
    if readable and len(table.rows) < 2:
        problems.add(0, "no clips: the table has a header at most")
    if classes is None:
        classes = sorted({str(name) for row in rows for name in row.label})
        # Of rows that cannot be read the classes are not known.
        whole = len(rows) == len(table.rows) - 1
        if rows and whole and kind.exclusive and len(classes) < 2:
            problems.add(0, f"only one class, {classes}; a {task} task needs two at least")
    if not kind.numeric:
        _order_names(rows, classes)
    finish_rows(rows, problems)
    name = given.name or table.setting("name", path.stem)
    scale = given.scale or table.setting("scale", "")
    if scale and kind.numeric:
        _check_scale(scale, table.line("scale"), classes, rows, problems)
    by = table.setting("predicted", "") or _predicted_by(table)
    facts = synthetic == "true", scale, by
    return Manifest(name, task, tuple(classes), (), root, *facts), rows


def _predicted_by(table: Table) -> str:
    """Return the models that made the labels if `mvemo predict` wrote the table; else ""."""
    header = [cell.strip() for cell in table.rows[0][1]] if table.rows else []
    if table.kind or not set(header) >= _OF_PREDICT:
        return ""
    column = header.index("model")
    names = (cells[column] for _, cells in table.rows[1:] if len(cells) == len(header))
    return ", ".join(sorted({name.partition("/")[0] for name in names if name}))


def _check_scale(
    scale: str, line: int, classes: Sequence[str], rows: Sequence[Row], problems: Problems
) -> None:
    try:
        low, high = parse_scale(scale)
    except ValueError as error:
        problems.add(line, str(error))
        return
    for i, name in enumerate(classes):
        if name.lower() not in PLANE:
            continue
        for row in rows:
            value = row.label[i]
            if isinstance(value, float) and (value < low or value > high):
                problems.add(row.line, f"{name} {value:g} is outside the scale {scale}")


def _stated_task(table: Table, problems: Problems) -> Task:
    word = table.setting("task", "multiclass").lower()
    for task in TASKS:
        if word == task:
            return task
    problems.add(table.line("task"), f"unknown task {word!r}; one of {', '.join(TASKS)}")
    return "multiclass"


def _has_label_column(table: Table, given: _Given) -> bool:
    header = table.rows[0][1] if table.rows else ()
    return given.columns.get("label", "label") in [cell.strip() for cell in header]


def _tag_columns(table: Table) -> list[str]:
    """Columns of a foreign table that can be tags: not ours, and of 0 and 1 alone."""
    if not table.rows:
        return []
    header = [cell.strip() for cell in table.rows[0][1]]
    rows = [cells for _, cells in table.rows[1:] if len(cells) == len(header)]
    return [
        name
        for i, name in enumerate(header)
        if name not in RESERVED and rows and all(is_flag(cells[i]) for cells in rows)
    ]


def _stated_classes(
    table: Table, kind: LabelKind, spread: bool, given: _Given, problems: Problems
) -> list[str] | None:
    """Classes, tags or targets as caller or file name them; None where they follow
    from the rows. `spread`: there is a column for each.
    """
    classes = list(given.classes) if given.classes is not None else None
    line = table.line("classes")
    if classes is None and "classes" in table.settings:
        try:
            classes = parse_names(table.settings["classes"][1], ",")
        except ValueError as error:
            problems.add(line, str(error))
    if classes is None and spread:
        classes = [key for key in given.columns if key not in RESERVED]
        if not classes and not kind.numeric:
            classes = _tag_columns(table)
        if not classes and kind.numeric:
            problems.add(0, f"a {kind.task} manifest needs `# classes:` with its targets' columns")
        elif not classes:
            problems.add(
                0, f"a {kind.task} manifest needs a column label, or one of 0 and 1 for each tag"
            )
    if classes is None:
        return None
    repeated = sorted({name for name in classes if classes.count(name) > 1})
    if repeated:
        problems.add(line, f"classes named twice: {', '.join(map(repr, repeated))}")
    if "" in classes:
        problems.add(line, "a class with an empty name")
    if kind.exclusive and len(classes) < 2:
        problems.add(line, f"{len(classes)} class(es) named; a {kind.task} task needs two at least")
    if spread:
        if clash := sorted(set(classes) & set(RESERVED)):
            what = "targets" if kind.numeric else "tags with a column each"
            problems.add(line, f"{what} must not be named {', '.join(map(repr, clash))}")
        classes = [name for name in classes if name not in RESERVED]
    return classes


def _order_names(rows: Sequence[Row], classes: Sequence[str]) -> None:
    """Give each row its names once, in the order of the classes."""
    order = {name: i for i, name in enumerate(classes)}
    for row in rows:
        if len(row.label) < 2:
            continue
        names = {str(name) for name in row.label}
        row.label = tuple(sorted(names, key=lambda name: order.get(name, 0)))


def _check_sources(rows: Sequence[Row], problems: Problems) -> None:
    """Pieces of one source, by their names, that are in different groups."""
    first: dict[str, Row] = {}
    for row in rows:
        other = first.setdefault(source_of(row.path), row)
        if row.path and other.group != row.group:
            problems.add(
                row.line,
                f"{row.path!r} is by its name a piece of the source of line {other.line}, "
                f"but in group {row.group!r}, not {other.group!r}",
            )

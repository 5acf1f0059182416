"""Manifests as CSV files: read, write, and check with every fault named at once.

The file is plain CSV in UTF-8. Lines above the table may state what a table cannot::

    # mvemo manifest 1
    # name: my videos
    # task: multiclass
    # classes: Exciting, Fear, Sad
    # root: .
    path,label,group

``classes`` may also be a JSON list, for names that hold commas; for regression it names
the columns of the dimensions. ``root`` is relative to the file's own folder. A CSV
without any such line, with columns ``path`` and ``label``, is a multiclass manifest with
its classes in alphabetical order.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections.abc import Mapping, Sequence
from pathlib import Path

from mvemo.manifests.errors import BadManifest
from mvemo.manifests.header import (
    Fault,
    Faults,
    Table,
    format_names,
    parse_names,
    read_table,
    write_table,
)
from mvemo.manifests.layouts.sources import source_of
from mvemo.manifests.model import TASKS, Clip, Manifest, Task
from mvemo.manifests.rows import RESERVED, Row, finish_rows, parse_row

VERSION = "1"


def read_manifest(
    path: str | Path,
    *,
    root: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    task: Task | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    media: bool = True,
) -> Manifest:
    """Read a manifest, or a user's own CSV.

    Columns: ``path``, and ``label`` (for multilabel: tags separated by ``;``) or, for
    regression, one column per dimension. Optional: ``clip_id`` (default: the path
    without its suffix, with ``@start`` for segments of one file), ``group`` (default:
    the clip's id; for segments of one file, that file), ``start`` and ``duration`` in
    seconds, ``fold`` (from 0), ``split``. Other columns are ignored.

    Parameters
    ----------
    path
        The CSV file.
    root
        Folder of the media files; default: what the file states, else its own folder.
    columns
        The file's own name of a column, where it differs: ``{"path": "file"}``. For
        regression, names that are none of the above are the dimensions.
    task, classes, name
        Instead of what the file states.
    media
        Whether a media file that is not there is a fault.

    Raises
    ------
    MissingManifest
        No such file.
    BadManifest
        With all faults of the file, a line each.
    """
    path = Path(path)
    faults = Faults(path)
    manifest, rows = _parse(path, faults, root, columns, task, classes, name)
    if media:
        _check_media(manifest.root, rows, faults)
    faults.raise_any()
    return manifest


def check_manifest(
    path: str | Path,
    *,
    root: str | Path | None = None,
    media: bool = True,
    infer_groups: bool = False,
) -> list[Fault]:
    """All faults of a manifest, in order of their lines; empty for a good one.

    Parameters
    ----------
    path, root, media
        As for `read_manifest`.
    infer_groups
        Whether clips whose names say that they are pieces of one source
        (`source_of`) but that are in different groups are faults.

    Raises
    ------
    MissingManifest
        No such file.
    """
    path = Path(path)
    faults = Faults(path)
    manifest, rows = _parse(path, faults, root, None, None, None, None)
    if media:
        _check_media(manifest.root, rows, faults)
    if infer_groups:
        first: dict[str, Row] = {}
        for row in rows:
            other = first.setdefault(source_of(row.path), row)
            if row.path and other.group != row.group:
                faults.add(
                    row.line,
                    f"{row.path!r} is by its name a piece of the source of line {other.line}, "
                    f"but in group {row.group!r}, not {other.group!r}",
                )
    return faults.in_order()


def write_manifest(manifest: Manifest, path: str | Path) -> None:
    """Write a manifest so that `read_manifest` gives it back, digest included.

    Paths stay as they are, relative to the manifest's root; the root is written
    relative to the file's folder, so that both may be moved together. The file is
    replaced in one step.

    Raises
    ------
    BadManifest
        A name, id or path cannot be written so that it is read back; or the file
        cannot be written.
    """
    path = Path(path)
    root = _relative_root(manifest.root, path.parent)
    for text in (manifest.name, root, *manifest.classes):
        if text != text.strip() or "\n" in text or "\r" in text:
            raise BadManifest(f"{path}: {text!r} must not have blanks around it or line breaks")
    head = [
        f"# mvemo manifest {VERSION}",
        f"# name: {manifest.name}",
        f"# task: {manifest.task}",
        f"# classes: {format_names(manifest.classes, ',')}",
        f"# root: {root}",
    ]
    if manifest.synthetic:
        head.append("# synthetic: true")

    clips = manifest.clips
    labels = list(manifest.classes) if manifest.task == "regression" else ["label"]
    columns = ["clip_id", "path", *labels, "group"]
    times = any(clip.start or clip.duration is not None for clip in clips)
    folds = any(clip.fold is not None for clip in clips)
    splits = any(clip.split is not None for clip in clips)
    columns += ["start", "duration"] * times + ["fold"] * folds + ["split"] * splits
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for clip in clips:
        for text in (clip.clip_id, clip.group, clip.split or "", *map(str, clip.label)):
            if text != text.strip() or "\0" in text:
                raise BadManifest(f"{path}: {text!r} must not have blanks around it")
        if inside_root(clip.path, manifest.root) != clip.path or "\0" in clip.path:
            raise BadManifest(f"{path}: {clip.path!r} is not a plain path below the media root")
        cells: list[object] = [clip.clip_id, clip.path]
        if manifest.task == "multilabel":
            cells.append(format_names([str(tag) for tag in clip.label], ";"))
        else:
            cells += [repr(v) if isinstance(v, float) else v for v in clip.label]
        cells.append(clip.group)
        if times:
            cells += [repr(clip.start), "" if clip.duration is None else repr(clip.duration)]
        if folds:
            cells.append("" if clip.fold is None else clip.fold)
        if splits:
            cells.append(clip.split or "")
        writer.writerow(cells)
    write_table(path, "\n".join(head) + "\n" + buffer.getvalue())


def inside_root(cell: str, root: Path) -> str | None:
    """The path relative to the root, tidied, with forward slashes; None if not below it."""
    if os.path.isabs(cell):
        cell = os.path.relpath(cell, os.path.abspath(root))
    tidy = posixpath.normpath(cell.replace(os.sep, "/"))
    return None if tidy in (".", "..") or tidy.startswith(("../", "/")) else tidy


def _relative_root(root: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(root.resolve(), folder.resolve())).as_posix()
    except ValueError:  # Windows: on another drive
        return root.resolve().as_posix()


def _parse(
    path: Path,
    faults: Faults,
    root: str | Path | None,
    columns: Mapping[str, str] | None,
    task: Task | None,
    classes: Sequence[str] | None,
    name: str | None,
) -> tuple[Manifest, list[Row]]:
    """The manifest as far as it could be read, and its rows with their lines."""
    table = read_table(path, faults)
    had_text = not faults.found
    if table.kind not in ("", "manifest"):
        faults.add(1, f"this is a file of mvemo {table.kind}, not a manifest")
    elif table.kind and table.version != VERSION:
        faults.add(1, f"manifest version {table.version}; this program reads version {VERSION}")
    stated = {key: value for key, (_, value) in table.settings.items()}
    lines = {key: line for key, (line, _) in table.settings.items()}

    the_task = task or _stated_task(stated, lines, faults)
    synthetic = stated.get("synthetic", "false").lower()
    if synthetic not in ("true", "false"):
        faults.add(lines["synthetic"], f"synthetic is {synthetic!r}; say true or false")
    the_root = Path(root) if root is not None else path.parent / (stated.get("root") or ".")
    if not the_root.is_dir():
        faults.add(lines.get("root", 0), f"the media root {str(the_root)!r} is not a folder")

    columns = dict(columns or {})
    given = list(classes) if classes is not None else None
    if given is None and "classes" in stated:
        try:
            given = parse_names(stated["classes"], ",")
        except ValueError as error:
            faults.add(lines["classes"], str(error))
    if given is None and the_task == "regression":
        given = [key for key in columns if key not in RESERVED]
        if not given:
            faults.add(0, "a regression manifest needs `# classes:` with its dimensions' columns")
    if given is not None:
        _check_classes(given, the_task, lines.get("classes", 0), faults)
        if the_task == "regression":
            given = [name for name in given if name not in RESERVED]

    rows: list[Row] = []
    if table.rows and had_text:
        rows = _parse_rows(table, the_task, given, columns, the_root, faults)
    if had_text and len(table.rows) < 2:
        faults.add(0, "no clips: the table has a header at most")
    if given is None:
        given = sorted({str(name) for row in rows for name in row.label})
        # Of rows that cannot be read the classes are not known.
        whole = len(rows) == len(table.rows) - 1
        if rows and whole and the_task == "multiclass" and len(given) < 2:
            faults.add(0, f"only one class, {given}; a multiclass task needs two at least")
    order = {tag: i for i, tag in enumerate(given)}
    if the_task == "multilabel":
        for row in rows:
            tags = {str(tag) for tag in row.label}
            row.label = tuple(sorted(tags, key=lambda tag: order.get(tag, 0)))
    finish_rows(rows, faults)
    # Broken rows have been reported; without them the rest is still a whole manifest.
    clips = tuple(
        Clip(r.clip_id, r.path, r.label, r.group, r.start, r.duration, r.fold, r.split)
        for r in rows
    )
    the_name = name or stated.get("name") or path.stem
    manifest = Manifest(the_name, the_task, tuple(given), clips, the_root, synthetic == "true")
    return manifest, rows


def _stated_task(stated: Mapping[str, str], lines: Mapping[str, int], faults: Faults) -> Task:
    word = stated.get("task", "multiclass").lower()
    for task in TASKS:
        if word == task:
            return task
    faults.add(lines["task"], f"unknown task {word!r}; one of {', '.join(TASKS)}")
    return "multiclass"


def _check_classes(classes: Sequence[str], task: Task, line: int, faults: Faults) -> None:
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice:
        faults.add(line, f"classes named twice: {', '.join(map(repr, twice))}")
    if "" in classes:
        faults.add(line, "a class with an empty name")
    if task == "multiclass" and len(classes) < 2:
        faults.add(line, f"{len(classes)} class(es) named; a multiclass task needs two at least")
    if task == "regression" and (clash := sorted(set(classes) & set(RESERVED))):
        faults.add(line, f"dimensions must not be named {', '.join(map(repr, clash))}")


def _parse_rows(
    table: Table,
    task: Task,
    classes: Sequence[str] | None,
    columns: Mapping[str, str],
    root: Path,
    faults: Faults,
) -> list[Row]:
    head_line, head = table.rows[0]
    names = [cell.strip() for cell in head]
    wanted = [*RESERVED] if task != "regression" else [*RESERVED[1:], *(classes or ())]
    unknown = [key for key in columns if key not in wanted]
    if unknown:
        faults.add(0, f"no such column to map: {', '.join(unknown)}; one of {', '.join(wanted)}")
    place: dict[str, int] = {}
    for key in wanted:
        theirs = columns.get(key, key)
        if names.count(theirs) > 1:
            faults.add(head_line, f"column {theirs!r} is there twice")
        elif theirs in names:
            place[key] = names.index(theirs)
        elif key in columns:
            faults.add(head_line, f"no column {theirs!r} for {key}; there are {names}")
    needed = ["path", *(classes or ())] if task == "regression" else ["path", "label"]
    missing = [key for key in needed if key not in columns and key not in names]
    if missing:
        hint = ""
        if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
            hint = "; cells must be separated by commas"
        faults.add(
            head_line,
            f"the header has no column {', '.join(map(repr, missing))}; it has {names}{hint}",
        )
    if any(key not in place for key in needed):
        return []

    rows = []
    for line, cells in table.rows[1:]:
        if len(cells) != len(names):
            faults.add(line, f"{len(cells)} cells; the header has {len(names)}")
            continue
        # A path in a file of ours is meant to the letter; others put blanks after commas.
        fields = {
            key: cells[i] if key == "path" and table.kind else cells[i].strip()
            for key, i in place.items()
        }
        row = parse_row(fields, line, task, classes, faults)
        tidy = inside_root(row.path, root) if row.path else ""
        if tidy is None:
            faults.add(
                line,
                f"path {row.path!r} is not below the media root {str(root)!r}",
                kind=f"paths are not below the media root {str(root)!r}: give the folder that "
                "holds them with --root",
                value=repr(row.path),
            )
        row.path = tidy or row.path
        rows.append(row)
    return rows


def _check_media(root: Path, rows: Sequence[Row], faults: Faults) -> None:
    if not root.is_dir():
        return  # one fault says it for all
    there: dict[str, bool] = {}
    for row in rows:
        if row.path and row.path not in there:
            there[row.path] = (root / row.path).is_file()
    if len(there) > 1 and not any(there.values()):
        faults.add(0, f"none of the {len(there)} media files is below {str(root)!r}; wrong root?")
        return
    for row in rows:
        if row.path and not there[row.path]:
            what = "is a folder" if (root / row.path).is_dir() else "no such file"
            faults.add(row.line, f"{what}: {str(root / row.path)!r}")

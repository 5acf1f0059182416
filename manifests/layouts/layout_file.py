"""Layouts of published data sets as TOML files, as docs/public-data.md describes them.

A layout names the annotation tables of a data set and the meaning of their columns; the files in
this folder are examples. In a path of media ``{COLUMN}`` is a cell, ``{COLUMN:3}`` the cell with
leading zeros, and ``{COLUMN:-2}`` its last two characters; ``{COLUMN:stem}`` leaves out a suffix.
"""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from mvemo.manifests import schemes, text_files
from mvemo.manifests.errors import MvemoError, Report
from mvemo.manifests.labels import TASKS, Task, parse_scale
from mvemo.manifests.plugins import plugins, reserve
from mvemo.manifests.splits.assignment import part_of

# Names of the parts of a split in a manifest.
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """One annotation table, or several files with the same columns."""

    # Patterns; the files of the first one that matches are read. {n} is the number of the split.
    path: tuple[str, ...]
    # Column with the id of a clip; {stem} for the name of the file, {FILE} for the lines of a file
    # next to it.
    id: str
    # Names of the columns of files without a header; {FILE} for the lines of a file next to them.
    columns: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()  # first columns; files that begin differently are left out
    without: str = ""  # folder whose files are left out
    rest: str = ""  # column that also takes all further cells of a row
    where: Mapping[str, str] = field(default_factory=dict)  # column -> the only value that is used
    split: Mapping[str, str] = field(default_factory=dict)  # part of a file's name -> split


@dataclass(frozen=True, kw_only=True)
class LayoutColumn:
    """Column of a target, of its deviation between annotators, or of classes or tags."""

    column: str
    deviation: str = ""
    prefix: str = ""  # removed from each tag
    separator: str = ""  # between the tags of a cell
    lower: bool = False  # read classes in lower case


@dataclass(frozen=True, kw_only=True)
class TagColumns:
    """A column of 0 and 1 for each tag; underscores in its name stand for spaces."""

    prefix: str = ""  # of the default tags; removed from their names


@dataclass(frozen=True, kw_only=True)
class Media:
    """Paths of media files, in order of preference."""

    path: tuple[str, ...] = ()
    by_name: bool = False  # files are named like the id; punctuation and case do not matter


@dataclass(frozen=True, kw_only=True)
class Group:
    """Column of groups; a pattern takes a part of the cell, if it matches."""

    column: str
    pattern: str = ""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Part of a media file, in seconds: numbers or columns."""

    start: str | float = 0.0
    duration: str | float | None = None
    end: str = ""  # column; if given, the rows of an id are segments of its media file


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Declaration of a data set."""

    name: str
    title: str
    task: Task
    table: tuple[TableFile, ...] = ()
    media: Media | None = None
    folders: bool = False  # True without tables: the clips are in a folder for each class
    recognised: bool = False  # True if no other set has a file named like the first table
    size: str = ""
    scale: str = ""
    scheme: str = ""  # maps the labels to a paper's classes; clips without a class are left out
    licence: str = ""
    citation: str = ""
    published: tuple[str, ...] = ()
    targets: Mapping[str, LayoutColumn] = field(default_factory=dict)
    label: LayoutColumn | None = None
    tags: LayoutColumn | None = None
    tag_columns: TagColumns | None = None
    counts: Mapping[str, int] = field(default_factory=dict)  # published clips, tags, chosen tags
    average: bool = False  # average the rows of a clip, which are one for each annotator
    group: Group | None = None
    segment: Segment = field(default_factory=Segment)
    split: Mapping[str, str] = field(default_factory=dict)  # split -> file of ids; {n} is a number
    extra: tuple[str, ...] = ()  # further columns of the manifest

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task: expected one of {', '.join(TASKS)}, got {self.task!r}")
        needed = {"multiclass": "label", "multilabel": "tags", "regression": "targets"}[self.task]
        if self.folders:
            needed = "folders"
        if not (getattr(self, needed) or (needed == "tags" and self.tag_columns)):
            raise ValueError(f"[{needed}] is missing: the task is {self.task}")
        for key in () if self.folders else ("table", "media"):
            if not getattr(self, key):
                raise ValueError(f"[{key}] is missing")
        if self.scheme:
            schemes.find_scheme(self.scheme)
        if self.scale:
            parse_scale(self.scale)
        for key in self.split:
            if part_of(key) is None:
                raise ValueError(f"split.{key}: expected one of {', '.join(SPLITS)}")
        patterns = [p for table in self.table for p in table.path]
        for pattern in (*patterns, *(self.media.path if self.media else ()), *self.split.values()):
            if not pattern.strip():
                raise ValueError("a path is empty")
            if posixpath.isabs(pattern) or ".." in pattern.split("/") or "\\" in pattern:
                raise ValueError(f"{pattern!r} leads out of the folder of the data set")
        if self.group and self.group.pattern:
            try:
                re.compile(self.group.pattern)
            except re.error as error:
                raise ValueError(f"group.pattern {self.group.pattern!r}: {error}") from None


def layouts(report: Report = lambda problem: None) -> dict[str, Layout]:
    """Return the layouts that come with mvemo, by name, with those of plug-ins that can be read.

    `report` is called with the reason why a plug-in cannot be read.
    """
    files = {*Path(__file__).parent.glob("*.toml")} - {Path(__file__).with_name("ravdess.toml")}
    found = [text_files.read_toml(file, Layout) for file in files]
    known = {layout.name: layout for layout in sorted(found, key=attrgetter("name"))}
    reserve("layouts", known)
    for name in plugins("layouts"):
        try:
            known[name] = plugged_layout(name)
        except MvemoError as error:
            report(str(error))
    return known


def plugged_layout(name: str) -> Layout:
    """Return the layout of a plug-in, which is the path of a TOML file."""
    plugin = plugins("layouts")[name]
    path = plugin.load(
        lambda value: (
            "" if isinstance(value, Path) else f"expected the Path of a TOML file, got {value!r}"
        )
    )
    try:
        layout: Layout = text_files.read_toml(path, Layout)
    except MvemoError as error:
        raise plugin.failure(str(error)) from error
    return layout

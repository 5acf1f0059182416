"""Reading and checking of manifests; every problem is reported at once.

A manifest is a CSV file in UTF-8. Lines above the table may state its settings. mvemo itself writes
the settings as JSON into the name of an empty last column, so that any program reads the table::

    # mvemo manifest 1
    # name: my videos
    # task: multiclass
    # classes: Exciting, Fear, Sad
    # root: .
    path,label,group

``classes`` may also be a JSON list. For regression, and for tags without a column ``label``, it
names the columns of the targets or tags. ``root`` is relative to the file's own folder. ``scale``
is the scale of valence and arousal, such as ``1..9``. ``predicted`` names the model that predicted
the labels, if people did not give them. Without ``classes``, they are in alphabetical order.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from mvemo.manifests import clip_rows, recognition, tables
from mvemo.manifests import labels as label_kinds
from mvemo.manifests.annotators import ANNOTATOR, merge_annotators
from mvemo.manifests.errors import BadText, Problem, Problems
from mvemo.manifests.labels import UNLABELLED, LabelKind, Task, label_kind
from mvemo.manifests.layouts.file_names import source_of
from mvemo.manifests.model import Manifest

_PREDICTED = (
    "the labels are predictions of the model {}: scores against them measure agreement with that "
    "model, not correctness"
)


@dataclass(frozen=True)
class ManifestOptions:
    """Options of `read_manifest`, which take precedence over the file.

    Parameters
    ----------
    root
        Folder of the media files. Default: the folder that the file states. If it states none, the
        file's own folder, or the common folder of paths that are all absolute, or that lead out of
        the file's folder to files that exist.
    columns
        Column names of the file, by our names, where they differ: ``{"path": "file"}``. For
        regression and multilabel, other names are targets or tags.
    task, name, separator, scale
        Values that take precedence over stated or recognised values.
    skip_unlabelled
        If True, leave out rows without a label.
    media
        If True, a missing media file is a problem.
    """

    root: str | Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    task: Task | None = None
    name: str | None = None
    separator: str | None = None
    skip_unlabelled: bool = False
    media: bool = True
    scale: str | None = None


def read_manifest(
    path: str | Path, options: ManifestOptions | None = None, **changes: Any
) -> Manifest:
    """Read a manifest, or a user's own CSV, Parquet or Excel file.

    Columns: ``path`` and ``label``. For multilabel, tags are in ``label`` or in a column of 0 and
    1 for each tag; for regression each target has a column. Optional columns: ``clip_id``
    (default: the path without its suffix, with ``@start`` for segments of one file), ``group``
    (default: the clip's id, or the file for segments of one file), ``start`` and ``duration`` in
    seconds, ``fold`` (from 0) and ``split``. In a user's own file they may have other names
    (`recognise`); `Manifest.notes` says which were taken. Other columns are kept in `Clip.extra`
    if the file is a manifest of mvemo, otherwise only deviations of targets. Without media, or in
    a manifest written without them, ``clip_id`` is enough. A table with only these columns and no
    ``label`` is ``unlabelled``.

    Parameters
    ----------
    path
        Path of the file.
    options
        Options that take precedence over the file.
    changes
        Single fields of `ManifestOptions`, such as ``media=False``.

    Returns
    -------
    The manifest, with its clips in the order of the rows.

    Raises
    ------
    MissingFile
        The file does not exist.
    BadManifest
        The file has problems; the message lists all of them, one per line.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "songs.csv"
    >>> _ = path.write_text("file,label,group\\na.mp3,calm,1\\nb.mp3,tense,2\\n")
    >>> manifest = read_manifest(path, media=False)
    >>> manifest.classes, manifest.clip_ids, manifest.labels
    (('calm', 'tense'), ('a', 'b'), array([0, 1]))
    >>> manifest.notes
    ("path: 2 files in 'file'; another column: --column path=NAME",)
    """
    given = replace(options or ManifestOptions(), **changes)
    problems = Problems(Path(path))
    with tables.collection_paused():
        manifest, rows = _parse(problems, given)
        problems.raise_any()
        return replace(manifest, clips=tuple(row.clip() for row in rows))


def check_manifest(
    path: str | Path, *, infer_groups: bool = False, **changes: Any
) -> list[Problem]:
    """Return all problems of a manifest by line; many problems of one kind are one `Problem`.

    Probable mistakes are also reported: names that differ only in case, tags that contain the
    separator of other tags, and empty files.

    Parameters
    ----------
    path, changes
        Same as for `read_manifest`.
    infer_groups
        If True, different groups for pieces of one source (`source_of`) are a problem.

    Raises
    ------
    MissingFile
        The file does not exist.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "songs.csv"
    >>> _ = path.write_text("path,label,start\\na.mp3,calm,0\\nb.mp3,tense,-1\\n")
    >>> [problem.message for problem in check_manifest(path, media=False)]
    ['start -1 is negative: it must be at least 0 seconds']
    """
    problems = Problems(Path(path))
    manifest, rows = _parse(problems, ManifestOptions(**changes), empty=True)
    kind = label_kind(manifest.task)
    if not kind.numeric:
        _check_names(rows, kind, problems)
    if infer_groups:
        clip_rows.must_agree(
            [row for row in rows if row.path],
            lambda row: source_of(row.path),
            "group",
            "{row.path!r} has a name from the same source as line {other.line}, but is in group "
            "{row.group!r}, not {other.group!r}",
            problems,
        )
    return problems.in_order()


@tables.collection_paused()
def _parse(
    problems: Problems, given: ManifestOptions, empty: bool = False
) -> tuple[Manifest, list[clip_rows.Row]]:
    """Return the manifest without clips, and the rows of its clips; see `check_media`."""
    path = problems.path
    table = tables.collect_table(path, problems, given.columns)
    if problems.found:
        return Manifest(path.stem, "multiclass", (), (), path.parent), []
    if table.kind and given.task not in (None, table.setting("task", "multiclass").lower()):
        # The stated classes belong to another task.
        table = replace(table, settings={k: v for k, v in table.settings.items() if k != "classes"})
    synthetic = _is_synthetic(table, problems)
    table, found = _recognised(table, given, _stated_task(table, given, problems), problems)
    task = found.task
    if given.root is None and not table.setting("root", ""):
        table = clip_rows.with_absolute_paths(table, path.parent)
    root = _media_root(table, given, problems)
    notes = [*found.notes]
    if not table.kind:
        table = _blank_missing(table, {"label", "group", "fold", "split", *found.kept}, notes)
    kind = _kind_of(table, task, given, notes)
    spread = kind.numeric or (kind.named_by_columns and "label" not in table.header)
    classes = _stated_classes(table, kind, spread, found, problems)
    table, mixed = table.with_points({*found.numbers, *(classes or () if kind.numeric else ())})
    notes += mixed
    if kind.exclusive and classes is None:
        table = _tidy_classes(table, notes)
    if given.skip_unlabelled:
        table = _without_unlabelled(table, classes or () if spread else ("label",), notes)
    stated = {
        k: v for k, v in given.columns.items() if k in tables.RESERVED or k not in found.columns
    }
    several = ANNOTATOR in table.header and (kind.numeric or kind.exclusive)
    media = given.media and not table.kind
    facts = (table, kind, spread, classes, stated, found.named, root, media, problems, several)
    parser = clip_rows.RowParser(*facts)
    # Rows cannot be read before the user has answered the questions.
    rows = parser.parse() if table.rows and not found.questions else []
    # Rows that cannot be read may have further classes.
    whole = len(rows) == len(table.rows) - 1
    scale = given.scale or table.setting("scale", "")
    if scale and kind.numeric:
        _check_scale(scale, table.line("scale"), classes or (), rows, problems)
    # A column of this name may also be a target.
    if several and rows and ANNOTATOR in dict(rows[0].extra):
        rows, merged = merge_annotators(rows, kind, classes or (), problems, given.skip_unlabelled)
        notes += merged
    if len(table.rows) < 2:
        problems.add(0, "the table has no clips")
    if classes is None:
        classes = _classes_of(rows, kind, whole, problems)
    if not kind.numeric:
        _order_names(rows, classes)
    clip_rows.finish_rows(rows, problems)
    if predicted_by := table.setting("predicted", table.predicted_by):
        notes.append(_PREDICTED.format(predicted_by))
    if given.media:
        clip_rows.check_media(root, rows, problems, links=given.root is not None, empty=empty)
    name = given.name or table.setting("name", path.stem)
    about = (tuple(classes), (), root, synthetic, scale, predicted_by, tuple(notes))
    return Manifest(name, task, *about), rows


def _kind_of(
    table: tables.TableRows, task: Task, given: ManifestOptions, notes: list[str]
) -> LabelKind:
    """Return the kind of the labels; of tags in one column, with their separator."""
    kind = label_kind(task)
    if task != "multilabel" or "label" not in table.header:
        return kind
    labels = table.cells("label")
    mark = ";" if table.kind else recognition.tag_separator(labels)
    separator = given.separator or table.setting("separator", mark)
    if not table.kind and recognition.holds_mark(separator, labels):
        notes.append(f"cells of the label column hold several tags, separated by {separator!r}")
    return replace(kind, separator=separator)


def _classes_of(
    rows: Sequence[clip_rows.Row], kind: LabelKind, whole: bool, problems: Problems
) -> list[str]:
    """Return the names in all labels, in order; report a single class if `whole`."""
    names = sorted({str(name) for label in {row.label for row in rows} for name in label})
    if rows and whole and kind.exclusive and len(names) < 2:
        problems.add(0, f"there is only one class, {names}; a {kind.task} task needs at least two")
    return names


def _is_synthetic(table: tables.TableRows, problems: Problems) -> bool:
    """Check the kind and version of a table, and return True if it states synthetic data."""
    version = tables.MANIFEST_VERSION
    if table.kind not in ("", "manifest"):
        problems.add(1, f"expected a manifest, got a file of mvemo {table.kind}")
    elif table.kind and table.version != version:
        problems.add(1, f"manifest version: expected {version}, got {table.version}")
    synthetic = table.setting("synthetic", "false").lower()
    if synthetic not in ("true", "false"):
        message = f"synthetic: expected true or false, got {synthetic!r}"
        problems.add(table.line("synthetic"), message)
    return synthetic == "true"


def _check_scale(
    scale: str, line: int, classes: Sequence[str], rows: Sequence[clip_rows.Row], problems: Problems
) -> None:
    try:
        low, high = label_kinds.parse_scale(scale)
    except ValueError as error:
        problems.add(line, str(error))
        return
    for row in rows:
        for name, value in zip(classes, map(float, row.label), strict=True):
            # NaN stands for a cell that is not a number, which is reported elsewhere.
            if name.lower() in label_kinds.PLANE and (value < low or value > high):
                problems.add(row.line, f"{name} {value:g} is outside the scale {scale}")


def _media_root(table: tables.TableRows, given: ManifestOptions, problems: Problems) -> Path:
    """Return the media root: given, stated, common to all absolute paths, or the file's folder."""
    stated = table.setting("root", "")
    root = problems.path.parent / stated if given.root is None else Path(given.root)
    cells = table.cells("path")
    if given.root is None and not stated and all(map(os.path.isabs, cells)):
        # The whole file system is a root only if it is given explicitly.
        with suppress(ValueError):  # there are no rows, or the paths are on several drives
            folder = Path(os.path.commonpath([*map(os.path.dirname, cells)]))
            usable = folder.is_dir() or not given.media
            if usable and folder != folder.parent and not folder.is_relative_to(root.absolute()):
                root = folder
    report = problems.at(table.line("root"))
    if given.root is None and root.is_dir() and root.resolve() == Path(root.resolve().anchor):
        report(f"the media root {str(root)!r} is the whole file system: confirm it with --root")
    if given.media and not root.is_dir():
        report(f"the media root {str(root)!r} is not a folder")
    return root


def _blank_missing(
    table: tables.TableRows, names: Iterable[str], notes: list[str]
) -> tables.TableRows:
    """Return a user's table with empty cells for words such as NaN in columns that we read."""
    for name in sorted(names):
        cells = table.cells(name)
        words = {word for word in {*cells} - {""} if tables.is_missing(word, name == "label")}
        if words:
            missing = Counter(filter(words.__contains__, cells))
            table = table.with_cells(name, dict.fromkeys(missing, ""))
            listed = ", ".join(f"{word!r} in {n} rows" for word, n in missing.items())
            notes.append(f"{name}: {listed} counts as empty")
    return table


def _tidy_classes(table: tables.TableRows, notes: list[str]) -> tables.TableRows:
    """Return the table with one spelling of each class: no separator at an end, 0 for 0.0."""
    words = {*table.cells("label")}
    new = {word: word.strip(";|, ") for word in words}
    for word in words:
        with suppress(ValueError):
            names = tables.parse_names(word, ";") if word.startswith(tables.LISTS) else []
            new[word] = names[0] if len(names) == 1 else new[word]
    for word, name in new.items():
        whole = re.sub(r"\.0+$", "", name)
        new[word] = whole if whole in new.values() else name
    alike = Counter(name.casefold() for name in {*new.values()})
    if cased := sorted(name for name in {*new.values()} if alike[name.casefold()] > 1):
        notes.append(f"label: some classes differ only in case: {', '.join(map(repr, cased[:6]))}")
    changed = {word: name for word, name in new.items() if word != name}
    if changed:
        listed = ", ".join(f"{word!r} as {name!r}" for word, name in sorted(changed.items())[:5])
        notes.append(f"label: some cells are read in another spelling, {listed}")
    return table.with_cells("label", changed) if changed else table


def _without_unlabelled(
    table: tables.TableRows, names: Sequence[str], notes: list[str]
) -> tables.TableRows:
    places = [table.header.index(name) for name in names if name in table.header]
    kept = [*table.rows[1:]]
    if places:
        kept = [row for row in kept if "".join(row[1][i] for i in places if row[1][i:]).strip()]
    notes.append(f"{len(table.rows[1:]) - len(kept)} rows without a label are left out")
    return replace(table, rows=(*table.rows[:1], *kept))


def _stated_task(
    table: tables.TableRows, given: ManifestOptions, problems: Problems
) -> Task | None:
    """Return the task given by the caller or stated in the file; None if neither states it."""
    if given.task is not None or given.separator is not None:
        return given.task or "multilabel"
    if not {"task", "classes"} & table.settings.keys():
        return None
    word, known = table.setting("task", "multiclass").lower(), label_kinds.TASKS
    for task in (*known, UNLABELLED):
        if task == word:
            return task
    problems.add(table.line("task"), f"unknown task {word!r}; expected one of {', '.join(known)}")
    return "multiclass"


def _recognised(
    table: tables.TableRows, given: ManifestOptions, task: Task | None, problems: Problems
) -> tuple[tables.TableRows, recognition.Recognised]:
    """Return the table with its columns renamed to ours, and the meaning of the columns.

    In a file of mvemo, only targets and tags that it does not list are recognised.
    """
    if table.kind and "classes" in table.settings:
        return table, recognition.Recognised(task=task or "multiclass")
    named = {ours: ours for ours in given.columns}
    fixed = {name: name for name in table.header if name in tables.RESERVED} if table.kind else {}
    found = recognition.recognise(table, fixed | named, task)
    if table.kind:
        only_clips = {*table.header} <= {"", *tables.RESERVED[1:]}
        task = task or (UNLABELLED if only_clips else "multiclass")
        known = recognition.Recognised(task=task, targets=found.targets)
        return table.renamed(found.targets), known
    for question in found.questions:
        problems.add(0, question)
    chosen = {n: n for n in given.columns if n not in (*tables.RESERVED, *found.columns)}
    if chosen and task:
        # The user named all targets or tags, so no other column is the label.
        columns = {k: v for k, v in found.columns.items() if k != "label" or k in given.columns}
        found = replace(found, targets=chosen, columns=columns)
    if "classes" in table.settings:
        found = replace(found, targets={})
    try:
        return table.renamed(found.renamed), found
    except BadText as error:
        problems.add(*error.args)
        return table, found


def _stated_classes(
    table: tables.TableRows,
    kind: LabelKind,
    spread: bool,
    found: recognition.Recognised,
    problems: Problems,
) -> list[str] | None:
    """Return the stated classes, or the recognised targets or tags; None if there are none."""
    classes: list[str] | None = None
    report = problems.at(table.line("classes"))
    if "classes" in table.settings:
        try:
            classes = tables.parse_names(table.settings["classes"][1], ",")
        except ValueError as error:
            report(str(error))
    if classes is None and spread:
        classes = [*found.targets]
        if not classes and not found.questions:
            needed = (
                "columns of targets: name each by --column NAME=COLUMN of 'mvemo manifest "
                "import', or all in a line `# classes:`"
                if kind.numeric
                else "a column label, or a column of 0 and 1 for each tag"
            )
            problems.add(0, f"a {kind.task} manifest needs {needed}")
    if classes is None:
        return None
    classes = [*map(tables.plain_text, classes)]
    if repeated := sorted(name for name, n in Counter(classes).items() if n > 1):
        report(f"duplicate class names: {', '.join(map(repr, repeated))}")
    if "" in classes:
        report("a class has an empty name")
    if kind.exclusive and len(classes) < 2:
        report(f"got {len(classes)} class(es); a {kind.task} task needs at least two")
    if spread:
        if clash := sorted(set(classes) & set(tables.RESERVED)):
            what = "targets" if kind.numeric else "columns of tags"
            report(f"{what} must not be named {', '.join(map(repr, clash))}")
        classes = [name for name in classes if name not in tables.RESERVED]
    return classes


def _order_names(rows: Sequence[clip_rows.Row], classes: Sequence[str]) -> None:
    """Remove repeated names from each row's label, and sort them in the order of the classes."""
    order = {name: i for i, name in enumerate(classes)}
    for row in rows:
        if len(row.label) > 1:
            row.label = tuple(sorted({*map(str, row.label)}, key=order.__getitem__))


def _check_names(rows: Sequence[clip_rows.Row], kind: LabelKind, problems: Problems) -> None:
    """Report names that differ only in case, and tags that contain a separator of tags."""
    lines = {row.label: row.line for row in reversed(rows)}
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    for label, n in Counter(map(attrgetter("label"), rows)).items():
        for name in map(str, label):
            counts[name] += n
            first.setdefault(name, lines[label])
    usual: dict[str, str] = {}
    for name in sorted(first, key=lambda name: (-counts[name], name)):
        other = usual.setdefault(name.casefold(), name)
        if other != name:
            clips = f"{counts[name]} and {counts[other]} clips"
            text = f"label {name!r} differs from {other!r} only in case ({clips})"
            problems.add(first[name], f"{text}: write both in the same way")
    for mark in "" if kind.exclusive else "|,":
        joined = {tag: [p.strip() for p in tag.split(mark)] for tag in first if mark in tag}
        parts = Counter([*first, *(part for parts in joined.values() for part in parts)])
        for tag in joined:
            if any(parts[part] > 1 for part in joined[tag]):
                what = f"{tag!r} is read as one tag: separate the tags of a clip by ';'"
                problems.add(first[tag], f"{what}, not by {mark!r}")
                return

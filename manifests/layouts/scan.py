"""Manifests made from folders of clips, by the layouts of published data sets."""

import os
import posixpath
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mvemo.manifests.clip_rows import Row, finish_rows
from mvemo.manifests.errors import BadManifest, MissingFile, Problems
from mvemo.manifests.labels import UNLABELLED
from mvemo.manifests.layouts.file_names import RAVDESS, FoundClips, with_inferred_groups
from mvemo.manifests.layouts.layout_clips import find_by_layout, has_tables
from mvemo.manifests.layouts.layout_file import SPLITS, Layout, layouts, plugged_layout
from mvemo.manifests.model import Manifest
from mvemo.manifests.plugins import plugins
from mvemo.manifests.schemes import apply_scheme, find_scheme
from mvemo.manifests.splits.assignment import part_of
from mvemo.manifests.tables import plain_text
from mvemo.manifests.text_files import read_toml
from mvemo.manifests.text_table import escaped, listed

# Layouts that no TOML file declares.
LAYOUTS = ("auto", "class-folders", RAVDESS.name)

BAD_NAME = "its name has a line break or other characters that a table cannot hold; rename it"
UNKNOWN = "unknown type of media file"
LINK = "a link that leads out of the folder; give --follow-links to include it"

# fmt: off
VIDEO_SUFFIXES = frozenset([
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg",
    ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv",
])
AUDIO_SUFFIXES = frozenset([
    ".aac", ".ac3", ".aif", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mp3",
    ".oga", ".ogg", ".opus", ".wav", ".wma",
])
# fmt: on


@dataclass(frozen=True)
class Scan:
    """Manifest of a folder, and the files that are left out."""

    manifest: Manifest  # one clip per media file, sorted by path
    # (path relative to the folder, reason) of each file that is not a clip. Hidden files and files
    # of mvemo are not listed.
    left_out: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...] = ()  # differences from the published data set

    def notes(self, most: int = 10) -> tuple[str, ...]:
        """Return the remarks, and for each reason a line with the first `most` files left out."""
        return (*self.remarks, *left_out_notes(self.left_out, most))


def left_out_notes(left_out: Sequence[tuple[str, str]], most: int = 10) -> list[str]:
    """Return for each reason in `Scan.left_out` a line with the first `most` files."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in left_out:
        by_reason.setdefault(reason, []).append(repr(path))
    return [f"{len(p)} left out ({why}): {listed(p, most)}" for why, p in by_reason.items()]


@dataclass(frozen=True)
class Selection:
    """Selection of clips and tags of a data set; None stands for the layout's default."""

    channel: str | None = None  # RAVDESS: vocal channel of the clips
    # RAVDESS: kind of the clips; default: one copy of each take, with pictures if it has them.
    modality: str | None = None
    intensity: str | None = None  # RAVDESS: intensity of the clips
    tags: str | None = None  # CAL500: emotion (the default), all, or names separated by commas
    split_number: int = 0  # declared layouts: number of the split, if there are several

    def check(self, layout: str, declared: Layout | None, folder: Path) -> None:
        """Raise `BadManifest` for a value that is unknown or that the layout does not support."""
        for key, name in RAVDESS.select.items():
            value, allowed = getattr(self, key), RAVDESS.fields[key]
            if value not in (None, *allowed):
                listing = ", ".join(allowed)
                raise BadManifest(f"unknown {name} {value!r}; expected one of {listing}")
            if value is not None and layout != RAVDESS.name:
                raise BadManifest(f"{folder}: {name} {value!r} needs the {RAVDESS.name} layout")
        if self.tags is not None and (declared is None or declared.tag_columns is None):
            raise BadManifest(
                f"{folder}: tags {self.tags!r} need a layout with a column for each tag, such as "
                f"cal500, not {layout}"
            )


def scan_clips(
    folder: str | Path,
    *,
    infer_groups: bool = False,
    name: str | None = None,
    layout: str = "auto",
    select: Selection | None = None,
    follow_links: bool = False,
    labels: bool = True,
    media: bool = True,
) -> Scan:
    """Find the clips of a folder and their labels.

    Layouts: ``class-folders`` has one folder per class, with media files anywhere below it. If all
    folders are named like splits (Train, Validation, ...), the classes are one level further down
    and the split is kept. ``ravdess`` reads emotion and actor (the group) from file names, and
    keeps one copy of each take. Other layouts are declared by TOML files (`mvemo manifest
    layouts`). ``auto`` recognises these layouts, and declared ones with ``recognised = true``; a
    folder without class folders gives a manifest without labels.

    Parameters
    ----------
    folder
        Root of the manifest.
    infer_groups
        If True, group clips in class folders by the source in their names (`source_of`).
    name
        Name of the manifest; default: the folder's name.
    layout
        One of `LAYOUTS`, the name of a declared layout, or the path of a TOML file.
    select
        Selection of the data set's clips and tags; None for the layout's defaults.
    follow_links
        If True, links may lead out of the folder; otherwise such links are left out.
    labels
        If False, take all media files without labels, in any folders.
    media
        If False, take all clips of a declared layout's tables, without media files.

    Raises
    ------
    MissingFile
        The folder does not exist.
    BadManifest
        There are no clips or fewer than two classes, the layout is unknown, or it does not support
        the selection.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for name in ("calm/a.mp3", "tense/b.mp3", "tense/notes.txt"):
    ...     (folder / name).parent.mkdir(exist_ok=True)
    ...     (folder / name).touch()
    >>> scan = scan_clips(folder)
    >>> scan.manifest.clip_ids, scan.notes()
    (('calm/a', 'tense/b'), ("1 left out (unknown type of media file): 'tense/notes.txt'",))
    """
    folder = Path(folder)
    if not folder.exists():
        raise MissingFile(f"{folder}: no such folder")
    if not folder.is_dir():
        raise BadManifest(f"{folder}: expected a folder of clips, got a file")
    declared = _declared(layout)
    if not media and (declared is None or declared.folders):
        raise BadManifest(f"{folder}: --no-media needs a --layout with tables, not {layout}")
    left_out: list[tuple[str, str]] = []
    paths = find_media(folder, left_out, follow_links) if media else None
    if paths == []:
        raise _without_media(folder, declared, left_out)
    select, files = select or Selection(), paths or []
    if layout == "auto":
        layout = _layout_of(folder, files) if labels else "class-folders"
        declared = _declared(layout)
    select.check(layout, declared, folder)
    tables = declared is not None and not declared.folders
    if tables:
        left_out = []  # it lists the tables, which are used
    if declared is not None and tables:
        found = find_by_layout(declared, folder, paths, select.split_number, select.tags)
    elif layout == RAVDESS.name:
        found = RAVDESS.find({path: _stem(path) for path in files}, vars(select))
    else:
        found = _class_folders(files, labels)
    left_out += found.left_out
    first = f"; left out: {left_out[0][0]!r} ({left_out[0][1]})" if left_out else ""
    if not found.rows:
        raise BadManifest(f"{folder}: no clip matches the layout {layout}{first}")
    if found.task == "multiclass" and len(found.classes) < 2:
        only = f"there is only one class, {found.classes[0]!r}; at least two are needed"
        raise BadManifest(f"{folder}: {only}{first}")
    problems = Problems(folder)
    finish_rows(found.rows, problems)
    problems.raise_any()
    name = name or folder.resolve().name or "clips"
    clips = tuple(row.clip() for row in found.rows)
    scale = "" if declared is None else declared.scale
    manifest = Manifest(name, found.task, tuple(found.classes), clips, folder, scale=scale)
    if (infer_groups and layout == "class-folders") or (declared is not None and not tables):
        manifest = with_inferred_groups(manifest)
    remarks = found.remarks
    if declared is not None and declared.scheme:
        manifest, notes = apply_scheme(manifest, find_scheme(declared.scheme), drop_unmapped=True)
        remarks += notes
    return Scan(manifest, tuple(sorted(left_out)), remarks)


def _without_media(
    folder: Path, declared: Layout | None, left_out: Sequence[tuple[str, str]]
) -> BadManifest:
    """Return the error for a folder without media files."""
    if n_links := sum(reason == LINK for _, reason in left_out):
        return BadManifest(
            f"{folder}: has no media files except {n_links} links that lead out of it, such as "
            f"{min(left_out)[0]!r}: give --follow-links to include them"
        )
    cure = "give --no-media to list the clips without them"
    cure = "expected a folder of clips per class" if declared is None else cure
    return BadManifest(f"{folder}: has no media files; {cure}")


def _declared(layout: str) -> Layout | None:
    """Return a layout that a TOML file declares; None for one of `LAYOUTS`."""
    if layout in LAYOUTS:
        return None
    if layout.endswith(".toml"):
        found: Layout = read_toml(Path(layout), Layout)
        return found
    known = layouts()
    if layout not in known and layout in plugins("layouts"):
        return plugged_layout(layout)
    if layout not in known:
        names = ", ".join([*LAYOUTS, *known])
        raise BadManifest(f"unknown layout {layout!r}; expected a TOML file, or one of {names}")
    return known[layout]


def _layout_of(folder: Path, paths: Sequence[str]) -> str:
    if all(RAVDESS.parse(_stem(path)) for path in paths):
        return RAVDESS.name
    known = [one for one in layouts().values() if one.recognised and has_tables(one, folder)]
    if len(known) > 1:
        names = " or ".join(f"--layout {one.name}" for one in known)
        raise BadManifest(f"{folder}: has the tables of several data sets: give {names}")
    return known[0].name if known else "class-folders"


def _stem(path: str) -> str:
    return posixpath.splitext(posixpath.basename(path))[0]


def _class_folders(paths: Sequence[str], labels: bool) -> FoundClips:
    """Return the clips in class folders; without class folders, all clips, unlabelled."""
    parts = {part_of(path.split("/")[0]) for path in paths if "/" in path}
    depth = int(bool(parts) and None not in parts)  # 1 for folders of splits above the classes
    rows = []
    left_out = []
    for number, path in enumerate(paths if labels else (), start=1):
        folders = path.split("/")[:-1]
        if len(folders) <= depth:
            left_out.append((path, "not in a class folder"))
            continue
        split = SPLITS[part_of(folders[0]) or 0] if depth else None
        rows.append(Row(number, path, label=(plain_text(folders[depth].strip()),), split=split))
    if rows:
        return FoundClips(rows, sorted({str(row.label[0]) for row in rows}), left_out=left_out)
    remark = "no clip is in a class folder: the manifest has no labels"
    rows = [Row(number, path) for number, path in enumerate(paths, start=1)]
    return FoundClips(rows, (), UNLABELLED, remarks=(remark,) if labels else ())


def find_media(folder: Path, left_out: list[tuple[str, str]], follow_links: bool) -> list[str]:
    """Return sorted paths of media files relative to the folder; add others to `left_out`."""
    paths = []
    seen = set()
    root = os.path.join(os.path.realpath(folder), "")

    def unreadable(error: OSError) -> None:
        path = Path(error.filename).relative_to(folder).as_posix()
        left_out.append((path, f"the folder cannot be read: {error.strerror}"))

    for parent, folders, files in os.walk(folder, followlinks=True, onerror=unreadable):
        # Without this check, a link to a parent folder would cause an endless loop.
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        here = Path(parent).relative_to(folder)
        if not follow_links and not os.path.join(real, "").startswith(root):
            left_out.append((here.as_posix(), LINK))
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for file in files:
            if file.startswith("."):
                continue
            path = (here / file).as_posix()
            reason = _why_left_out(os.path.join(parent, file), path, "" if follow_links else root)
            if reason is None:
                paths.append(path)
            elif reason:
                left_out.append((path, reason))
    return sorted(paths)


def _why_left_out(place: str, path: str, root: str) -> str | None:
    """Return why a file is left out; empty for a file that mvemo wrote, None for a clip."""
    is_media = posixpath.splitext(path)[1].lower() in VIDEO_SUFFIXES | AUDIO_SUFFIXES
    if is_media and escaped(path) != path:
        return BAD_NAME
    try:
        if not stat.S_ISREG(os.stat(place).st_mode):
            # Such files are never opened: a pipe would block.
            return "a pipe, socket or device, not a file"
    except OSError as error:
        return f"cannot be accessed: {error.strerror}"
    if is_media:
        linked = root and os.path.islink(place)
        return LINK if linked and not os.path.realpath(place).startswith(root) else None
    with suppress(OSError), open(place, "rb") as file:
        first = file.readline(1 << 20)
        if first.startswith(b"# mvemo ") or b'"mvemo: {' in first:
            return ""
    return UNKNOWN

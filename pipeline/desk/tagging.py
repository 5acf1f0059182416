"""Moods in the tags of sound and video files, written atomically and undone from a journal.

A file is copied next to itself, the copy is tagged, its streams are compared with those of the
file, the former values go into the journal, and the copy replaces the file. Mode and owner stay;
the time of modification becomes the present, so that players read the tags again.

Each call of `write_tags` is one tagging, and `plan_undo` takes back the last one that is not yet
undone: a file gets its former values if its sound and its values are those of the journal.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from mvemo.manifests.errors import BadOption, DiskFailed
from mvemo.manifests.files import replacing, stamp_of
from mvemo.manifests.journal import Journal
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.console.messages import tell_note

# Names of the tags: mood, and a pattern for ratings and the model, by the kind of a file's tags.
NAMES = {
    "ID3": ("TMOO", "TXXX:mvemo {}"),
    "VComment": ("MOOD", "MVEMO_{}"),
    "MP4Tags": ("----:com.apple.iTunes:MOOD", "----:com.apple.iTunes:mvemo {}"),
}
Values = dict[str, list[str] | None]  # None for a tag that the file lacks
Entry = dict[str, Any]  # fields of `_ENTRY`, or ``undone`` (a tagging) and ``path``
_ENTRY = {"run", "path", "size", "had_tags", "sound", "old", "new"}
# Characters of the keys of Vorbis comments, other than letters, digits and '_.-'.
_SAFE = "!\"#$&'()*+,/:;<>?@[\\]^`{|}"


@dataclass(frozen=True)
class Change:
    """New values of a file's tags, and the replaced ones."""

    path: Path
    old: Values
    new: Values
    undoes: Entry | None = None  # entry of the journal that is undone


class BadTags(Exception):
    """Failure to tag one file; it is unchanged."""


def open_tags(path: Path, easy: bool = False) -> Any:
    """Open a file with mutagen; return None if mutagen cannot read its tags."""
    try:
        import mutagen
    except ImportError:
        raise BadOption("tags need the package mutagen: run pip install 'mvemo[serve]'") from None
    try:
        return mutagen.File(path, easy=easy)
    except Exception:
        # Mutagen raises many kinds of errors for damaged files, such as struct.error.
        return None


def song_facts(path: Path) -> dict[str, Any]:
    """Return ``path``, and ``title``, ``artist`` and ``duration`` (seconds) of a file's own tags.

    The title of a file without one is its name; other facts that are not known are None.
    """
    opened = open_tags(path, easy=True)
    tags = {} if opened is None or opened.tags is None else opened.tags
    facts: dict[str, str | None] = {"title": None, "artist": None}
    for name in facts:
        with suppress(ValueError, KeyError):
            facts[name] = ", ".join(map(str, tags.get(name) or ())) or None
    duration = getattr(getattr(opened, "info", None), "length", None) or None
    title = facts["title"] or path.stem
    return {"path": path, "title": title, "artist": facts["artist"], "duration": duration}


# --- plan


def plan_tags(wanted: Mapping[Path, Mapping[str, list[str]]]) -> tuple[list[Change], list[str]]:
    """Return the changes that give each file its tags, and a line for each file without.

    `wanted` maps files to values by ``mood``, by a rating's name, and by ``model``.
    """
    changes, skipped = [], []
    for path, values in wanted.items():
        try:
            opened = _openable(path)
            new = _named(_kind(opened), values)
            old = _values(opened, new)
        except BadTags as problem:
            skipped.append(f"{path}: {problem}")
            continue
        if old != new:
            changes.append(Change(path, old, new))
    return changes, skipped


def _named(kind: str, values: Mapping[str, list[str]]) -> Values:
    """Return values by the names of tags of this kind."""
    mood, other = NAMES[kind]
    new: Values = {}
    for key, texts in values.items():
        try:
            "".join([key, *texts]).encode()
            if kind == "VComment":
                # Keys are printable ASCII without '='.
                key = quote(key.upper().replace(" ", "_"), safe=_SAFE).replace("~", "%7E")
        except UnicodeEncodeError:
            raise BadTags(f"{key!r}: {texts} has half a character (a lone surrogate)") from None
        new[mood if key.lower() == "mood" else other.format(key)] = texts
    if len(new) < len(values):
        raise BadTags(f"two of the names {', '.join(values)} have the same tag")
    return new


def plan_undo(journal: Path) -> tuple[list[Change], list[str]]:
    """Return the changes that undo the last tagging of a journal, and a line for each other file.

    Taggings of which no file can be undone are passed over, and their files are named.
    """
    entries, n_bad = Journal(journal).read(_entry)
    if not entries:
        raise BadOption(f"{journal}: expected a journal of mvemo tag, got no whole line of one")
    if n_bad:
        tell_note(f"{journal}: {n_bad} incomplete or unknown lines were left out")
    skipped: list[str] = []
    runs: dict[str, dict[str, Entry]] = {}
    for entry in entries:
        if "undone" in entry:
            runs.get(entry["undone"], {}).pop(entry["path"], None)
        else:
            runs.setdefault(entry["run"], {})[entry["path"]] = entry
    changes: list[Change] = []
    while runs and not changes:
        for entry in runs.popitem()[1].values():
            try:
                changes += _undoing(entry)
            except BadTags as problem:
                skipped.append(f"{entry['path']}: {problem}")
    return changes, [*dict.fromkeys(skipped)]


def _entry(entry: Any) -> Entry:
    """Return an entry of a journal; ValueError or TypeError if it is none."""
    if not {*entry} >= _ENTRY and not {"undone", "path"} <= {*entry}:
        raise ValueError
    values = {key: {**entry.get(key, {})} for key in ("old", "new")}
    return {**entry, **values, "path": str(Path(entry["path"]))}


def _undoing(entry: Entry) -> list[Change]:
    """Return the change that undoes an entry; none if the file has its former values."""
    path = Path(entry["path"])
    now = _values(_openable(path), entry["new"])
    if _read_streams(path)[0] != entry["sound"]:
        raise BadTags("is another file than the one that mvemo tagged: left as it is")
    if now == entry["old"]:
        return []
    if now != entry["new"]:
        raise BadTags("its tags were changed after mvemo wrote them: left as they are")
    return [Change(path, now, entry["old"], entry)]


def _openable(path: Path) -> Any:
    """Open a file that may be replaced, with tags that can be written; BadTags for others."""
    if path.is_symlink():
        raise BadTags("is a symbolic link: tag the file that it leads to")
    if not path.is_file():
        raise BadTags("no such file")
    if (links := path.stat().st_nlink) > 1:
        raise BadTags(f"has {links} names (hard links), of which only one would be tagged")
    if not os.access(path, os.W_OK) or not path.stat().st_mode & 0o222:
        raise BadTags("is read-only")
    if not os.access(path.parent, os.W_OK):
        raise BadTags("its folder is read-only")
    if (opened := _open(path)) is None:
        raise BadTags("this format has no tags that mvemo can write")
    return opened


def show(changes: list[Change]) -> None:
    """Print a table with the old and the new value of each tag."""
    rows = [
        [str(change.path), name, "; ".join(change.old[name] or ["-"]), "; ".join(value or ["-"])]
        for change in changes
        for name, value in change.new.items()
        if value != change.old[name]
    ]
    for line in align_columns([["file", "tag", "old", "new"], *rows], left=range(4)):
        click.echo(line)


# --- tags of one file


def _kind(opened: Any) -> str:
    """Return the key of `NAMES` for a file's tags, or ''."""
    return next((k.__name__ for k in type(opened.tags).__mro__ if k.__name__ in NAMES), "")


def _open(path: Path, kind: Any = None) -> Any:
    """Open a file with its tags as they are; None if there is no way to write tags."""
    opened = open_tags(path) if kind is None else kind(path)
    if opened is None:
        return None
    opened = _with_tags(opened)
    if _kind(opened) == "ID3":
        return _open_id3(path, type(opened))
    if _kind(opened) == "VComment" and any("\ufffd" in "".join(pair) for pair in opened.tags):
        raise BadTags("has comments that are not UTF-8, which would be lost")
    return opened if _kind(opened) else None


def _open_id3(path: Path, kind: Any) -> Any:
    """Open a file with ID3 tags, other frames than mvemo's as bytes; BadTags if any is lost."""
    from mutagen import MutagenError

    id3: Any = import_module("mutagen.id3")
    # Without these options, frames of older versions, and of ID3v1, become those of ID3v2.4.
    as_is: dict[str, Any] = {"translate": False, "load_v1": False}
    try:
        opened = kind(path, known_frames={}, **as_is)
        if has_tags := opened.tags is not None:
            version, n_frames = opened.tags.version[:2], len(opened.tags.unknown_frames)
            # ID3v2.2 becomes ID3v2.3, which has other names, so that all frames must be known.
            frames = {name: getattr(id3, name) for name in ("TMOO", "TXXX")}
            opened = kind(path, known_frames=None if version == (2, 2) else frames, **as_is)
    except MutagenError as problem:
        raise BadTags(f"its ID3 tag cannot be read: {problem}") from None
    if has_tags:
        tags = opened.tags
        n_kept = len(tags) + len(tags.unknown_frames) * (version != (2, 2))
        if n_kept < n_frames:
            raise BadTags(
                f"{n_frames - n_kept} of {n_frames} frames of its ID3v2.{version[1]} tag are "
                "unknown, damaged or repeated, and would be lost"
            )
        if version == (2, 4):
            # The flag of the whole tag becomes one of each frame, and sizes have 7 bits a byte.
            unsynchronised = 2 * tags.f_unsynch
            tags.unknown_frames = [
                frame[:4]
                + id3.BitPaddedInt.to_str(len(frame) - 10, width=4)
                + bytes([frame[8], frame[9] | unsynchronised])
                + frame[10:]
                for frame in tags.unknown_frames
            ]
    return _with_tags(opened)


def _with_tags(opened: Any) -> Any:
    """Return the file with empty tags if it has none; `had_tags` is True if it has some."""
    import mutagen

    opened.had_tags = opened.tags is not None
    if not opened.had_tags:
        with suppress(mutagen.MutagenError, NotImplementedError):
            opened.add_tags()
    return opened


def _key(opened: Any, name: str) -> str:
    """Return mutagen's key of a tag: it writes names in MP4 as Latin-1, which must be UTF-8."""
    return name.encode().decode("latin-1") if _kind(opened) == "MP4Tags" else name


def _values(opened: Any, names: Mapping[str, Any]) -> Values:
    values: Values = {}
    for name in names:
        found = opened.tags.get(_key(opened, name))
        if found is not None and _kind(opened) == "MP4Tags":
            if any(value.dataformat != value.FORMAT_TEXT for value in found):
                raise BadTags(f"its {name} is no text, and would be lost")
            found = [bytes(value).decode("utf-8", "surrogateescape") for value in found]
        values[name] = None if found is None else [str(value) for value in found]
    return values


def _set(opened: Any, values: Values) -> None:
    # mutagen states few types.
    id3: Any = import_module("mutagen.id3")
    free_form: Any = import_module("mutagen.mp4").MP4FreeForm
    kind = _kind(opened)
    for name, texts in values.items():
        key = _key(opened, name)
        if texts is None:
            if key in opened.tags:
                del opened.tags[key]
        elif kind == "ID3":
            description = name.partition(":")[2]
            frame = id3.TXXX(3, description, texts) if description else id3.TMOO(3, texts)
            opened.tags.setall(name, [frame])
        elif kind == "MP4Tags":
            opened.tags[key] = [
                free_form(text.encode("utf-8", "surrogateescape")) for text in texts
            ]
        else:
            opened.tags[key] = texts


def _save(opened: Any, file: Path, change: Change) -> None:
    """Write the tags; an ID3v1 tag, and the version of an ID3v2 tag, stay as they were.

    Padding is used up, and given back when tags are undone.
    """
    undone = change.undoes
    grown = 0 if undone is None else file.stat().st_size - undone["size"]

    def padding(info: Any) -> int:
        return max(info.padding - grown, 0)

    tags, end = opened.tags, b""
    if type(tags).__name__ == "ID3":
        # Mutagen would write an ID3v1 tag (the last 128 bytes) anew, and does not know the footer
        # of an ID3v2.4 tag.
        with file.open("rb+") as target:
            if tags.size and tags._header.f_footer:
                import_module("mutagen._util").delete_bytes(target, 10, tags.size)
            start = max(target.seek(0, os.SEEK_END) - 128, 0)
            target.seek(start)
            if (end := target.read()).startswith(b"TAG"):
                target.truncate(start)
            else:
                end = b""
    has_others = bool(tags) or bool(getattr(tags, "unknown_frames", ()))
    if undone is not None and not undone["had_tags"] and not has_others:
        opened.delete(file)
    elif _kind(opened) == "ID3":
        version = 3 if tags.version[:2] in ((2, 2), (2, 3)) else 4
        opened.save(file, v2_version=version, v23_sep=None, padding=padding)
    else:
        opened.save(file, padding=padding)
    with file.open("ab") as tail:
        tail.write(end)


def _read_streams(path: Path) -> tuple[str, dict[str, str]]:
    """Return the SHA-256 of the packets of sound and video, and the tags that FFmpeg finds.

    Cover pictures and mvemo's own tags are left out.
    """
    from av.error import FFmpegError

    from mvemo.extract.errors import BadMedia
    from mvemo.extract.media.packets import open_container, sound_tracks, videos

    digests: dict[int, Any] = {}
    try:
        with open_container(path) as container:
            streams = [*videos(container), *sound_tracks(container)]
            for packet in container.demux(streams):
                if packet.size:
                    digest = digests.setdefault(packet.stream.index, hashlib.sha256())
                    digest.update(bytes(packet))
            tags = {**container.metadata}
            for stream in streams:
                tags |= {f"{stream.index} {name}": text for name, text in stream.metadata.items()}
    except (FFmpegError, BadMedia) as error:
        raise BadTags(f"its streams cannot be read: {error}") from None
    others = {n: t for n, t in tags.items() if not re.match(r"(\d+ )?(T?MOOD?$|mvemo)", n, re.I)}
    return " ".join(digests[i].hexdigest() for i in sorted(digests)), others


# --- writing


def write_tags(changes: Sequence[Change], journal: Path) -> list[str]:
    """Tag the files, and return a line for each file that failed and is unchanged.

    Former values are appended to the journal and flushed to the disk before a file is replaced.
    An undone change is noted in the journal afterwards. DiskFailed is raised for a disk that is
    full or cannot be written; files before this one are tagged, and in the journal.
    """
    failed, kept = [], Journal(journal)
    run = datetime.now(timezone.utc).isoformat()
    for i, change in enumerate(changes):
        try:
            _write(change, kept, run)
        except BadTags as problem:
            failed.append(f"{change.path}: is left as it was: {problem}")
        except DiskFailed as problem:
            raise DiskFailed(f"{problem}; {i - len(failed)} files before it are finished") from None
    return failed


def _write(change: Change, journal: Journal, run: str) -> None:
    """Replace a file by a tagged copy."""
    from mvemo.extract.store.contents import keep_content

    path, name = change.path, str(change.path.absolute())
    before, stamp = path.stat(), stamp_of(change.path)
    with replacing(path) as copy:
        shutil.copyfile(path, copy)
        shutil.copystat(path, copy)
        with suppress(PermissionError):
            os.chown(copy, before.st_uid, before.st_gid)
        entry = {"run": run, "path": name, "size": before.st_size, **_tag(copy, change)}
        if stamp_of(path) != stamp:
            raise BadTags("another program changed it")
        if change.undoes is None:
            journal.append([entry])
    keep_content(path, stamp)
    if change.undoes is not None:
        journal.append([{"undone": change.undoes["run"], "path": name}])


def _tag(copy: Path, change: Change) -> Entry:
    """Tag a copy, compare its streams and its other tags, and return what was found in it."""
    from mutagen import MutagenError

    try:
        kind = type(open_tags(change.path))
        streams = _read_streams(copy)
        opened = _open(copy, kind)
        old, had_tags = _values(opened, change.new), opened.had_tags
        undone = change.undoes
        if undone is not None and (streams[0], old) != (undone["sound"], change.old):
            raise BadTags("another program changed it")
        _set(opened, change.new)
        _save(opened, copy, change)
        saved = _read_streams(copy)
        if saved[0] != streams[0]:
            raise BadTags("mutagen would change its sound or pictures")
        # ID3 frames stay bytes; FFmpeg misreads unsynchronised ones of ID3v2.3.
        if saved[1] != streams[1] and _kind(opened) != "ID3":
            names = {name for name, _ in {*saved[1].items()} ^ {*streams[1].items()}}
            raise BadTags(f"mutagen would change its other tags: {', '.join(sorted(names))}")
        if _values(_open(copy, kind), change.new) != change.new:
            raise BadTags("the tags cannot be read back")
    except MutagenError as error:
        cause = error.args[0] if error.args else error
        if isinstance(cause, OSError):
            raise cause from None
        raise BadTags(str(error)) from None
    return {"had_tags": had_tags, "sound": streams[0], "old": old, "new": change.new}

"""Moods in the tags of sound and video files, written atomically and undone from a journal.

A file is copied next to itself, the copy is tagged, its streams are compared with those of the
file, the former values go into the journal, and the copy replaces the file. Mode and owner stay;
the time of modification becomes the present, so that players read the tags again.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from mvemo.manifests.files import parse_json, replacing
from mvemo.pipeline.errors import BadOption

# Names of the tags: mood, and a pattern for ratings and the model, by the kind of a file's tags.
NAMES = {
    "ID3": ("TMOO", "TXXX:mvemo {}"),
    "VComment": ("MOOD", "MVEMO_{}"),
    "MP4Tags": ("----:com.apple.iTunes:MOOD", "----:com.apple.iTunes:mvemo {}"),
}
Values = dict[str, list[str] | None]  # None for a tag that the file lacks
# Bytes of an ID3v1 tag, at the end of a file.
_V1 = 128


@dataclass(frozen=True)
class Change:
    """New values of a file's tags, and those that they replace."""

    path: Path
    old: Values
    new: Values
    # When undone: the file's former size; True to remove the tags if nothing else is in them.
    size: int | None = None
    removes: bool = False


class BadTags(Exception):
    """Failure to tag one file; it is unchanged."""


def open_tags(path: Path, easy: bool = False) -> Any:
    """Open a file with mutagen; return None if mutagen cannot read its tags.

    Raises
    ------
    BadOption
        Mutagen is not installed.
    """
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
    """Return ``title``, ``artist`` and ``duration`` (seconds) of a file's own tags.

    The title of a file without one is its name; other facts that are not known are None.
    """
    opened = open_tags(path, easy=True)
    tags = {} if opened is None or opened.tags is None else opened.tags
    facts = {}
    for name in ("title", "artist"):
        try:
            facts[name] = ", ".join(map(str, tags.get(name) or ())) or None
        except (ValueError, KeyError):
            facts[name] = None
    return {
        "title": facts["title"] or path.stem,
        "artist": facts["artist"],
        "duration": getattr(getattr(opened, "info", None), "length", None) or None,
    }


# --- plan


def plan_tags(wanted: Mapping[Path, Mapping[str, list[str]]]) -> tuple[list[Change], list[str]]:
    """Return the changes that give each file its tags, and a line for each file without.

    `wanted` maps files to values by ``mood``, by a rating's name, and by ``model``.
    """
    changes, skipped = [], []
    for path, values in wanted.items():
        problem = _problem(path)
        opened = None if problem else _open(path)
        if opened is None:
            skipped.append(f"{path}: {problem or 'this format has no tags that mvemo can write'}")
            continue
        mood, other = NAMES[_kind(opened)]
        new: Values = {
            mood if name == "mood" else other.format(name): text for name, text in values.items()
        }
        if _kind(opened) == "VComment":
            new = {name.upper().replace(" ", "_"): text for name, text in new.items()}
        old = _values(opened, new)
        if old != new:
            changes.append(Change(path, old, new))
    return changes, skipped


def plan_undo(journal: Path) -> tuple[list[Change], list[str]]:
    """Return the changes that restore the tags of a journal's files, and lines for the others."""
    first: dict[str, dict[str, Any]] = {}
    known: dict[str, list[Values]] = {}
    for entry in _entries(journal):
        kept = first.setdefault(entry["path"], {**entry, "old": {}})
        kept["old"] = {**entry["old"], **kept["old"]}
        known.setdefault(entry["path"], []).extend([entry["old"], entry["new"]])
    changes, skipped = [], []
    for name, entry in first.items():
        path, old = Path(name), entry["old"]
        opened = None if (problem := _problem(path)) else _open(path)
        if opened is None:
            skipped.append(f"{path}: {problem or 'its tags cannot be read'}")
            continue
        now = _values(opened, old)
        if not all(any(of.get(n, "") == now[n] for of in known[name]) for n in old):
            skipped.append(
                f"{path}: its tags were changed after mvemo wrote them: left as they are"
            )
        elif now != old:
            changes.append(Change(path, now, old, entry["size"], not entry["had_tags"]))
    return changes, skipped


def _entries(journal: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a journal; a last line that was cut off belongs to no changed file."""
    try:
        lines = journal.read_text(encoding="ascii").split("\n")[:-1]
        if not lines:
            raise BadOption(f"{journal}: expected a journal of mvemo tag, got no whole line")
        for i, line in enumerate(lines, start=1):
            entry = parse_json(line)
            if not isinstance(entry, dict) or not {"path", "old", "new", "size", "had_tags"} <= {
                *entry
            }:
                raise BadOption(f"{journal}:{i}: expected an entry of mvemo tag, got {line[:60]!r}")
            yield entry
    except (OSError, UnicodeDecodeError) as error:
        raise BadOption(f"{journal}: expected a journal of mvemo tag: {error}") from None
    except ValueError as error:
        raise error if isinstance(error, BadOption) else BadOption(f"{journal}: {error}") from None


def _problem(path: Path) -> str:
    """Return the reason why a file must not be replaced, or ''."""
    if path.is_symlink():
        return "is a symbolic link: tag the file that it leads to"
    if not path.is_file():
        return "no such file"
    if (links := path.stat().st_nlink) > 1:
        return f"has {links} names (hard links), of which only one would be tagged"
    if not os.access(path, os.W_OK) or not path.stat().st_mode & 0o222:
        return "is read-only"
    return "" if os.access(path.parent, os.W_OK) else "its folder is read-only"


# --- tags of one file


def _kind(opened: Any) -> str:
    """Return the key of `NAMES` for a file's tags, or ''."""
    return next((k.__name__ for k in type(opened.tags).__mro__ if k.__name__ in NAMES), "")


def _open(path: Path, kind: Any = None) -> Any:
    """Open a file with its tags as they are; None if there is no way to write tags."""
    opened = open_tags(path) if kind is None else kind(path)
    if opened is None:
        return None
    opened.had_tags = _had_tags(opened)
    name = _kind(opened)
    if name == "ID3":
        # Without these options, frames of older versions, and of ID3v1, become those of ID3v2.4.
        opened = type(opened)(path, translate=False, load_v1=False)
        opened.had_tags = _had_tags(opened)
    return opened if name else None


def _had_tags(opened: Any) -> bool:
    """Add empty tags to a file that has none; return True if it had tags."""
    import mutagen

    had = opened.tags is not None
    if not had:
        with suppress(mutagen.MutagenError, NotImplementedError):
            opened.add_tags()
    return had


def _values(opened: Any, names: Mapping[str, Any]) -> Values:
    values: Values = {}
    for name in names:
        found = opened.tags.get(name)
        if found is not None and _kind(opened) == "MP4Tags":
            found = [bytes(value).decode("utf-8", "replace") for value in found]
        values[name] = None if found is None else [str(value) for value in found]
    return values


def _set(opened: Any, values: Values) -> None:
    # mutagen states few types.
    id3: Any = import_module("mutagen.id3")
    free_form: Any = import_module("mutagen.mp4").MP4FreeForm
    kind = _kind(opened)
    for name, texts in values.items():
        if texts is None:
            if name in opened.tags:
                del opened.tags[name]
        elif kind == "ID3":
            description = name.partition(":")[2]
            frame = id3.TXXX(3, description, texts) if description else id3.TMOO(3, texts)
            opened.tags.setall(name, [frame])
        elif kind == "MP4Tags":
            opened.tags[name] = [free_form(text.encode()) for text in texts]
        else:
            opened.tags[name] = texts


def _save(opened: Any, file: Path, change: Change) -> None:
    """Write the tags; an ID3v1 tag, and the version of an ID3v2 tag, stay as they were.

    Padding is used up, and given back when tags are undone.
    """
    grown = 0 if change.size is None else file.stat().st_size - change.size

    def padding(info: Any) -> int:
        return max(info.padding - grown, 0)

    with file.open("rb") as source:
        source.seek(max(file.stat().st_size - _V1, 0))
        end = source.read()
    if change.removes and not opened.tags:
        opened.delete(file)
    elif _kind(opened) == "ID3":
        version = 3 if opened.tags.version[:2] in ((2, 2), (2, 3)) else 4
        opened.save(file, v2_version=version, v23_sep=None, padding=padding)
    else:
        opened.save(file, padding=padding)
    if _kind(opened) == "ID3" and end.startswith(b"TAG"):
        with file.open("rb+") as target:
            target.seek(-_V1, os.SEEK_END)
            if target.read(3) == b"TAG":
                target.seek(-_V1, os.SEEK_END)
            else:
                target.seek(0, os.SEEK_END)
            target.write(end)


def stream_digest(path: Path) -> str:
    """Return the SHA-256 of the packets of a file's sound and video, without cover pictures."""
    from av.error import FFmpegError

    from mvemo.extract.media.packets import open_container, sound_tracks, videos

    digests: dict[int, Any] = {}
    try:
        with open_container(path) as container:
            for packet in container.demux([*videos(container), *sound_tracks(container)]):
                if packet.size:
                    digest = digests.setdefault(packet.stream.index, hashlib.sha256())
                    digest.update(bytes(packet))
    except FFmpegError as error:
        raise BadTags(f"its streams cannot be read: {error}") from None
    return " ".join(digests[i].hexdigest() for i in sorted(digests))


# --- writing


def write_tags(changes: Sequence[Change], journal: Path | None) -> list[str]:
    """Tag the files, and return a line for each file that failed and is unchanged.

    Former values are appended to the journal and flushed to the disk before a file is replaced.

    Raises
    ------
    BadOption
        A disk is full or cannot be written; files before this one are tagged, and in the journal.
    """
    failed = []
    for i, change in enumerate(changes):
        try:
            _write(change, journal)
        except BadTags as problem:
            failed.append(f"{change.path}: is left as it was: {problem}")
        except BadOption as problem:
            raise BadOption(f"{problem}; {i - len(failed)} files before it are finished") from None
    return failed


def _write(change: Change, journal: Path | None) -> None:
    """Replace a file by a tagged copy."""
    from mutagen import MutagenError

    from mvemo.extract.errors import BadMedia

    path = change.path
    before = path.stat()
    with replacing(path, error=BadOption) as copy:
        try:
            shutil.copyfile(path, copy)
            shutil.copystat(path, copy)
            with suppress(PermissionError):
                os.chown(copy, before.st_uid, before.st_gid)
            sound = stream_digest(copy)
            opened = _open(copy, type(open_tags(path)))
            old, had_tags = _values(opened, change.new), opened.had_tags
            _set(opened, change.new)
            _save(opened, copy, change)
            if stream_digest(copy) != sound:
                raise BadTags("mutagen would change its sound or pictures")
            if _values(_open(copy, type(opened)), change.new) != change.new:
                raise BadTags("the tags cannot be read back")
        except (MutagenError, BadMedia) as error:
            cause = error.args[0] if error.args else error
            if isinstance(cause, OSError):
                raise cause from None
            raise BadTags(str(error)) from None
        if (path.stat().st_mtime_ns, path.stat().st_size) != (before.st_mtime_ns, before.st_size):
            raise BadTags("another program changed it")
        if journal is not None:
            entry = {"path": str(path.absolute()), "size": before.st_size, "had_tags": had_tags}
            with journal.open("a", encoding="ascii") as file:
                file.write(json.dumps({**entry, "old": old, "new": change.new}) + "\n")
                file.flush()
                os.fsync(file.fileno())

"""Facts in file names: sources of clips, and the numbers of RAVDESS (see ``ravdess.toml``)."""

import posixpath
import re
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mvemo.manifests.clip_rows import Row
from mvemo.manifests.errors import BadManifest
from mvemo.manifests.files import shown
from mvemo.manifests.labels import Names, Task
from mvemo.manifests.model import Manifest
from mvemo.manifests.tables import plain_text
from mvemo.manifests.text_files import read_toml

_WORDS = re.compile(r"[^\W_]+")
# Minimum length of a word in which one different letter counts as a typing error.
_LONG_WORD = 5
# Longest search for a user's pattern in one name, in seconds of processor time.
_SECONDS = 2
# Names such as `Exciting_MV_3GPP(57)-3-of-8`, written by tools that split long videos.
_PIECE = re.compile(r"(?P<source>.*?\S)[-_ ]+(?P<k>\d+)[-_ ]of[-_ ](?P<n>\d+)", re.IGNORECASE)


@dataclass
class FoundClips:
    """Clips that a layout finds in a folder."""

    rows: list[Row]
    classes: Names
    task: Task = "multiclass"
    # (name, reason) of files that are not clips, and of songs without a file.
    left_out: list[tuple[str, str]] = field(default_factory=list)
    remarks: tuple[str, ...] = ()  # differences from the published data set


@dataclass(frozen=True)
class NamedFiles:
    """Layout of a data set by its file names; the fields are described in ``ravdess.toml``."""

    name: str
    title: str
    fields: Mapping[str, tuple[str, ...]]  # values by field, in the order of their numbers
    label: str
    group: str
    copies: str
    preferred: tuple[str, ...]
    extra: tuple[str, ...]
    select: Mapping[str, str]

    def parse(self, stem: str) -> dict[str, str] | None:
        """Return the facts in a file name without suffix; None if the name has another format."""
        parts = stem.split("-")
        if len(parts) != len(self.fields) or not all(p.isdecimal() and len(p) == 2 for p in parts):
            return None
        numbers = dict(zip(self.fields, map(int, parts), strict=True))
        if not all(1 <= n <= len(self.fields[key]) for key, n in numbers.items()):
            return None
        return {key: self.fields[key][n - 1] for key, n in numbers.items()}

    def find(self, stems: Mapping[str, str], selected: Mapping[str, str | None]) -> FoundClips:
        """Return one clip per take with the selected values; `stems` maps paths to file names."""
        names = {}
        left_out = []
        for path, stem in stems.items():
            facts = self.parse(stem)
            if facts is None:
                left_out.append((path, f"its name is not in the format of {self.title}"))
            elif other := [k for k in self.select if selected.get(k) not in (None, facts[k])]:
                left_out.append((path, f"{self.select[other[0]]} is not {selected[other[0]]}"))
            else:
                names[path] = facts
        best: dict[tuple[str, ...], str] = {}
        for path in sorted(names, key=lambda path: self.preferred.index(names[path][self.copies])):
            take = (value for key, value in names[path].items() if key != self.copies)
            best.setdefault(tuple(take), path)
        used_paths = {*best.values()}
        rows: list[Row] = []
        for path, facts in names.items():
            if path not in used_paths:
                left_out.append((path, "another copy of the same take is used"))
                continue
            group = f"{self.group}-{facts[self.group]}"
            extra = tuple((key, facts[key]) for key in self.extra)
            rows.append(Row(len(rows) + 1, path, "", group, (facts[self.label],), extra=extra))
        used = {row.label[0] for row in rows}
        classes = [value for value in self.fields[self.label] if value in used]
        return FoundClips(rows, classes, left_out=left_out)


RAVDESS: NamedFiles = read_toml(Path(__file__).with_name("ravdess.toml"), NamedFiles)


def infer_group(stem: str) -> str:
    """Return X for a file name without suffix of the form ``X-k-of-n``, otherwise the name.

    Examples
    --------
    >>> infer_group("LLT_TENS(0)-5-of-9"), infer_group("DEAP_DB_HR(42)")
    ('LLT_TENS(0)', 'DEAP_DB_HR(42)')
    """
    piece = _PIECE.fullmatch(stem)
    return piece["source"] if piece and int(piece["k"]) <= int(piece["n"]) else stem


def source_of(path: str) -> str:
    """Return the source of a media file, inferred from its name in a path with forward slashes.

    A name means the same source in every folder, because pieces of one video occur under several
    classes and in both parts of published splits. A bare number has a meaning only in its folder,
    so the folder's name is put before it.

    Examples
    --------
    >>> source_of("Tension/LLT_TENS(0)-5-of-9.mp4"), source_of("Train/Sad/23.mp4")
    ('LLT_TENS(0)', 'Sad/23')
    """
    folder, file = posixpath.split(path)
    source = infer_group(posixpath.splitext(file)[0].strip())
    parent = posixpath.basename(folder).strip()
    return f"{parent}/{source}" if source.isdigit() and parent else source


def source_of_piece(path: str) -> str:
    """Return the source of a file or clip that is named as a piece, otherwise an empty text."""
    for stem in (path, posixpath.splitext(path)[0]):
        name = posixpath.basename(stem)
        if infer_group(name) != name:
            return source_of(f"{stem}.mp4")
    return ""


def with_inferred_groups(manifest: Manifest, pattern: str = "") -> Manifest:
    """Return the manifest with groups that are inferred from file names.

    Parameters
    ----------
    manifest
        Manifest of any clips.
    pattern
        Regular expression with one group in parentheses, the source. It is searched in the path
        without its suffix; clips without a match keep their group. If empty, `source_of` is used.

    Raises
    ------
    BadManifest
        The pattern is invalid, has no group, or matches no path.
    """
    names = [clip.path or clip.clip_id for clip in manifest.clips]
    groups = [*map(plain_text, _find_sources(names, pattern) if pattern else map(source_of, names))]
    if not any(groups):
        raise BadManifest(
            f"no path matches the group pattern {pattern!r}; the first path is "
            f"{manifest.clips[0].path!r}"
        )
    named = zip(manifest.clips, groups, strict=True)
    clips = tuple(replace(clip, group=group or clip.group) for clip, group in named)
    return replace(manifest, clips=clips)


def similar_groups(manifest: Manifest) -> list[tuple[str, str]]:
    """Return pairs of groups that differ by case, spaces or one letter, probably by mistake."""
    # Name without spaces, also with `?` for one letter -> first group with it.
    first: dict[str, str] = {}
    pairs = set()
    for group in sorted({clip.group for clip in manifest.clips if clip.group != clip.clip_id}):
        words = _WORDS.findall(group.casefold())
        for key in {"".join(words), *_with_a_letter_open(words)}:
            pairs.add((first.setdefault(key, group), group))
    return sorted(pair for pair in pairs if pair[0] != pair[1])


def _with_a_letter_open(words: Sequence[str]) -> Iterator[str]:
    """Yield the joined words with ``?`` for one letter of a long word, or ``?`` inserted."""
    for i, word in enumerate(words):
        if len(word) < _LONG_WORD or not word.isalpha():
            continue
        before, after = "".join(words[:i]), "".join(words[i + 1 :])
        for j in range(len(word) + 1):
            yield f"{before}{word[:j]}?{word[j + 1 :]}{after}"
            yield f"{before}{word[:j]}?{word[j:]}{after}"


def search(expression: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Search a user's pattern; raise `BadManifest` if that takes too long, as for ``(a+)+$``.

    The limit needs the main thread; `re` looks for signals while it matches.
    """

    def stop(*_: object) -> None:
        raise BadManifest(
            f"the pattern {expression.pattern!r} takes more than {_SECONDS} s for {shown(text)}: "
            "write it without a repetition in a repetition"
        )

    if threading.current_thread() is not threading.main_thread():
        return expression.search(text)
    former = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
    try:
        return expression.search(text)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, former)


def _find_sources(paths: Sequence[str], pattern: str) -> list[str]:
    """Return what the pattern's parentheses match in each path, or an empty text."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise BadManifest(f"invalid group pattern {pattern!r}: {error}") from None
    if expression.groups != 1:
        raise BadManifest(
            f"the group pattern {pattern!r} has {expression.groups} pairs of parentheses: "
            r"write exactly one, around the source, for example '(.+)_\d+'"
        )
    found = (search(expression, posixpath.splitext(path)[0]) for path in paths)
    return [(match and match[1]) or "" for match in found]

"""Source video or song of a clip, inferred from file names."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence

from mvemo.manifests.errors import BadManifest
from mvemo.manifests.model import Manifest
from mvemo.manifests.tables import plain_text

_WORDS = re.compile(r"[^\W_]+")
# Minimum length of a word in which one differing letter counts as a typing error.
_LONG_WORD = 5
# Names such as `Exciting_MV_3GPP(57)-3-of-8`, written by tools that divide long videos.
_PIECE = re.compile(r"(?P<source>.*?\S)[-_ ]+(?P<k>\d+)[-_ ]of[-_ ](?P<n>\d+)", re.IGNORECASE)


def infer_group(stem: str) -> str:
    """Return X for a file name of the form ``X-k-of-n``, otherwise the name itself.

    Parameters
    ----------
    stem
        File name without folder and suffix.

    Examples
    --------
    >>> infer_group("LLT_TENS(0)-5-of-9"), infer_group("DEAP_DB_HR(42)")
    ('LLT_TENS(0)', 'DEAP_DB_HR(42)')
    """
    piece = _PIECE.fullmatch(stem)
    if piece is None or int(piece["k"]) > int(piece["n"]):
        return stem
    return piece["source"]


def source_of(path: str) -> str:
    """Return the source of a media file, inferred from its name.

    A name means the same source in every folder, because pieces of one video occur under several
    classes and in both parts of published splits. A bare number has a meaning only in its folder,
    so the folder's name is put before it (``Sad/23``). Splits with equal class names then share
    such a source, which can only make a group larger.

    Parameters
    ----------
    path
        Path with forward slashes and suffix.

    Examples
    --------
    >>> source_of("Tension/LLT_TENS(0)-5-of-9.mp4"), source_of("Train/Sad/23.mp4")
    ('LLT_TENS(0)', 'Sad/23')
    """
    folder, file = posixpath.split(path)
    source = infer_group(posixpath.splitext(file)[0].strip())
    parent = posixpath.basename(folder).strip()
    return f"{parent}/{source}" if source.isdigit() and parent else source


def with_inferred_groups(manifest: Manifest, pattern: str = "") -> Manifest:
    """Return the manifest with groups that are inferred from file names.

    Parameters
    ----------
    manifest
        Manifest of any clips.
    pattern
        Regular expression with one group in parentheses, which matches the source. It is searched
        in the path without its suffix; clips without a match keep their group. If empty,
        `source_of` is used.

    Raises
    ------
    BadManifest
        The pattern is invalid, has no group, or matches no path.
    """
    find = _finder(pattern) if pattern else source_of
    groups = [plain_text(find(clip.path or clip.clip_id)) for clip in manifest.clips]
    if not any(groups):
        raise BadManifest(
            f"no path matches the pattern {pattern!r} of groups, as {manifest.clips[0].path!r}"
        )
    clips = tuple(
        dataclasses.replace(clip, group=group or clip.group)
        for clip, group in zip(manifest.clips, groups, strict=True)
    )
    return dataclasses.replace(manifest, clips=clips)


def similar_groups(manifest: Manifest) -> list[tuple[str, str]]:
    """Return pairs of groups that differ only by case, spaces or one letter.

    Such names are probably typing errors. Differences in digits and in short words, and clips that
    are groups of their own, do not count.

    Examples
    --------
    >>> from pathlib import Path
    >>> from mvemo.manifests import Clip
    >>> names = ["The Portait of a Lady", "The Portrait of a Lady", "Take 1", "Take 2"]
    >>> clips = tuple(Clip(str(i), f"{i}.mp3", ("sad",), g) for i, g in enumerate(names))
    >>> similar_groups(Manifest("films", "multiclass", ("sad",), clips, Path()))
    [('The Portait of a Lady', 'The Portrait of a Lady')]
    """
    groups = sorted({clip.group for clip in manifest.clips if clip.group != clip.clip_id})
    # Names by key: the name without spaces, and with one letter replaced by a gap.
    alike: dict[str, list[str]] = {}
    pairs = set()
    for group in groups:
        words = _WORDS.findall(group.casefold())
        for key in dict.fromkeys(["".join(words), *_with_a_letter_open(words)]):
            alike.setdefault(key, []).append(group)
    for names in alike.values():
        pairs |= {(names[0], name) for name in names[1:]}
    return sorted(pairs)


def _with_a_letter_open(words: Sequence[str]) -> Iterator[str]:
    """Yield the joined words with one letter of a long word replaced by a gap, or a gap added."""
    for i, word in enumerate(words):
        if len(word) < _LONG_WORD or not word.isalpha():
            continue
        before, after = "".join(words[:i]), "".join(words[i + 1 :])
        for j in range(len(word) + 1):
            yield f"{before}{word[:j]}?{word[j + 1 :]}{after}"
            yield f"{before}{word[:j]}?{word[j:]}{after}"


def _finder(pattern: str) -> Callable[[str], str]:
    """Return a function from a path to the text in the pattern's group, or to an empty text."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise BadManifest(f"invalid pattern of groups {pattern!r}: {error}") from None
    if expression.groups != 1:
        raise BadManifest(
            f"the pattern {pattern!r} of groups has {expression.groups} groups in parentheses: "
            r"write one, the source, as '(.+)_\d+'"
        )

    def find(path: str) -> str:
        match = expression.search(posixpath.splitext(path)[0])
        return (match[1] or "") if match else ""

    return find

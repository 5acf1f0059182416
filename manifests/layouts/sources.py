"""Which source video or song a clip is a piece of, by its file name."""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence

from mvemo.manifests.cells import plain_text
from mvemo.manifests.errors import BadManifest
from mvemo.manifests.model import Manifest

_WORDS = re.compile(r"[^\W_]+")
# Letters of a word in which one wrong letter is a typing error.
_LONG_WORD = 5
# `Exciting_MV_3GPP(57)-3-of-8`: the names that tools for dividing long videos write.
_PIECE = re.compile(r"(?P<source>.*?\S)[-_ ]+(?P<k>\d+)[-_ ]of[-_ ](?P<n>\d+)", re.IGNORECASE)


def infer_group(stem: str) -> str:
    """The source named by a file name of the form ``X-k-of-n``: X; else the name itself.

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
    """The source of a media file, by its name.

    A name is taken to mean the same source in every folder: pieces of one video are
    found under several classes and on both sides of a published split. A bare number
    means nothing outside its folder, so the folder's name is put before it
    (``Sad/23``); splits with equal class names then share it, which can only make a
    group larger, never let one straddle folds.

    Parameters
    ----------
    path
        With forward slashes and suffix.

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
    """The manifest with every group replaced by the source that the file name names.

    Parameters
    ----------
    manifest
        Of any clips.
    pattern
        Regular expression with one group in parentheses, the source, searched in the path
        without its suffix; clips whose path has no match keep their group. Empty:
        `source_of`.

    Raises
    ------
    BadManifest
        The pattern is none, has no group, or no path matches it.
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
    """Return pairs of groups that are probably one: they differ by case, spaces or one letter.

    Digits, short words and clips that are groups of their own are no typing errors.

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
    # What a name may have been, to the names: without spaces, and with one letter left open.
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
    """Yield the joined words with one letter of a long word replaced or added by a gap."""
    for i, word in enumerate(words):
        if len(word) < _LONG_WORD or not word.isalpha():
            continue
        before, after = "".join(words[:i]), "".join(words[i + 1 :])
        for j in range(len(word) + 1):
            yield f"{before}{word[:j]}?{word[j + 1 :]}{after}"
            yield f"{before}{word[:j]}?{word[j:]}{after}"


def _finder(pattern: str) -> Callable[[str], str]:
    """The function of a path that gives the text in a pattern's group; empty without one."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise BadManifest(f"the pattern {pattern!r} of groups is none: {error}") from None
    if expression.groups != 1:
        raise BadManifest(
            f"the pattern {pattern!r} of groups has {expression.groups} groups in parentheses: "
            r"write one, the source, as '(.+)_\d+'"
        )

    def find(path: str) -> str:
        match = expression.search(posixpath.splitext(path)[0])
        return (match[1] or "") if match else ""

    return find

"""Which source video or song a clip is a piece of, by its file name."""

from __future__ import annotations

import dataclasses
import posixpath
import re

from mvemo.manifests.model import Manifest

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


def with_inferred_groups(manifest: Manifest) -> Manifest:
    """The manifest with every group replaced by the source that the file name names."""
    clips = tuple(dataclasses.replace(c, group=source_of(c.path)) for c in manifest.clips)
    return dataclasses.replace(manifest, clips=clips)

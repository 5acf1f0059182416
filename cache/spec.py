"""Specification of a cached feature, and the keys computed from it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from mvemo.cache.errors import BadCache
from mvemo.cache.table import TEST, ClipTable
from mvemo.manifests.files import shown

# Modalities of our own extraction; imported features may have others.
MODALITIES = ("audio", "video")
# Modalities are short words because they are used in titles and keys of reports.
_MODALITY = re.compile(r"[a-z][a-z0-9_-]{0,19}")
_RESERVED = ("none", "all", "both")
Kind = Literal["vector", "sequence", "outputs"]
# "none": nothing was trained (a descriptor, a mel spectrogram).
Protocol = Literal["none", "frozen", "crossfit", "shared", "holdout", "imported"]
# Protocols whose nets were trained on clips of the manifest.
TRAINED: tuple[Protocol, ...] = ("crossfit", "shared", "holdout")

_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
)
# Parameter of sequences and vectors that are stored as float16.
STORAGE = "storage"
# Parameter of vectors that join several layers of equal size: the numbers of the layers.
LAYERS = "layers"
# float16: largest number, relative rounding error, and absolute rounding error of subnormal
# numbers (IEEE 754-2008, table 3.5: 11 bits of precision, minimum exponent -14).
HALF_LARGEST, HALF_RELATIVE, HALF_ABSOLUTE = 65504.0, 2.0**-11, 2.0**-25

# Parameter of a feature that says when clips were read; it does not count for a cache's digest.
UNDIGESTED = "undigested"


@dataclass(frozen=True)
class FeatureSpec:
    """Specification of everything that determines a feature's values for a given clip.

    Parameters
    ----------
    name
        Name in commands and reports, such as ``music1d``, ``i3d`` or ``mfcc``.
    modality
        ``audio``, ``video`` or another short word, such as ``lyrics`` (`check_modality`).
    kind
        ``vector``: float32 (dim,) per clip. ``sequence``: float32 (frames, dim) per clip.
        ``outputs``: a vector of a net's own predictions, one per class, tag or target.
    dim
        Length of a vector, or of a frame of a sequence.
    extractor, version
        Name and version of the code; the version increases whenever values change.
    params
        All parameters, as JSON values.
    weights, protocol
        SHA-256 of the net's weights (empty without a net), and its training protocol.
    fold
        Fold whose clips the net never saw (``crossfit``), otherwise None.
    trained_on
        Ids of the clips used in training, early stopping included; not part of the digest.

    Examples
    --------
    >>> spec = FeatureSpec("mel", "audio", "sequence", 128, "mel", 1, params={"sr": 22050})
    >>> spec.digest[:8], spec.key("digest of a file")[:8]
    ('2d7bc33b', '2adabdcc')
    """

    name: str
    modality: str
    kind: Kind
    dim: int
    extractor: str
    version: int
    params: Mapping[str, Any]
    weights: str = ""
    protocol: Protocol = "none"
    fold: int | None = None
    trained_on: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def dtype(self) -> str:
        """Type of the stored values, ``<f4`` or ``<f2``; readers return float32 for both."""
        half = self.kind != "outputs" and self.params.get(STORAGE) == "float16"
        return "<f2" if half else "<f4"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all fields except `trained_on`, as canonical JSON."""
        return digest_of(self.facts)

    @property
    def facts(self) -> dict[str, Any]:
        """All fields except `trained_on`."""
        facts = {k: getattr(self, k) for k in self.__dataclass_fields__ if k != "trained_on"}
        return facts | {"params": dict(self.params)}

    @property
    def label(self) -> str:
        """Name of this variant: ``music1d`` or ``music1d@fold0``."""
        return self.name if self.fold is None else f"{self.name}@fold{self.fold}"

    @cached_property
    def family(self) -> str:
        """Digest without fold and weights; the nets of all folds have this digest in common."""
        return replace(self, fold=None, weights="").digest

    def goes_with(self, other: FeatureSpec) -> bool:
        """Return True if a cache may hold both specs with one name: crossfit nets of two folds."""
        folds = {self.fold, other.fold}
        return None not in folds and len(folds) == 2 and self.family == other.family

    def key(self, content: str, start: float = 0.0, duration: float | None = None) -> str:
        """Return the key of this feature for one clip.

        Parameters
        ----------
        content
            `content_digest` of the clip's media file.
        start, duration
            Start and duration of the clip in the file, in seconds; None for the rest of the file.
        """
        return row_key(self.digest, content, start, duration)


def row_key(digest: str, content: str, start: float, duration: float | None) -> str:
    """Return `FeatureSpec.key` of the feature with this digest."""
    # An int and an equal float must give the same key.
    length = None if duration is None else float(duration)
    return digest_of([content, float(start), length, digest])


def check_modality(name: str) -> None:
    """Raise ValueError unless a name is allowed for a modality.

    A name has at most 20 characters: a lower-case letter, then such letters, digits, ``-``, ``_``.

    Examples
    --------
    >>> check_modality("Song texts")
    Traceback (most recent call last):
    ValueError: modality 'Song texts': expected audio, video or another short word ...
    """
    if not _MODALITY.fullmatch(name) or name in _RESERVED:
        raise ValueError(
            f"modality {shown(name)}: expected audio, video or another short word of lower-case "
            "letters, digits, '-' and '_', such as lyrics"
            + (f"; {', '.join(_RESERVED)} are reserved" if name in _RESERVED else "")
        )


def check_spec(spec: FeatureSpec, where: str) -> None:
    """Raise BadCache for a spec that a file cannot hold, or that contradicts itself."""
    label = f"{where}: feature {spec.name!r}"
    if not spec.name or "/" in spec.name or spec.name in (".", "..") or not spec.name.isprintable():
        raise BadCache(f"{label}: the name must have only printable characters, and no slash")
    if spec.kind not in get_args(Kind):
        raise BadCache(f"{label}: kind {spec.kind!r}: expected one of {', '.join(get_args(Kind))}")
    try:
        check_modality(spec.modality)
    except ValueError as error:
        raise BadCache(f"{label}: {error}") from None
    if spec.dim < 1:
        raise BadCache(f"{label}: dim {spec.dim}: expected a number above 0")
    if (spec.protocol == "crossfit") != (spec.fold is not None):
        raise BadCache(
            f"{label}: protocol {spec.protocol!r} does not match fold {spec.fold}: a crossfit net "
            "needs the fold that it never saw, any other net needs None"
        )


def leaked_rows(
    spec: FeatureSpec, table: ClipTable
) -> tuple[list[int], list[int], list[int]] | None:
    """Return rows of a net's test clips: all, those it was trained on, those of groups it saw.

    Return None if the protocol does not exclude any clips from training.
    """
    if spec.protocol == "crossfit":
        tested = np.flatnonzero(table.folds == spec.fold).tolist()
    elif spec.protocol == "holdout":
        tested = [] if table.splits is None else np.flatnonzero(table.splits == TEST).tolist()
    else:
        return None
    seen = frozenset(spec.trained_on)
    groups = set(compress(table.groups, map(seen.__contains__, table.clip_ids)))
    clips = [i for i in tested if table.clip_ids[i] in seen]
    return tested, clips, [i for i in tested if table.groups[i] in groups]


def in_half_precision(spec: FeatureSpec) -> FeatureSpec:
    """Return the spec of a sequence stored as float16; its keys differ from those of float32."""
    return replace(spec, params={**spec.params, STORAGE: "float16"})


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a value's canonical JSON: sorted keys, no spaces, no NaN."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file, read in blocks."""
    with path.open("rb") as file:
        state = hashlib.sha256()
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()

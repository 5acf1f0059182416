"""What a cached feature is made from, and the keys that follow from it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from mvemo.manifests.files import shown

# Those that our own extraction makes; features of others may be of any.
MODALITIES = ("audio", "video")
# A short word, which titles and keys of reports are made of.
_MODALITY = re.compile(r"[a-z][a-z0-9_-]{0,19}")
# Words that stand for none or all of the modalities.
_RESERVED = ("none", "all", "both")
Kind = Literal["vector", "sequence", "outputs"]
# "none": nothing was trained (a descriptor, a mel spectrogram).
Protocol = Literal["none", "frozen", "crossfit", "shared", "holdout", "imported"]
# Those whose nets were trained on the clips themselves.
TRAINED: tuple[Protocol, ...] = ("crossfit", "shared", "holdout")

# Parameter of sequences that are stored as float16.
STORAGE = "storage"
# Of float16: largest number, relative error by rounding, and absolute error of numbers too small
# for that (IEEE 754-2008, table 3.5: 11 bits of precision, least exponent -14).
HALF_LARGEST, HALF_RELATIVE, HALF_ABSOLUTE = 65504.0, 2.0**-11, 2.0**-25


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that determines a feature's values, given the clip.

    Parameters
    ----------
    name
        What stage two asks for: ``music1d``, ``i3d``, ``mfcc``.
    modality
        ``audio``, ``video`` or another short word, as ``lyrics`` (`check_modality`).
    kind
        ``vector``: float32 (dim,) a clip. ``sequence``: float32 (frames, dim) a clip,
        frames differing from clip to clip. ``outputs``: a vector, too, of what a net itself
        predicts: a logit for each class or tag, or a value for each target.
    dim
        Length of a vector or of a sequence's frame.
    extractor, version
        Name and version of the code; the version rises whenever values change.
    params
        Every parameter, JSON values only.
    weights
        SHA-256 over the weight bytes of the net; empty where there is none.
    protocol
        How the weights came about.
    fold
        The fold whose clips the net never saw (``crossfit``), else None.
    trained_on
        Ids of the clips that any fitting of the net saw, early stopping included.
        Not part of the digest, which has the weights.

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
        """Of the stored values, ``<f4`` or ``<f2``; readers give float32 of both."""
        half = self.kind == "sequence" and self.params.get(STORAGE) == "float16"
        return "<f2" if half else "<f4"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all but `trained_on`, as canonical JSON."""
        return digest_of(
            {
                "name": self.name,
                "modality": self.modality,
                "kind": self.kind,
                "dim": self.dim,
                "extractor": self.extractor,
                "version": self.version,
                "params": dict(self.params),
                "weights": self.weights,
                "protocol": self.protocol,
                "fold": self.fold,
            }
        )

    @cached_property
    def family(self) -> str:
        """`digest` of all but fold and weights: that of nets of several folds is one."""
        return replace(self, fold=None, weights="").digest

    def key(self, content: str, start: float = 0.0, duration: float | None = None) -> str:
        """Key of this feature of one clip.

        Parameters
        ----------
        content
            `content_digest` of the clip's media file.
        start, duration
            The clip's stretch of it, in seconds; None for all that follows.
        """
        return row_key(self.digest, content, start, duration)


def row_key(digest: str, content: str, start: float, duration: float | None) -> str:
    """Return `FeatureSpec.key` of the feature with this digest."""
    # A whole number of seconds is the same stretch as a float and as an int.
    length = None if duration is None else float(duration)
    return digest_of([content, float(start), length, digest])


def check_modality(name: str) -> None:
    """Raise ValueError for what is no name of a modality.

    Parameters
    ----------
    name
        A small letter, then small letters, digits, ``-`` and ``_``: 20 characters at most.

    Examples
    --------
    >>> check_modality("lyrics")
    >>> check_modality("Song texts")
    Traceback (most recent call last):
    ValueError: modality 'Song texts': needed is audio, video or another short word ...
    """
    if not _MODALITY.fullmatch(name) or name in _RESERVED:
        raise ValueError(
            f"modality {shown(name)}: needed is audio, video or another short word of small "
            "letters, digits, '-' and '_', as lyrics"
            + (f"; {', '.join(_RESERVED)} mean something else" if name in _RESERVED else "")
        )


def in_half_precision(spec: FeatureSpec) -> FeatureSpec:
    """A sequence stored as float16: another feature, with keys of its own.

    Examples
    --------
    >>> spec = FeatureSpec("mel", "audio", "sequence", 128, "mel", 1, params={"sr": 22050})
    >>> in_half_precision(spec).dtype, in_half_precision(spec).digest == spec.digest
    ('<f2', False)
    """
    return replace(spec, params={**spec.params, STORAGE: "float16"})


def digest_of(value: Any) -> str:
    """SHA-256 of a value's canonical JSON: keys sorted, no spaces, no NaN."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return hashlib.sha256(text.encode()).hexdigest()


def content_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        state = hashlib.sha256()
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()

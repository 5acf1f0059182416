"""The error of this package, and its concrete kinds."""

from __future__ import annotations


class ManifestError(Exception):
    """Base of every error that a manifest, a folder of clips or a fold file causes."""


class BadManifest(ManifestError, ValueError):
    """Something in a manifest is wrong; the message names the file, the value and the remedy."""


class MissingManifest(ManifestError, FileNotFoundError):
    """A manifest, a folder or a fold file does not exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "missing"

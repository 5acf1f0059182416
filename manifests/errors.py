"""Errors of manifests."""

from __future__ import annotations


class ManifestError(Exception):
    """Base class of errors about a manifest, a folder of clips or a fold file."""


class BadManifest(ManifestError, ValueError):
    """Error in the content of a manifest; the message names the file, the value and the fix."""


class MissingManifest(ManifestError, FileNotFoundError):
    """Error for a manifest, a folder or a fold file that does not exist."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else "missing"

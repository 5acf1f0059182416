"""Checks of Python and of the packages that mvemo requires."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import import_module, metadata

from packaging.requirements import Requirement

from mvemo.pipeline.doctor.findings import Finding

INSTALL_STAGE_ONE = "in mvemo's folder: pip install '.[extract]'"
# Distribution -> module, if the names differ. The packages of stage one are imported, to check
# that the libraries they load are there.
_MODULES = {"opencv-python-headless": "cv2"}


def check_packages() -> tuple[list[Finding], bool]:
    """Check Python and the packages of both stages; also return True if stage one can run."""
    version = metadata.version("mvemo")
    system = f"{platform.system()} {platform.machine()}"
    findings = [Finding("ok", "mvemo", f"{version}, Python {platform.python_version()}, {system}")]
    findings += _stage("stage two", "", "in mvemo's folder: pip install --upgrade .")
    extract = list(_requirements("extract"))
    absent = [r.name for r in extract if _version(r.name) is None]
    if len(absent) == len(extract):
        text = "not installed; reports, 'mvemo fuse' and 'mvemo-cv' need stage two alone"
        return [*findings, Finding("note", "stage one", text, INSTALL_STAGE_ONE)], False
    stage_one = _stage("stage one", "extract", f"{INSTALL_STAGE_ONE} --upgrade")
    stage_one += [finding for r in extract if r.name not in absent for finding in _broken(r.name)]
    if not {"torch", "torchvision"} & set(absent):
        stage_one.append(check_torch_pair())
    return findings + stage_one, all(finding.status != "problem" for finding in stage_one)


def check_torch_pair() -> Finding:
    """Check that torch and torchvision were built for each other."""
    torch, torchvision = metadata.version("torch"), metadata.version("torchvision")
    pair = f"torch {torch} with torchvision {torchvision}"
    wanted = [
        requirement.specifier
        for requirement in map(Requirement, metadata.requires("torchvision") or [])
        if requirement.name == "torch"
    ]
    try:
        ops = import_module("torchvision").ops
        import_module("torch").ops.torchvision.nms  # noqa: B018 (raises where it is absent)
        works = callable(ops.nms)
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        works, reason = False, str(error).splitlines()[0]
    else:
        reason = "its operators are absent"
    if works and all(specifier.contains(torch, prereleases=True) for specifier in wanted):
        return Finding("ok", "torch pair", pair)
    if works:
        reason = f"torchvision needs torch{wanted[0]}"
    cure = "pip install --force-reinstall torch torchvision, both from the same index"
    return Finding("problem", "torch pair", f"{pair} do not fit: {reason}", cure)


def _stage(name: str, extra: str, cure: str) -> list[Finding]:
    """Check the packages of a stage: one finding with all versions or with all problems."""
    requirements = list(_requirements(extra))
    amiss = []
    for requirement in requirements:
        version = _version(requirement.name)
        if version is None:
            amiss.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(version, prereleases=True):
            amiss.append(f"{requirement.name} is {version}, {requirement.specifier} is needed")
    if amiss:
        return [Finding("problem", name, "; ".join(amiss), cure)]
    versions = ", ".join(f"{r.name} {_version(r.name)}" for r in requirements)
    return [Finding("ok", name, versions)]


def _broken(name: str) -> Iterator[Finding]:
    """Yield a finding if an installed package cannot be imported."""
    try:
        import_module(_MODULES.get(name, name))
    except Exception as error:  # a broken binary package may raise anything
        text = f"installed, but cannot be imported: {str(error).splitlines()[0]}"
        yield Finding("problem", name, text, f"pip install --force-reinstall {name}")


def _requirements(extra: str) -> Iterator[Requirement]:
    """Yield mvemo's own requirements: those of the base install, or only those of an extra."""
    for requirement in map(Requirement, metadata.requires("mvemo") or []):
        of_extra = "extra" in str(requirement.marker)
        if of_extra == bool(extra) and (
            requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        ):
            yield requirement


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

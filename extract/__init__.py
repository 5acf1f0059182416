"""Stage one: media, descriptors, nets, fine-tuning, near-duplicates.

The public API is listed in ``__init__.pyi``. A name is imported when it is first used, so that
importing this package does not import torch, librosa or the media libraries.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


class _CallablePackage(ModuleType):
    """Type of this package: calling the package calls ``mvemo.extract_features``."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return import_module("mvemo").extract_features(*args, **kwargs)


sys.modules[__name__].__class__ = _CallablePackage

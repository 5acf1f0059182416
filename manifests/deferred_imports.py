"""Slow modules inside NumPy and PyTorch that the commands of mvemo rarely need.

``import torch`` spends a third of its time on kernels for tensors without values, which compilers
and some encoders use. ``import scipy.special`` prepares for arrays of other libraries, and for that
imports all of NumPy, even its compiler of Fortran. A placeholder stands for each of these modules
until it is used.
"""

from __future__ import annotations

import sys
from copy import copy
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

# Each deferred module, and modules that need it without naming it.
_USERS: dict[str, tuple[str, ...]] = {
    "numpy.f2py": (),
    "scipy._lib.array_api_compat.numpy": (),
    "torch._meta_registrations": ("torch._decomp", "torch._dynamo", "torch._prims", "torch._refs"),
}
# Attributes that the import system and code that looks at all modules ask for.
_PROBED = ("__path__", "__file__", "__cached__", "__wrapped__", "__warningregistry__")


class _Placeholder(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name in _PROBED:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(_import_now(self.__name__), name)


class _ReadyLoader(Loader):
    """Loader that only returns a module."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        pass


class _Finder(MetaPathFinder):
    def __init__(self) -> None:
        self.deferred = dict(_USERS)

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name in self.deferred and name not in sys.modules:
            users = self.deferred.pop(name)
            spec = find_spec(name)
            if spec is not None:
                spec.loader = _ReadyLoader(_Placeholder(name))
            self.deferred[name] = users
            return spec
        for slow, users in self.deferred.items():
            if slow in sys.modules and (name in users or name.startswith(f"{slow}.")):
                _import_now(slow)
                return _ready_spec(sys.modules[name]) if name in sys.modules else None
        return None


def _ready_spec(module: ModuleType) -> ModuleSpec | None:
    """Return the spec of an imported module, changed so that it is not executed again."""
    if module.__spec__ is not None:
        module.__spec__ = copy(module.__spec__)
        module.__spec__.loader = _ReadyLoader(module)
    return module.__spec__


_finder = _Finder()


def defer_imports() -> None:
    """Use placeholders in this process, which must be a command or a worker of mvemo.

    In other programs, such as notebooks, other code may need the modules.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def import_deferred() -> None:
    """Import all deferred modules, for nets of others, which may use all of PyTorch."""
    for name in [*_finder.deferred]:
        _import_now(name)


def _import_now(name: str) -> ModuleType:
    """Import a deferred module, in place of its placeholder if it has one."""
    _finder.deferred.pop(name, None)
    placeholder = sys.modules.get(name)
    if not isinstance(placeholder, _Placeholder):
        return import_module(name) if placeholder else ModuleType(name)
    del sys.modules[name]
    module = import_module(name)
    # Code that imported the placeholder finds the names there.
    vars(placeholder).update(vars(module))
    return module

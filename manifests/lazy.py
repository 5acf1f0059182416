"""Lazy imports of a package's names.

torch takes seconds to import. The settings of stage one and the names of its nets must also be
available where torch is not installed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def import_on_use(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` (PEP 562) that imports names on first use.

    `places` maps each name to the submodule that defines it, relative to `package`.

    Examples
    --------
    >>> get = import_on_use("mvemo.extract", {"BadMedia": "errors"})
    >>> get("BadMedia").__module__
    'mvemo.extract.errors'
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{package}.{places[name]}"), name)
        # The next access does not call this function.
        setattr(sys.modules[package], name, value)
        return value

    return get

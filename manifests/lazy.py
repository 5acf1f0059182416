"""Names that a package imports when they are used, so that importing it costs nothing.

torch takes seconds to import, and stage one's settings and the names of its nets are wanted
where none is installed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def import_on_use(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` (PEP 562).

    Parameters
    ----------
    package
        The module's ``__name__``.
    places
        Name to the submodule that has it, relative to the package.

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
        # The next use finds it without asking.
        setattr(sys.modules[package], name, value)
        return value

    return get

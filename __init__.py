"""Emotion recognition of music and music videos: the commands as functions.

They are imported when they are used, so that ``import mvemo`` costs nothing. Their parts are in
`mvemo.manifests`, `mvemo.extract`, `mvemo.cache` and `mvemo.fuse`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mvemo.manifests.errors import MvemoError

    __version__: str
    from mvemo.pipeline.notebook import (
        audit,
        clip_table,
        compare,
        evaluate,
        extract_features,
        learn,
        load,
        open_features,
        predict,
    )

__all__ = [
    "MvemoError",
    "audit",
    "clip_table",
    "compare",
    "evaluate",
    "extract_features",
    "learn",
    "load",
    "open_features",
    "predict",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("mvemo")
    if name in ("cache", "extract", "fuse", "manifests"):
        return import_module(f"mvemo.{name}")
    if name not in __all__:
        functions = ", ".join(__all__[1:])
        raise AttributeError(
            f"module 'mvemo' has no attribute {name!r}; its functions: {functions}"
        )
    if name == "MvemoError":
        return import_module("mvemo.manifests.errors").MvemoError
    from mvemo.pipeline import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]

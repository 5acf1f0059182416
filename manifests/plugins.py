"""Plug-ins: code of other packages and of the user's own files that mvemo uses by name.

A package offers objects by entry points, one group for each kind of `KINDS`::

    [project.entry-points."mvemo.nets"]
    tiny = "my_package.nets:Tiny"

A file without a package is named with ``--plugin FILE.py``. It has a dict ``PLUGINS`` with the
same groups, ``{"mvemo.nets": {"tiny": Tiny}}``. Nothing else makes mvemo import foreign code:
a feature file or model folder only states which plug-ins it needs.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from mvemo.manifests.errors import BadOption

KINDS = ("nets", "losses", "metrics", "heads", "descriptors", "layouts", "commands")
# Objects of plug-in files by kind and name; `load_files` fills it.
_FILES: dict[str, dict[str, Plugin]] = {kind: {} for kind in KINDS}
# Names by kind that plug-ins cannot take; `reserve` fills it.
_RESERVED: dict[str, set[str]] = {kind: set() for kind in KINDS}


@dataclass(frozen=True)
class Plugin:
    """Object of a package or file that mvemo uses by its name."""

    kind: str  # one of `KINDS`
    name: str  # its name in commands, profiles and tables
    source: str  # package, or path of the file
    version: str  # of the package; empty for a file
    module: str  # path of the Python file, or name of the module
    _import: Callable[[], Any] = field(repr=False, compare=False)

    @property
    def is_ours(self) -> bool:
        """Return True for an object of mvemo itself."""
        return self.module.startswith("mvemo.")

    def load(self, check: Callable[[Any], str] = lambda value: "") -> Any:
        """Return the object; raise `BadOption` if that fails, or `check` returns a problem."""
        try:
            value = self._import()
        except Exception as error:
            if self.is_ours:
                raise
            raise self.failure(f"{type(error).__name__}: {error}") from error
        if problem := check(value):
            raise self.failure(problem)
        return value

    def failure(self, problem: str) -> BadOption:
        """Return the error that names this plug-in and its problem."""
        noun = {"losses": "loss"}.get(self.kind, self.kind[:-1])
        reason = " ".join(problem.split())
        return BadOption(f"{self.name}: {self.source} cannot provide this {noun}: {reason}")

    @property
    def digest(self) -> str:
        """Return 16 digits of the SHA-256 of the Python files of the module's package."""
        return code_digest(self.module)

    def record(self) -> dict[str, str]:
        """Return what keys of features and reports state about the plug-in."""
        source = Path(self.source).name if not self.version else self.source
        return {"source": source, "version": self.version, "digest": self.digest}


@cache
def code_digest(module: str) -> str:
    """Return 16 digits of the SHA-256 of a Python file, or of a module with its package."""
    path = Path(module)
    if not path.is_file():
        spec = find_spec(module)
        path = Path(spec.origin) if spec is not None and spec.origin else path
    files = [path]
    if (path.parent / "__init__.py").is_file():
        files = sorted(path.parent.rglob("*.py"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path.parent)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def plugins(kind: str) -> Mapping[str, Plugin]:
    """Return the plug-ins of a kind by name, without importing packages.

    A name in several packages belongs to mvemo, then to a file of `load_files`, then to the
    package that comes first in alphabetical order. Names of `reserve` are left out; `BadOption`
    is raised if a file offers one.

    Examples
    --------
    >>> sorted(plugins("commands"))[:2]
    ['embed', 'playlist']
    """
    installed = _installed(kind)
    ours = {name: each for name, each in installed.items() if each.is_ours}
    for name in _FILES[kind].keys() & _RESERVED[kind]:
        path = _FILES[kind][name].source
        raise BadOption(f"{path}: mvemo.{kind}: mvemo has {name!r} itself: choose another name")
    found = {**installed, **_FILES[kind], **ours}
    return {name: plugin for name, plugin in found.items() if name not in _RESERVED[kind]}


def reserve(kind: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return the names, which plug-ins of this kind cannot take from then on."""
    names = tuple(names)
    _RESERVED[kind].update(names)
    return names


@cache
def _installed(kind: str) -> Mapping[str, Plugin]:
    found = []
    for point in entry_points(group=f"mvemo.{kind}"):
        package = (point.dist.name, point.dist.version) if point.dist else (point.module, "")
        found.append(Plugin(kind, point.name, *package, point.module, point.load))
    found.sort(key=lambda plugin: (not plugin.is_ours, plugin.source))
    return {plugin.name: plugin for plugin in reversed(found)}


def load_files(paths: Iterable[str | Path]) -> None:
    """Import plug-in files, and offer the objects of their ``PLUGINS``; `BadOption` if invalid."""
    for path in map(Path, paths):
        path = path.resolve()
        if str(path) in loaded_files():
            continue
        module = _run(path)
        groups = getattr(module, "PLUGINS", None)
        if not isinstance(groups, Mapping) or not groups:
            raise BadOption(
                f'{path}: expected a dict PLUGINS such as {{"mvemo.nets": {{"tiny": Tiny}}}}'
            )
        for group, objects in groups.items():
            kind = str(group).removeprefix("mvemo.")
            if kind not in KINDS or not isinstance(objects, Mapping):
                expected = ", ".join(f"mvemo.{kind}" for kind in KINDS)
                raise BadOption(
                    f"{path}: PLUGINS: {group}: expected a dict of objects for one of {expected}"
                )
            for name in objects:
                load = partial(objects.__getitem__, name)
                _FILES[kind][name] = Plugin(kind, name, str(path), "", str(path), load)


def _run(path: Path) -> ModuleType:
    name = f"mvemo_plugin_{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise BadOption(f"{path}: expected a Python file with a dict PLUGINS")
    module = module_from_spec(spec)
    # Classes of the file are found by pickle and by dataclasses.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise BadOption(f"{path}: the plug-in cannot be imported: {why}") from error
    return module


def loaded_files() -> tuple[str, ...]:
    """Return the paths of the plug-in files of this process, for its worker processes."""
    return tuple(dict.fromkeys(each.source for kind in KINDS for each in _FILES[kind].values()))


def packed_plugins() -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """Return what `unpack_plugins` needs on another machine: texts of files, and digests."""
    texts = {path: Path(path).read_text(encoding="utf-8") for path in loaded_files()}
    found = [(kind, *item) for kind in KINDS[:-1] for item in plugins(kind).items()]
    return texts, {(kind, name): plugin.digest for kind, name, plugin in found}


def unpack_plugins(
    texts: Mapping[str, str], digests: Mapping[tuple[str, str], str], folder: str | Path
) -> None:
    """Load the plug-ins of another machine; `folder` keeps the files.

    Raise `BadOption` if a package of plug-ins is missing here, or has another version.
    """
    for path, text in texts.items():
        if Path(path).name not in map(os.path.basename, loaded_files()):
            copy = Path(folder, Path(path).name)
            copy.write_text(text, encoding="utf-8")
            load_files([copy])
    for (kind, name), digest in digests.items():
        found = plugins(kind).get(name)
        if found is None or found.digest != digest:
            here = "lacks it" if found is None else f"has another one, of {found.source}"
            raise BadOption(
                f"mvemo.{kind}: {name}: this machine {here}: install the same plug-ins on all "
                "machines, and start the worker again"
            )


def plugin_record(kind: str, name: str) -> dict[str, Any]:
    """Return ``{"plugin": record}`` for the name of a plug-in, otherwise an empty dict."""
    found = plugins(kind).get(name)
    return {} if found is None else {"plugin": found.record()}


def used_plugins(names: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Return the records of the plug-ins among some objects, which are pairs of kind and name."""
    return [
        {"kind": kind, "name": name, **plugins(kind)[name].record()}
        for kind, name in dict.fromkeys(names)
        if name in plugins(kind)
    ]


def offered(known: Iterable[str], kind: str) -> Iterator[str]:
    """Yield the known names of a kind, followed by those of plug-ins."""
    yield from known
    yield from sorted(plugins(kind) if kind else ())

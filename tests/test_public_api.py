"""The stable names of docs/stability.md keep their parameters: tests/public_api.txt lists them.

``python tests/test_public_api.py`` writes the list again; a removed name or parameter in its diff
needs a new first number of the version.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import is_typeddict

LIST = Path(__file__).with_name("public_api.txt")
PLACES = ("mvemo", "mvemo.manifests", "mvemo.cache", "mvemo.extract", "mvemo.fuse")
# Functions that may return Any: what an optional package defines, and JSON values whose keys are
# those of a class or a net.
UNTYPED = {
    "mvemo.cache.Cache.provenance",
    "mvemo.cache.FeatureSpec.facts",
    "mvemo.extract.BuiltNet.preparation",
    "mvemo.extract.BuiltNet.preprocessing",
    "mvemo.extract.DescriptorSettings.record",
    "mvemo.extract.MelSettings.record",
    "mvemo.extract.Net.options_for",
    "mvemo.extract.Net.preprocessing",
    "mvemo.extract.Net.shared_options",
    "mvemo.extract.NetSettings.record",
    "mvemo.extract.ViewSettings.record",
    "mvemo.fuse.EstimatorSettings.grid",
    "mvemo.fuse.EstimatorSettings.load",
    "mvemo.fuse.EvaluationSettings.record",
    "mvemo.fuse.Task.facts",
    "mvemo.manifests.Manifest.to_pandas",
    "mvemo.manifests.setting",
}
# Any, JSON objects, and collections of one of them.
LOOSE = re.compile(r"(\w+\[)?(Any|(dict|Mapping)\[str, Any\])\]?( \| None)?")


def public_names() -> dict[str, object]:
    """Return all public names, and what they stand for."""
    packages = {place: importlib.import_module(place) for place in PLACES}
    return {f"{p}.{n}": getattr(of, n) for p, of in packages.items() for n in sorted(of.__all__)}


def surface() -> str:
    """Return a line for each public name, with the parameters of functions and classes."""
    lines = []
    for shown, value in public_names().items():
        if callable(value) and not (isinstance(value, type) and issubclass(value, Exception)):
            shown += f"({', '.join(parameters(value))})"
        lines.append(shown)
    return "\n".join(lines) + "\n"


def parameters(value) -> list[str]:
    """Return the parameters as they are written, without types; ``=`` for those with a default.

    The parameters of a `TypedDict` are its keys; ``=`` for those that only some records have.
    """
    if is_typeddict(value):
        some = value.__optional_keys__
        return [f"{key}{'=' * (key in some)}" for key in sorted({*value.__required_keys__, *some})]
    try:
        listed = inspect.signature(value).parameters.values()
    except ValueError:
        return ["..."]
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [
        f"{marks.get(each.kind, '')}{each.name}{'=' * (each.default is not each.empty)}"
        for each in listed
    ]


def public_functions() -> Iterator[tuple[str, inspect.Signature]]:
    """Yield the signatures of all public functions, constructors, methods and properties."""
    for name, value in public_names().items():
        if inspect.isfunction(value):
            yield name, inspect.signature(value)
        for part, member in vars(value).items() if isinstance(value, type) else ():
            function = member
            if isinstance(member, property | cached_property):
                function = member.fget if isinstance(member, property) else member.func
            elif isinstance(member, classmethod | staticmethod):
                function = member.__func__
            if inspect.isfunction(function) and (part == "__init__" or not part.startswith("_")):
                yield f"{name}.{part}", inspect.signature(function)


def test_the_public_names_have_the_listed_parameters():
    assert surface() == LIST.read_text(encoding="utf-8")


def test_public_functions_are_annotated():
    for name, signature in public_functions():
        assert signature.return_annotation is not signature.empty, name
        for each in signature.parameters.values():
            is_stated = each.annotation is not each.empty or each.name in ("self", "cls")
            assert is_stated, f"{name}: {each.name}"


def test_only_the_listed_functions_return_any():
    found = set()
    for name, signature in public_functions():
        text = inspect.formatannotation(signature.return_annotation)
        if LOOSE.fullmatch(re.sub(r"'|\b(typing|collections\.abc)\.", "", text)):
            found.add(name)
    assert found == UNTYPED


if __name__ == "__main__":
    LIST.write_text(surface(), encoding="utf-8")

"""The stable names of docs/stability.md keep their parameters: tests/public_api.txt lists them.

``python tests/test_public_api.py`` writes the list again; a removed name or parameter in its diff
needs a new first number of the version.
"""

import importlib
import inspect
from pathlib import Path

LIST = Path(__file__).with_name("public_api.txt")
PLACES = ("mvemo", "mvemo.manifests", "mvemo.cache", "mvemo.extract", "mvemo.fuse")


def surface() -> str:
    """Return a line for each public name, with the parameters of functions and classes."""
    lines = []
    for place in PLACES:
        package = importlib.import_module(place)
        for name in sorted(package.__all__):
            value = getattr(package, name)
            shown = f"{place}.{name}"
            if callable(value) and not (isinstance(value, type) and issubclass(value, Exception)):
                shown += f"({', '.join(parameters(value))})"
            lines.append(shown)
    return "\n".join(lines) + "\n"


def parameters(value) -> list[str]:
    """Return the parameters as they are written, without types; ``=`` for those with a default."""
    try:
        listed = inspect.signature(value).parameters.values()
    except ValueError:
        return ["..."]
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [
        f"{marks.get(each.kind, '')}{each.name}{'=' * (each.default is not each.empty)}"
        for each in listed
    ]


def test_the_public_names_have_the_listed_parameters():
    assert surface() == LIST.read_text(encoding="utf-8")


if __name__ == "__main__":
    LIST.write_text(surface(), encoding="utf-8")

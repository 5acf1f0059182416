"""The packages that are installed, and which of them may import which."""

import ast
import configparser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "manifests": set(),
    # The one writer of files, JSON and CSV, which imports nothing, is all that cache shares.
    "cache": {"manifests.files"},
    "extract": {"manifests", "cache"},
    "fuse": {"manifests", "cache"},
    "pipeline": {"manifests", "cache", "extract", "fuse"},
}
SOURCES = sorted(p for name in MAY_IMPORT for p in (ROOT / name).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Absolute names of all modules that a source file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            if node.module == "mvemo":
                names.update(f"mvemo.{alias.name}" for alias in node.names)
    return names


def test_setup_cfg_lists_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(config["options"]["packages"].split())
    found = {
        "mvemo." + ".".join(init.parent.relative_to(ROOT).parts)
        for name in MAY_IMPORT
        for init in (ROOT / name).rglob("__init__.py")
    }
    assert listed == found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path):
    own = path.relative_to(ROOT).parts[0]
    for name in imported(path):
        assert name.split(".")[0] not in MAY_IMPORT, f"write mvemo.{name}"
        if name.startswith("mvemo."):
            folder, inside = name.split(".")[1], name.removeprefix("mvemo.")
            assert folder == own or {folder, inside} & MAY_IMPORT[own], f"{path}: {name}"

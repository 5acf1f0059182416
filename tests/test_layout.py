"""The packages that are installed, and which of them may import which."""

import ast
import configparser
import functools
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "manifests": set(),
    # The only modules of manifests that cache may import. It reads tables, writes files, shows
    # tables, holds labels in the same arrays with the same checks, and looks for groups that are
    # in several folds.
    "cache": {
        "manifests.array_files",
        "manifests.array_types",
        "manifests.cells",
        "manifests.errors",
        "manifests.files",
        "manifests.labels",
        "manifests.splits.assignment",
        "manifests.tables",
        "manifests.text_files",
        "manifests.text_table",
    },
    "extract": {"manifests", "cache"},
    "fuse": {"manifests", "cache"},
    "pipeline": {"manifests", "cache", "extract", "fuse"},
}
SOURCES = sorted(p for name in MAY_IMPORT for p in (ROOT / name).rglob("*.py"))

# Layers of each package, the lowest first. A layer lists modules and subpackages, which import
# from lower layers only. A new one is put into the lowest layer that its imports allow.
LAYERS = {
    "manifests": (
        "array_types errors text_table",
        "plugins",
        "declared files",
        "array_files cells spreadsheets text_files",
        "journal tables",
        "dimensions labels",
        "model",
        "schemes segments",
        "clip_rows splits",
        "annotators",
        "recognition",
        "layouts",
        "reader",
        "demo",
    ),
    "cache": (
        "errors untrusted",
        "table",
        "clip_columns",
        "import_arrays",
        "spec",
        "schema",
        "index",
        "cache_file",
        "parts union",
        "reader rewrite",
        "difference export row_writer verify",
        "maintenance writer",
        "import_feature",
    ),
    "extract": (
        "errors",
        "workers",
        "settings",
        "media",
        "descriptors duplicates",
        "nets store",
        "pretrained",
        "training",
        "cost",
    ),
    "fuse": (
        "errors numeric",
        "metrics models scaling",
        "bootstrap",
        "tasks",
        "stores",
        "arrays features",
        "conformal heads leaks near_pairs",
        "audit results",
        "songs",
        "crossval",
        "final labelling report transfer",
        "external",
        "prediction_files",
        "compare_runs",
    ),
    "pipeline": (
        "provenance start table_files",
        "console work_folder",
        "settings",
        "settings_files starting_weights",
        "clips",
        "model_nets stage_one",
        "models",
        "prediction stage_two",
        "notebook",
        "commands",
        "desk studies",
        "cli",
        "__main__",
    ),
}

# Lines of code that each package may have, so that growth is seen where it happens. A new feature
# takes at most 400 lines, and half of what it adds is saved elsewhere in its package. Lower a limit
# when its package shrinks; what needs a higher one belongs into a higher layer, or into a plug-in.
MOST_LINES = {
    "manifests": 6640,
    "cache": 4660,
    "extract": 12670,
    "fuse": 16170,
    "pipeline": 11400,  # without the two packages above it
    "pipeline/desk": 3580,
    "pipeline/studies": 3570,
}


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """Return the nodes that imports and calls are made of."""
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return tuple(n for n in tree if isinstance(n, ast.Import | ast.ImportFrom | ast.Attribute))


@functools.cache
def imported(path: Path) -> set[str]:
    """Absolute names of all modules that a source file imports."""
    names: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                # A module may be imported from its package.
                whole = f"{node.module}.{alias.name}"
                file = ROOT / Path(*whole.split(".")[1:])
                is_module = file.is_dir() or file.with_suffix(".py").is_file()
                names.add(whole if is_module and whole.startswith("mvemo.") else node.module or "")
    return names


def test_setup_cfg_lists_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(config["options"]["packages"].split())
    found = {"mvemo"} | {
        "mvemo." + ".".join(init.parent.relative_to(ROOT).parts)
        for name in MAY_IMPORT
        for init in (ROOT / name).rglob("__init__.py")
    }
    assert listed == found


def test_imports_point_down():
    for path in SOURCES:
        own = path.relative_to(ROOT).parts[0]
        for name in imported(path):
            assert name.split(".")[0] not in MAY_IMPORT, f"{path}: write mvemo.{name}"
            if name.startswith("mvemo."):
                folder, inside = name.split(".")[1], name.removeprefix("mvemo.")
                assert folder == own or {folder, inside} & MAY_IMPORT[own], f"{path}: {name}"


def top_module(name: str, package: str) -> str:
    """Return the module or subpackage of a package that has this name; '' for the package."""
    return name.removeprefix(f"mvemo.{package}").removeprefix(".").split(".")[0]


def test_json_and_toml_are_read_with_limits():
    """`text_files` refuses what other readers crash on."""
    for path in {*SOURCES} - {ROOT / "manifests" / "text_files.py"}:
        assert not {"tomllib", "tomli"} & imported(path), path
        # The text of a node takes long to make, so only of those whose end fits.
        ends = [n for n in nodes_of(path) if getattr(n, "attr", "")[:4] in ("load", "JSON")]
        calls = {ast.unparse(node) for node in ends}
        assert not {"json.load", "json.loads", "json.JSONDecoder"} & calls, path


@pytest.mark.parametrize("package", LAYERS)
def test_every_module_is_in_one_layer(package: str):
    listed = [module for layer in LAYERS[package] for module in layer.split()]
    paths = (path.relative_to(ROOT / package) for path in (ROOT / package).rglob("*.py"))
    modules = {path.parts[0].removesuffix(".py") for path in paths} - {"__init__"}
    assert sorted(listed) == sorted(modules)


@pytest.mark.parametrize("package", LAYERS)
def test_modules_import_lower_layers_only(package: str):
    layer_of = {module: i for i, layer in enumerate(LAYERS[package]) for module in layer.split()}
    problems = []
    for path in (ROOT / package).rglob("*.py"):
        module = path.relative_to(ROOT / package).parts[0].removesuffix(".py")
        if module == "__init__":
            continue
        for name in imported(path):
            if not f"{name}.".startswith(f"mvemo.{package}."):
                continue
            other = top_module(name, package)
            if other != module and (not other or layer_of[other] >= layer_of[module]):
                problems.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not problems


@pytest.mark.parametrize("package", ["desk", "studies"])
def test_packages_behind_an_entry_point_are_imported_by_nothing(package: str):
    others = [p for p in SOURCES if ROOT / "pipeline" / package not in p.parents]
    name = f"mvemo.pipeline.{package}"
    assert not [p for p in others if any(f"{n}.".startswith(f"{name}.") for n in imported(p))]


@pytest.mark.parametrize("package", MOST_LINES)
def test_no_package_outgrows_its_limit(package: str):
    others = [ROOT / other for other in MOST_LINES if other.startswith(f"{package}/")]
    paths = [p for p in SOURCES if p.is_relative_to(ROOT / package)]
    paths = [p for p in paths if not any(p.is_relative_to(other) for other in others)]
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)
    assert lines <= MOST_LINES[package], f"{package} has {lines} lines"


def tracked(*options: str) -> list[str]:
    """Files that git keeps, by name from the root."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, or there is no git")
    command = ["git", "-C", str(ROOT), "ls-files", "-z", *options]
    done = subprocess.run(command, check=True, capture_output=True)
    return [name for name in done.stdout.decode().split("\0") if name]


def test_no_tracked_file_is_large():
    """A run's output, once committed, stays in every clone for good."""
    paths = [ROOT / name for name in tracked()]
    sizes = {path.relative_to(ROOT): path.lstat().st_size for path in paths if path.exists()}
    assert {name: size for name, size in sizes.items() if size > 1_000_000} == {}
    assert sum(sizes.values()) < 12_000_000


def test_the_long_files_of_the_tests_are_there():
    text = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    listed = text.partition('LONG_FILES = """')[2].partition('"""')[0].split()
    files = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert listed
    assert {f"test_{name}.py" for name in listed} <= files


def test_no_source_is_ignored():
    assert tracked("--cached", "--ignored", "--exclude-standard") == []

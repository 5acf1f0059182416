"""What README, CONTRIBUTING, docs and --help name is there: files, commands and their options."""

import doctest
import importlib
import inspect
import re
import runpy
import shlex
from pathlib import Path

import click
import pytest

import mvemo
from mvemo.pipeline import cli
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.studies.study_file import read_study

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
# `folder/…` in backticks, or the target of a link.
_NAMED = re.compile(
    r"`((?:\.ci|cache|docs|examples|extract|fuse|manifests|pipeline|tests)/[\w./-]*)`|\]\(([\w./-]+)\)"
)
_COMMAND = re.compile(r"^\s*(?:\.venv/bin/)?(mvemo(?:-cv)? .*)$", re.MULTILINE)
_EXAMPLES = re.compile(r"^\x08\nExamples?:\n((?: +\S.*\n?)+)", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\$\(.*?\)|<.*?>")


def commands():
    """(page, command line) of all commands that the pages show in blocks of code."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"```\w*\n(.*?)```|((?:^ {4,}\S.*\n)+)", text, re.DOTALL | re.MULTILINE)
        for fenced, indented in blocks:
            for line in _COMMAND.findall(fenced or indented):
                found.append((page.name, line.split("  #")[0].split(" # ")[0].strip()))
    return found


def every_command():
    """(name, command) of every command and group."""
    context = click.Context(cli.mvemo)
    waiting = [("mvemo", cli.mvemo)]
    while waiting:
        name, command = waiting.pop()
        yield name, command
        if isinstance(command, click.Group):
            for child in command.list_commands(context):
                waiting.append((f"{name} {child}", command.get_command(context, child)))


def examples():
    """(name of the command, command line) of all examples in ``--help``."""
    found = []
    for name, command in every_command():
        for block in _EXAMPLES.findall(inspect.cleandoc(command.help or "")):
            lines = _COMMAND.findall(block.replace("\\\n", " "))
            found += [(name, line.split(" # ")[0].strip()) for line in lines]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_is_there(page):
    names = [a or b for a, b in _NAMED.findall(page.read_text(encoding="utf-8"))]
    missing = [n for n in names if not (ROOT / n).exists() and not (page.parent / n).exists()]
    assert missing == []


@pytest.mark.parametrize(("page", "line"), [*commands(), *examples()])
def test_every_command_and_option_is_there(page, line):
    program, *words = shlex.split(_PLACEHOLDER.sub("x", line), comments=True)
    command = cli.mvemo if program == "mvemo" else cli.load_command("cv")
    context = click.Context(command)
    while isinstance(command, click.Group):
        child = command.get_command(context, words.pop(0))
        assert child is not None, f"{page}: {line}"
        command = child
    known = {option for parameter in command.params for option in parameter.opts}
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    assert [option for option in options if option not in {*known, "--help"}] == []


def test_every_help_has_an_example_of_its_command():
    assert len(commands()) > 20
    shown = examples()
    for name, command in every_command():
        of_command = [line for page, line in shown if page == name]
        assert of_command, f"{name} --help has no block that begins with Example: or Examples:"
        # `mvemo cv` is shown as the script of its own.
        program = name.replace("mvemo cv", "mvemo-cv")
        assert any(line.startswith(program) for line in of_command)
        shown_to_user = command.get_help(click.Context(command, terminal_width=80))
        assert max(map(len, shown_to_user.splitlines())) <= 80, name


def test_every_name_is_importable_from_its_place():
    text = (ROOT / "docs" / "api.md").read_text()
    rows = re.findall(r"^\| `(mvemo\.\w+)` \| (.*) \|$", text, re.M)
    assert len(rows) == 4
    functions = re.findall(r"^\| `mvemo\.(\w+)\(", text, re.M)
    assert sorted(functions) == sorted({*mvemo.__all__} - {"MvemoError"})
    assert all(getattr(mvemo, name).__doc__ for name in functions)
    for module, names in rows:
        package = importlib.import_module(module)
        for name in re.findall(r"`(\w+)`", names):
            assert getattr(package, name).__doc__, f"{module}.{name}"


@pytest.mark.parametrize(("page", "n_examples"), [("api.md", 20), ("cache-format.md", 12)])
def test_a_worked_example_gives_what_it_shows(page, n_examples):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    # The fences of blocks would be read as expected output.
    text = re.sub(r"^```.*$", "", text, flags=re.MULTILINE)
    example = doctest.DocTestParser().get_doctest(text, {}, page, f"docs/{page}", 0)
    assert len(example.examples) > n_examples
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    assert runner.run(example, out=report.append).failed == 0, "".join(report)


def test_the_study_and_the_profile_of_the_page_of_studies_are_read(tmp_path):
    text = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    study, robustness, block = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    for name, part in (("my", study), ("our", robustness), ("small", block)):
        (tmp_path / f"{name}.toml").write_text(part)
    assert read_study(tmp_path / "my.toml").grid["segment"] == (5, 10)
    assert read_study(tmp_path / "our.toml").options["clips"].default == 40
    settings = load_settings(str(tmp_path / "small.toml"))
    assert settings.nets["crnn"].train.loss == "improved-centre"
    assert settings.descriptors.hop_length == 512


def test_the_pages_of_settings_are_current():
    script = runpy.run_path(str(ROOT / "docs" / "make_settings.py"))
    for name, text in script["pages"]().items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text, "make settings"

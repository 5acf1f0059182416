"""What README, CONTRIBUTING and docs name is there: files, commands and their options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from mvemo.pipeline import cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
# `folder/…` in backticks, or the target of a link.
_NAMED = re.compile(
    r"`((?:\.ci|cache|docs|extract|fuse|manifests|pipeline|tests)/[\w./-]*)`|\]\(([\w./-]+)\)"
)
_COMMAND = re.compile(r"^\s*(?:\.venv/bin/)?(mvemo(?:-cv)? .*)$", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\$\(.*?\)|<.*?>")


def commands() -> list[tuple[str, str]]:
    """(page, command line) of all commands that the pages show in blocks of code."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        blocks = re.findall(r"```\w*\n(.*?)```|((?:^ {4,}\S.*\n)+)", text, re.DOTALL | re.MULTILINE)
        for fenced, indented in blocks:
            for line in _COMMAND.findall(fenced or indented):
                found.append((page.name, line.split("  #")[0].split(" # ")[0].strip()))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_is_there(page: Path) -> None:
    names = [a or b for a, b in _NAMED.findall(page.read_text(encoding="utf-8"))]
    missing = [n for n in names if not (ROOT / n).exists() and not (page.parent / n).exists()]
    assert missing == []


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_and_option_is_there(page: str, line: str) -> None:
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


def test_commands_are_found() -> None:
    assert len(commands()) > 20

"""Fragments of the changelog: their names, and the section that they make."""

import re
import runpy
from pathlib import Path

CHANGES = Path(__file__).parents[1] / "changes"


def test_fragments_are_sentences_of_a_kind():
    for path in CHANGES.glob("*.md"):
        if path.name != "README.md":
            assert re.fullmatch(r"[a-z0-9-]+\.(added|changed|fixed|removed)\.md", path.name)
            text = path.read_text(encoding="utf-8")
            assert re.fullmatch(r"[^\n]{20,300}\.\n", text), path.name


def test_fragments_are_collected_by_kind(tmp_path):
    (tmp_path / "b.added.md").write_text("B is new.\n")
    (tmp_path / "a.fixed.md").write_text("A is right.\n")
    section = runpy.run_path(str(CHANGES / "collect.py"))["section"]
    assert section(tmp_path) == "### Added\n\n- B is new.\n\n### Fixed\n\n- A is right.\n\n"

"""List the public names of each package on the page of the API reference, from its stub."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("manifests", "cache", "extract", "fuse")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Append a section for each package to reference.md; MkDocs calls this for each page."""
    if page.file.src_uri != "reference.md":
        return markdown
    sections = []
    for package in PACKAGES:
        stub = ast.parse((ROOT / package / "__init__.pyi").read_text(encoding="utf-8"))
        places = {
            alias.name: f"mvemo.{package}.{node.module}.{alias.name}"
            for node in stub.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if not alias.name.isupper()
        }
        names = sorted(places, key=str.lower)
        sections += [f"## mvemo.{package}", *(f"::: {places[name]}" for name in names)]
    return "\n\n".join([markdown, *sections])

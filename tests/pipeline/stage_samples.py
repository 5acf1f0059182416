"""Small media sets and settings for end-to-end tests of stage one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mvemo.manifests import Manifest, write_manifest
from mvemo.manifests.demo import make_demo
from mvemo.pipeline import cli

# Narrow nets, one or two epochs, one second of sound and four small frames.
TINY = (
    'extract.nets="music1d,c3d"',
    "extract.folds=2",
    "extract.n_frames=4",
    "extract.workers=1",
    "nets.music1d.width=0.1",
    "nets.music1d.epochs=2",
    "nets.music1d.options={seconds=1.0}",
    "nets.c3d.width=0.05",
    "nets.c3d.epochs=2",
    'nets.c3d.options={size=32, scale="unit"}',
)


def tiny_demo(folder: Path, clips_per_class: int = 2) -> Manifest:
    """Two clips a class, one second each, each a group of its own."""
    return make_demo(folder, clips_per_class=clips_per_class, clips_per_group=1, seconds=1.0)


def tiny_settings(*more: str) -> list[str]:
    """``--set`` options of a run of a few seconds."""
    return [part for value in (*TINY, *more) for part in ("--set", value)]


def run(program: str, *arguments: object) -> int:
    """Run ``mvemo`` or ``mvemo-cv`` as its script does; the exit code."""
    before = sys.argv
    sys.argv = [program, *(str(a) for a in arguments)]
    try:
        with pytest.raises(SystemExit) as stop:
            (cli.main_cv if program == "mvemo-cv" else cli.main)()
    finally:
        sys.argv = before
    return int(stop.value.code or 0)


def rewrite(manifest: Manifest, path: Path) -> Path:
    """Write a changed manifest beside its media."""
    write_manifest(manifest, path)
    return path

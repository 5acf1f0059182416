"""Small media sets and settings for end-to-end tests of stage one."""

from __future__ import annotations

import functools
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import soundfile

from mvemo.manifests import Clip, Manifest, write_manifest
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
    _, manifest = _demo_of(clips_per_class)
    shutil.copytree(manifest.root, folder, dirs_exist_ok=True)
    return replace(manifest, root=folder)


@functools.cache
def _demo_of(clips_per_class: int) -> tuple[TemporaryDirectory[str], Manifest]:
    """A folder that is removed at the end, and the set in it: encoding takes longest."""
    folder = TemporaryDirectory()
    manifest = make_demo(
        folder.name, clips_per_class=clips_per_class, clips_per_group=1, seconds=1.0
    )
    return folder, manifest


def tiny_settings(*more: str) -> list[str]:
    """``--set`` options of a run of a few seconds."""
    return [part for value in (*TINY, *more) for part in ("--set", value)]


def run(program: str, *arguments: object) -> int:
    """Run ``mvemo`` or ``mvemo-cv`` as its script does; the exit code.

    Stage one's worker processes are kept for the next run: starting one takes longer than
    what most tests have it do.
    """
    main = cli.main_cv if program == "mvemo-cv" else cli.main
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *(str(a) for a in arguments)])
        if arguments[0] == "extract":
            patch.setattr("mvemo.pipeline.stage_one.run.stop_workers", lambda: None)
        with pytest.raises(SystemExit) as stop:
            main()
    return int(stop.value.code or 0)


def rewrite(manifest: Manifest, path: Path) -> Path:
    """Write a changed manifest beside its media."""
    write_manifest(manifest, path)
    return path


def make_chords(folder: Path, n_clips: int) -> Path:
    """Manifest of chords of 50 ms whose labels are shuffled over the clips; each its own group."""
    rng, sr = np.random.default_rng(0), 16000
    t = np.arange(sr // 20) / sr
    clips = []
    for i in range(n_clips):
        hertz = np.exp(rng.uniform(np.log(60), np.log(7000), 3))
        loudness = rng.uniform(0.02, 0.3, 3)
        wave = loudness @ np.sin(2 * np.pi * hertz[:, None] * t)
        soundfile.write(folder / f"{i}.wav", wave, sr)
        clips.append(Clip(f"c{i}", f"{i}.wav", ("abcd"[i % 4],), f"g{i}"))
    whole = Manifest("chords", "multiclass", tuple("abcd"), tuple(clips), folder)
    order = rng.permutation(n_clips)
    mixed = [replace(c, label=clips[o].label) for c, o in zip(clips, order, strict=True)]
    write_manifest(replace(whole, clips=tuple(mixed)), folder / "m.csv")
    return folder / "m.csv"

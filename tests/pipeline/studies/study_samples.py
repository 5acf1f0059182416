"""A small set of sounds whose classes a model can tell, and settings of a few seconds."""

import json
from dataclasses import replace

import golden_steps
import pytest
from stage_samples import run

from mvemo.manifests import read_manifest, write_manifest
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.studies.study import open_study

TINY = ("extract.workers=1", "extract.embed_batch=32", *golden_steps.TINY)


def make_set(folder, clips_per_class=6, seconds=0.8):
    """Tones of a pitch for each class; each group has a clip a class."""
    golden_steps.make_sounds(folder, clips_per_class=clips_per_class, seconds=seconds)
    manifest = replace(read_manifest(folder / "clips.csv"), synthetic=True)
    write_manifest(manifest, folder / "manifest.csv")
    return folder / "manifest.csv"


def tiny_options(*more):
    """``--set`` options of a run of a second."""
    return [part for value in (*TINY, *more) for part in ("--set", value)]


def read_tables(out, study):
    """The tables of a study's JSON; strict, so that NaN is an error."""
    return json.loads((out / f"{study}.json").read_text(), parse_constant=pytest.fail)


def opened(folder, *settings, clips_per_class=2, **options):
    """A study of the small set, with `TINY` and more settings."""
    path = make_set(folder / "set", clips_per_class)
    return open_study(path, load_settings("paper", [*TINY, *settings]), work=folder, **options)


def conduct(study, manifest, folder, *options, settings=()):
    """Run a study into ``folder/STUDY`` with the working folder ``folder/work``; its exit code."""
    places = (manifest, "--out", folder / study, "--work", folder / "work")
    return run("mvemo", "study", study, *places, *options, *tiny_options(*settings))

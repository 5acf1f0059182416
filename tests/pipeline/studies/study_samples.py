"""A small set of sounds whose classes a model can tell, and settings of a few seconds."""

import json

import numpy as np
import pytest
import soundfile
from stage_samples import run

from mvemo.manifests import Clip, Manifest, write_manifest
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.studies.study import open_study

CLASSES = ("happy", "sad", "angry", "calm")
TINY = (
    "extract.folds=2",
    "extract.workers=1",
    "extract.embed_batch=32",
    "descriptors.sr=8000",
    "descriptors.n_fft=512",
    "descriptors.hop_length=256",
    "descriptors.spectrogram_n_fft=256",
    "descriptors.spectrogram_hop_length=128",
    "descriptors.n_mels=16",
    "descriptors.n_mfcc=8",
    *(
        f"nets.{net}.{key}={value}"
        for net in ("cnn", "lightcnn", "crnn", "rnn", "speccnn", "music1d")
        for key, value in (("width", 0.1), ("epochs", 2), ("patience", 2))
    ),
    *(f"nets.{net}.options={{n_frames=24}}" for net in ("cnn", "lightcnn", "rnn")),
    "nets.crnn.options={n_frames=24, spectrogram_frames=48, bands=16}",
    "nets.speccnn.options={n_frames=48, bands=16}",
    "nets.music1d.options={seconds=1.0}",
)


def make_set(folder, clips_per_class=6, seconds=0.8):
    """Noise below a frequency of the class's own; each group has a clip a class."""
    rng = np.random.default_rng(0)
    sr, clips = 8000, []
    folder.mkdir(parents=True, exist_ok=True)
    for c, name in enumerate(CLASSES):
        for i in range(clips_per_class):
            n = int(seconds * sr)
            t = np.arange(n) / sr
            tone = np.sin(2 * np.pi * (300 + 700 * c) * t) + 0.3 * rng.normal(size=n)
            samples = (8000 * tone / np.abs(tone).max()).astype("<i2")
            soundfile.write(folder / f"{name}{i}.wav", samples, sr)
            clips.append(Clip(f"{name}{i}", f"{name}{i}.wav", (name,), f"group{i}"))
    manifest = Manifest("made", "multiclass", CLASSES, tuple(clips), folder, synthetic=True)
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

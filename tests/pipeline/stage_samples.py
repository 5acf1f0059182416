"""Small media sets and settings for end-to-end tests of stage one."""

import functools
import shutil
import subprocess
import sys
from dataclasses import replace
from tempfile import TemporaryDirectory

import av
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from mvemo.manifests import Clip, Manifest, write_manifest
from mvemo.manifests.demo import make_demo
from mvemo.pipeline import cli
from mvemo.pipeline.console.messages import Verbosity, running

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


def tiny_demo(folder, clips_per_class=2):
    """Two clips a class, one second each, each a group of its own."""
    _, manifest = _demo_of(clips_per_class)
    shutil.copytree(manifest.root, folder, dirs_exist_ok=True)
    return replace(manifest, root=folder)


@functools.cache
def _demo_of(clips_per_class):
    """A folder that is removed at the end, and the set in it: encoding takes longest."""
    folder = TemporaryDirectory()
    manifest = make_demo(
        folder.name, clips_per_class=clips_per_class, clips_per_group=1, seconds=1.0
    )
    return folder, manifest


def set_options(*values):
    """``--set`` options of a command."""
    return [part for value in values for part in ("--set", value)]


def tiny_settings(*more):
    """``--set`` options of a run of a few seconds."""
    return set_options(*TINY, *more)


def run(program, *arguments):
    """Run ``mvemo`` or ``mvemo-cv`` as its script does, and return the exit code."""
    main = cli.main_cv if program == "mvemo-cv" else cli.main
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [program, *(str(a) for a in arguments)])
        if arguments[0] in ("extract", "study"):
            # Starting a worker process takes longer than its task in most tests.
            patch.setattr("mvemo.pipeline.stage_one.run.stop_workers", lambda: None)
        with pytest.raises(SystemExit) as stop:
            main()
    return int(stop.value.code or 0)


def lines_of(calls, modules, folder="."):
    """Return what a process prints that makes these calls; none may load one of the modules."""
    code = (
        "import sys\n"
        "from mvemo.pipeline import cli\n"
        "sys.stderr = sys.stdout\n"
        f"for status, program, *words in {calls!r}:\n"
        "    sys.argv = ['mvemo', *words]\n"
        "    try:\n        getattr(cli, program)()\n"
        "    except SystemExit as stop:\n        assert (stop.code or 0) == status, words\n"
        f"    print('loaded', [name for name in {modules!r} if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    lines = done.stdout.splitlines()
    assert [x for x in lines if x.startswith("loaded")] == ["loaded []"] * len(calls)
    return lines


def invoke(command, *arguments, ends=0):
    """Run a click command to the exit code `ends`, with messages as in a program."""
    with running(Verbosity()):
        done = CliRunner().invoke(command, [str(a) for a in arguments])
    assert done.exit_code == ends, done.output
    return done


def refusal(capsys):
    """Last line on stderr, of a command that ended without a traceback."""
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.strip().splitlines()[-1]


def rewrite(manifest, path):
    """Write a changed manifest beside its media."""
    write_manifest(manifest, path)
    return path


def write_video(path, frames, rate, y, sr):
    """Write frames, uint8 (n, height, width, 3), and mono sound (n,) as MPEG-4 and PCM."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=rate)
        pictures.height, pictures.width, pictures.pix_fmt = *frames[0].shape[:2], "yuv420p"
        track = container.add_stream("pcm_s16le", rate=sr)
        for frame in frames:
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        sound = av.AudioFrame.from_ndarray((y * 32767).astype(np.int16)[None], "s16", "mono")
        sound.sample_rate = sr
        container.mux(track.encode(sound))
        container.mux(pictures.encode())
        container.mux(track.encode())


def make_chords(folder, n_clips):
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


def tiny_model(folder):
    """Write features of 12 clips to `folder`, and a model with a tiny net to ``out/model``."""
    tiny_demo(folder / "demo", clips_per_class=2)
    more = tiny_settings('extract.descriptors=["mfcc"]', 'extract.nets=["music1d"]')
    extract = [folder / "demo" / "manifest.csv", "--work", folder / "work"]
    assert run("mvemo", "extract", *extract, *more) == 0
    features = folder / "work" / "features.h5"
    fuse = ["--final", "--out", folder / "out", "--set", "fuse.n_resamples=0"]
    assert run("mvemo", "fuse", features, *fuse) == 0

"""A few short sounds, and a run of stage one over them in one process to compare with."""

from collections import namedtuple

import numpy as np
import soundfile
import torch
from stage_samples import run, set_options

from mvemo.cache import open_cache
from mvemo.extract.nets import build_net

# Half a second of sound, nets of a few channels, one epoch.
SPREAD = (
    'extract.nets="music1d,rnn"',
    'extract.descriptors=["mfcc"]',
    "extract.folds=2",
    "extract.workers=1",
    # Tasks of a clip or two.
    "extract.embed_batch=1",
    "nets.music1d.width=0.1",
    "nets.music1d.epochs=1",
    "nets.music1d.options={seconds=0.5}",
    "nets.rnn.epochs=1",
)


# A manifest of eleven clips, one of which cannot be decoded, and options of two kinds of run.
Sounds = namedtuple("Sounds", ["manifest", "frozen", "trained"])


def make_sounds(folder):
    """Write the clips, and weights for a frozen net."""
    rng, time = np.random.default_rng(0), np.arange(4000) / 8000
    lines = ["clip_id,path,label,group"]
    for i in range(10):
        wave = 0.3 * np.sin(2 * np.pi * (220 + 40 * i) * time) + 0.01 * rng.normal(size=4000)
        soundfile.write(folder / f"{i}.wav", wave, 8000)
        lines.append(f"c{i},{i}.wav,{('calm', 'tense')[i % 2]},g{i}")
    (folder / "bad.wav").write_bytes(b"no sound")
    lines.append("bad,bad.wav,calm,bad")
    manifest = folder / "m.csv"
    manifest.write_text("\n".join(lines) + "\n")
    net = build_net("music1d", 2, width=0.1, seconds=0.5)
    torch.save(net.state_dict(), folder / "net.pt")
    settings = set_options(*SPREAD)
    frozen = ["--protocol", "frozen", "--nets", "music1d"]
    frozen += ["--weights", f"music1d={folder / 'net.pt'}"]
    return Sounds(manifest, [*settings, *frozen], settings)


def extract(sounds, kind, work, *more):
    """Exit code of ``mvemo extract`` over the sounds, ``frozen`` or ``trained``."""
    return run("mvemo", "extract", sounds.manifest, "--work", work, *getattr(sounds, kind), *more)


def digest(path):
    with open_cache(path) as cache:
        return cache.digest()

"""Time per clip on this machine, measured on a generated clip."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import joblib
import numpy as np
import torch

from mvemo.extract.nets import NETS, Net, build_net
from mvemo.extract.settings import NetSettings
from mvemo.extract.training.devices import pick_device, place
from mvemo.extract.training.embedding import embed_rows
from mvemo.manifests import Clip, Manifest
from mvemo.manifests.demo.media import FPS, SR, video_codec, write_clip
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console.messages import silenced
from mvemo.pipeline.console.progress import duration_text
from mvemo.pipeline.doctor.checks import Finding
from mvemo.pipeline.settings import Settings

HEIGHT, WIDTH = 256, 456


@dataclass(frozen=True)
class Speed:
    """Time and room that one clip takes."""

    seconds: float  # length of the clip
    reading: float  # seconds of decoding and describing, by one worker
    nets: Mapping[str, float]  # net to seconds of embedding, with all cores or the GPU
    n_bytes: int  # bytes that it leaves in the working folder
    workers: int = field(default_factory=joblib.cpu_count)  # number of reading processes

    def of_clips(self, n_clips: int) -> float:
        """Return the seconds that this number of such clips takes.

        Examples
        --------
        >>> Speed(30.0, 1.0, {"musicnn": 0.5}, 0, workers=2).of_clips(100)
        100.0
        """
        return n_clips * (self.reading / self.workers + sum(self.nets.values()))

    def findings(self, n_clips: int) -> list[Finding]:
        """Return two findings: one on a single clip, one on many."""
        nets = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.nets.items())
        clip = f"a clip of {self.seconds:.0f} s takes: reading {self.reading:.1f} s, {nets}"
        if busy():
            clip += "; the machine is busy with other work, so less where it is not"
        total = (
            f"{n_clips} such clips take about {duration_text(self.of_clips(n_clips))} by --profile "
            f"pretrained, and {n_clips * self.n_bytes / 2**30:.1f} GiB in the working folder"
        )
        return [Finding("ok", "speed", clip), Finding("ok", "time", total)]


def measure_speed(settings: Settings, seconds: float = 30.0) -> Speed:
    """Read and embed a generated clip of `seconds` as `mvemo extract` does with these settings.

    The nets have random weights, which does not change the time.
    """
    run = settings.extract.run
    settings = replace(settings, extract=replace(settings.extract, workers=1))
    plans = [settings.nets[name] for name in settings.extract.nets]
    with silenced(), tempfile.TemporaryDirectory(prefix="mvemo-doctor-") as temp:
        folder = Path(temp)
        _write_clip(folder / "clip.mp4", seconds)
        # The first clip of a process takes longer and is not measured.
        _read(folder, "first", 1.0, settings, plans)
        start = time.perf_counter()
        media = _read(folder, "second", None, settings, plans)
        reading = time.perf_counter() - start
        device = pick_device(run.device)
        times = {plan.name: _embedding_time(plan, media, device) for plan in plans}
        decoded = (path for path in (folder / "second").rglob("*") if path.is_file())
        return Speed(seconds, reading, times, sum(path.stat().st_size for path in decoded))


def _write_clip(path: Path, seconds: float) -> None:
    """Write a moving random pattern with noise: quick to make, and as hard to decode as a film."""
    rng = np.random.default_rng(0)
    n_frames = round(seconds * FPS)
    picture = rng.integers(0, 256, (HEIGHT // 16, WIDTH // 8, 3), dtype=np.uint8)
    picture = picture.repeat(16, axis=0).repeat(8, axis=1)
    frames = np.stack([np.roll(picture, 3 * i, axis=1) for i in range(n_frames)])
    sound = rng.normal(0.0, 0.1, (2, round(seconds * SR))).astype(np.float32)
    write_clip(path, frames, np.ones(n_frames, dtype=np.bool_), sound, video_codec())


def _read(
    folder: Path,
    name: str,
    duration: float | None,
    settings: Settings,
    plans: Sequence[NetSettings],
) -> ClipMedia:
    clip = Clip(name, str(folder / "clip.mp4"), (), name, 0.0, duration)
    return ClipMedia(
        Manifest("doctor", "multilabel", (), (clip,), folder),
        settings,
        folder / name,
        plans=plans,
        descriptors=settings.extract.descriptors,
    )


def _embedding_time(plan: NetSettings, media: ClipMedia, device: torch.device) -> float:
    n_outputs = NETS[plan.name].pretrained_outputs or 2
    net: Net = place(build_net(plan.name, n_outputs, width=plan.width, **plan.options), device)
    batches = media.batches(net, plan.view)
    for _ in range(2):
        start = time.perf_counter()
        for _ in embed_rows(net, batches, [0], batch_size=4, device=device):
            pass
        taken = time.perf_counter() - start
    return taken


def busy() -> bool:
    """Return True if other programs use the cores, too; False if the system does not tell."""
    try:
        return bool(os.getloadavg()[0] > 1.5 * joblib.cpu_count())
    except (AttributeError, OSError):
        return False

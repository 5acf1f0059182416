"""Decoding a clip (32 frames and the waveform) against decoding alone.

    python bench/bench_decode.py [FOLDER] [--clips 20]

FOLDER holds video files; by default the real clips beside the checkout. The other side
decodes every frame and sample of the same file with PyAV and keeps nothing.
`decode_clip` leaves out pictures that are neither chosen nor needed by others, so that it can be
the faster one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
from figures import Row, bench_parser, finish, in_turns

from mvemo.extract.media.reading import decode_clip
from mvemo.extract.media.request import FrameSampling

CLIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "mve"
ROUNDS = 3
TWO = (FrameSampling(n_frames=32, size=112), FrameSampling(n_frames=32, size=224))


def bare(path: Path) -> None:
    """Decode everything."""
    with av.open(str(path)) as container:
        streams: list[Any] = [*container.streams.video[:1], *container.streams.audio[:1]]
        for stream in streams:
            stream.thread_type = "AUTO"
        for _ in container.decode(streams):
            pass


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=CLIPS)
    parser.add_argument("--clips", type=int)
    chosen = parser.parse_args()
    chosen.clips = chosen.clips or (6 if chosen.quick else 20)
    files = sorted(chosen.folder.rglob("*.mp4"))
    if not files:
        print(f"decode: no .mp4 files under {chosen.folder}, nothing to time")
        return
    files = files[:: max(len(files) // chosen.clips, 1)][: chosen.clips]
    sides: dict[str, Callable[[Path], Any]] = {
        "bare PyAV": bare,
        "16 kHz, 112": lambda f: decode_clip(f, sample_rates=(16000,)),
        "two of each": lambda f: decode_clip(f, sample_rates=(16000, 12000), pictures=TWO),
    }
    total = dict.fromkeys(sides, 0.0)
    for file in files:
        best = in_turns([partial(side, file) for side in sides.values()], ROUNDS)
        for name, (wall, _) in zip(sides, best, strict=True):
            total[name] += wall
    spent = {name: 1000 * seconds / len(files) for name, seconds in total.items()}
    plain = spent.pop("bare PyAV")
    finish(
        chosen,
        [
            Row(f"decode, {name}, {len(files)} clips", ms, "ms a clip", "bare PyAV", plain,
                ms / plain)
            for name, ms in spent.items()
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()

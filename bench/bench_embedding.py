"""Embedding by the video nets on this processor, against the same nets run plainly.

Plain: eager PyTorch, fp32, contiguous tensors, normalisation by itself, freed memory given
back. As stage one does it: channels last, normalisation folded into the convolutions, these by
Winograd's way in fp32, pooling by neighbours, freed memory kept. Each side runs in a process of
its own, for the memory; the embeddings of both are compared; bf16 where the processor has it.
Processor time, so that other work on the machine counts less.

    python bench/bench_embedding.py [--windows 4] [--rounds 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from figures import Row, bench_parser, finish, has_bf16

from mvemo.extract.nets import build_net
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.fast_conv import optimized
from mvemo.extract.training.devices import autocast, keep_freed_memory, place

NETS = ("i3d", "c3d", "effnet")
SIDES = ("plain", "mvemo", "mvemo bf16")


def embed_plainly(net: Net, raw: torch.Tensor) -> torch.Tensor:
    # Gradients may be asked for, as in code that does not say otherwise, but no weight has one.
    with torch.enable_grad():
        return net.embed(net.prepare(raw).contiguous())


@torch.inference_mode()
def embed_fast(net: Net, raw: torch.Tensor, precision: str) -> torch.Tensor:
    with autocast(torch.device("cpu"), precision):
        return net.embed(net.prepare(raw)).float()


def run_side(side: str, name: str, windows: int, rounds: int, threads: int, out: Path) -> None:
    """Embed made windows, and write the least time of a window and the embeddings."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = build_net(name, 6).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    shape = (windows, net.input.n_frames, net.input.size, net.input.size, 3)  # type: ignore[union-attr]
    raw = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    if side != "plain":
        keep_freed_memory()
        net = optimized(place(net, torch.device("cpu")), "bf16" if "bf16" in side else "float32")
    times = []
    for _ in range(rounds + 1):
        started = time.process_time()
        if side == "plain":
            values = embed_plainly(net, raw)
        else:
            values = embed_fast(net, raw, "bf16" if "bf16" in side else "float32")
        times.append((time.process_time() - started) / windows)
    # The first round sets up its kernels.
    np.savez(out, values=values.numpy(), seconds=min(times[1:]))


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--windows", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.side:
        run_side(
            chosen.side, chosen.nets, chosen.windows, chosen.rounds, chosen.threads, chosen.out
        )
        return
    chosen.windows = chosen.windows or (1 if chosen.quick else 4)
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 3)
    sides = SIDES if has_bf16() else SIDES[:2]
    rows = []
    for name in chosen.nets.split(","):
        found = {}
        for side in sides:
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "side.npz"
                arguments = ["--side", side, "--nets", name, "--out", str(out)]
                for key in ("windows", "rounds", "threads"):
                    arguments += [f"--{key}", str(getattr(chosen, key))]
                subprocess.run([sys.executable, __file__, *arguments], check=True)
                with np.load(out) as file:
                    found[side] = (file["values"], float(file["seconds"]))
        expected, plain = found["plain"]
        largest = np.abs(expected).max()
        for side, (values, spent) in found.items():
            difference = np.abs(values - expected).max() / largest
            print(f"{name}, {side}: difference {difference:.1e} of the largest")
            if side == "plain":
                continue
            what = f"embed, {name}, {side.removeprefix('mvemo ').replace('mvemo', 'fp32')}"
            goal = ">= 1.8" if name != "effnet" and side == "mvemo" else ""
            rows.append(
                Row(what, 1000 * spent, "ms a window", "plain eager fp32", 1000 * plain,
                    plain / spent, goal or ">= 1")
            )  # fmt: skip
    finish(chosen, rows)


if __name__ == "__main__":
    main()

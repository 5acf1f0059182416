"""Embedding by the video nets on this processor, against the same nets run plainly.

Plain: eager PyTorch, fp32, contiguous tensors, normalisation by itself, freed memory given
back. As stage one does it: channels last, normalisation folded into the convolutions, these by
Winograd's way in fp32, pooling by neighbours, freed memory kept. Each side runs in a process of
its own, for the memory; the embeddings of both are compared; bf16 where the processor has it.
ONNX Runtime and OpenVINO are further sides, in fp32, where their packages are installed (the
former needs onnx and onnxscript); nets that they cannot convert are named. Processor time, so that
other work on the machine counts less.

    python bench/bench_embedding.py [--windows 4] [--rounds 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from figures import Row, bench_parser, finish, has_bf16

from mvemo.extract.nets import build_net, effnet
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.fast_conv import optimized
from mvemo.extract.training.devices import autocast, keep_freed_memory, place

Side = Callable[[torch.Tensor], torch.Tensor]
NETS = ("effnet", "i3d", "c3d")
# The packages that each side needs.
SIDES = {
    "plain": (),
    "mvemo": (),
    "mvemo bf16": (),
    "ONNX Runtime": ("onnxruntime", "onnx", "onnxscript"),
    "OpenVINO": ("openvino",),
}


def embed_plainly(net: Net, raw: torch.Tensor) -> torch.Tensor:
    # Gradients may be asked for, as in code that does not say otherwise, but no weight has one.
    with torch.enable_grad():
        return net.embed(net.prepare(raw).contiguous())


@torch.inference_mode()
def embed_fast(net: Net, raw: torch.Tensor, precision: str) -> torch.Tensor:
    with autocast(torch.device("cpu"), precision):
        return net.embed(net.prepare(raw)).float()


def converted(side: str, net: Net, raw: torch.Tensor, threads: int) -> Side:
    """Return a function that embeds by another runtime, with the net converted to it."""
    x = net.prepare(raw).contiguous()
    net.forward = net.embed  # type: ignore[method-assign] - what converters follow
    if side == "OpenVINO":
        import openvino

        model = openvino.convert_model(net, example_input=x)
        config = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(model, "CPU", config)
        return lambda raw: torch.from_numpy(compiled(net.prepare(raw).contiguous().numpy())[0])
    import onnxruntime

    (options := onnxruntime.SessionOptions()).intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/net.onnx"
        torch.onnx.export(net, (x,), path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()

    def embed(raw: torch.Tensor) -> torch.Tensor:
        values = session.run(None, {entry.name: net.prepare(raw).contiguous().numpy()})
        return torch.from_numpy(values[0])

    return embed


def prepared(side: str, net: Net, raw: torch.Tensor, threads: int) -> Side:
    """Return the function by which a side embeds windows."""
    if side == "plain":
        return lambda raw: embed_plainly(net, raw)
    if not side.startswith("mvemo"):
        return converted(side, net, raw, threads)
    keep_freed_memory()
    precision = "bf16" if "bf16" in side else "float32"
    faster = optimized(place(net, torch.device("cpu")), precision)
    return lambda raw: embed_fast(faster, raw, precision)


def run_side(side: str, name: str, windows: int, rounds: int, threads: int, out: Path) -> None:
    """Embed made windows, and write the least time of a window and the embeddings."""
    torch.set_num_threads(threads)
    if not side.startswith("mvemo"):
        # In one step, as other programs do.
        effnet.FRAMES_AT_ONCE, effnet.SINGLY = sys.maxsize, 0
    torch.manual_seed(0)
    net = build_net(name, 6).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(1)
    shape = (windows, net.input.n_frames, net.input.size, net.input.size, 3)  # type: ignore[union-attr]
    raw = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    try:
        embed = prepared(side, net, raw, threads)
    except Exception as error:  # converters raise errors of many types
        print(f"{name}, {side}: cannot be converted: {type(error).__name__}")
        return
    times = []
    for _ in range(rounds + 1):
        started = time.process_time()
        values = embed(raw)
        times.append((time.process_time() - started) / windows)
    # The first round sets up its kernels.
    np.savez(out, values=values.numpy(), seconds=min(times[1:]))


def main() -> None:
    parser = bench_parser(__doc__)
    parser.add_argument("--nets")
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
    chosen.nets = chosen.nets or ",".join(NETS[: 1 if chosen.quick else None])
    chosen.windows = chosen.windows or (1 if chosen.quick else 4)
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 3)
    sides = [side for side, needed in SIDES.items() if all(map(find_spec, needed))]
    if not has_bf16():
        sides.remove("mvemo bf16")
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
                if out.exists():
                    with np.load(out) as file:
                        found[side] = (file["values"], float(file["seconds"]))
        expected = found["plain"][0]
        for side, (values, _) in found.items():
            difference = np.abs(values - expected).max() / np.abs(expected).max()
            print(f"{name}, {side}: difference {difference:.1e} of the largest")
        pairs = [("mvemo", side) for side in sides if not side.startswith("mvemo")]
        pairs += [(side, "plain") for side in sides if side == "mvemo bf16"]
        for side, other in pairs:
            spent, theirs = found[side][1], found[other][1] if other in found else math.nan
            label = "plain eager fp32" if other == "plain" else other
            label += "" if other in found else ", cannot convert it"
            goal = ">= 1.8" if (other, side) == ("plain", "mvemo") and name != "effnet" else ">= 1"
            what = f"embed, {name}, {'bf16' if 'bf16' in side else 'fp32'}"
            rows.append(
                Row(what, 1000 * spent, "ms a window", label, 1000 * theirs, theirs / spent, goal)
            )
    finish(chosen, rows)


if __name__ == "__main__":
    main()

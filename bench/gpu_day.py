"""The first day on a GPU: its tests, its speeds and the whole of stage one, in nine minutes.

    python bench/gpu_day.py [--out gpu-day] [--weights FOLDER] [--minutes 9] [--only train,embed]
    python bench/gpu_day.py --toy          # on a processor, at small sizes: the parts run at all

It needs no network and no media libraries: random clips are written to a working cache, as if they
had been decoded. Nets have random weights, or those of ``FOLDER/NAME.npz``; both cost the same. The
other side of each training is the step written plainly: float32, channels first, torch's own
layers. Parts follow in order of importance; what does not fit into the minutes is named. The
figures are in ``gpu-day/gpu_day.json``, and on a page beside it.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_training import Bench, peak_memory, rate_and_busy, timed
from figures import Row, machine, number, table_lines, write_weights

from mvemo.cache import open_cache
from mvemo.extract.nets import NETS, Net, build_net
from mvemo.extract.settings import NetSettings, ViewSettings
from mvemo.extract.store import folders
from mvemo.extract.store.contents import KnownContents
from mvemo.extract.store.decoded import DecodedStore
from mvemo.extract.training.data import RawBatches
from mvemo.extract.training.steps import set_determinism
from mvemo.manifests import Clip, Manifest, write_manifest
from mvemo.manifests.files import stamp_of
from mvemo.pipeline.clips.clip_media import ClipMedia, media_request
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.stage_one.division import ExtractRequest
from mvemo.pipeline.stage_one.run import run_extract

ROOT = Path(__file__).resolve().parents[1]
CLASSES = ("Exciting", "Fear", "Neutral", "Relaxation", "Sad", "Tension")
# Trained nets, with the most expensive first: they matter most.
TRAINED = ("i3d", "c3d", "music2d", "music1d", "crnn", "musicnn", "effnet")
FROZEN = ("musicnn", "effnet", "i3d")
LOUD = np.array([[-23.0]], dtype=np.float32)


@dataclass
class Day:
    """What all parts share: device, sizes, folders, and the end of the time."""

    folder: Path
    toy: bool
    weights: Path | None
    deadline: float
    device: torch.device
    names: tuple[str, ...]
    left_out: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of one measurement."""
        return 0.01 if self.toy else 1.0

    @property
    def half(self) -> str:
        """Precision of half the bits, on a GPU: a processor may imitate it, slowly."""
        return "float32" if self.device.type == "cpu" else "bf16"

    def nets(self) -> dict[str, NetSettings]:
        """Settings of all nets; toys train on few clips at once."""
        nets = load_settings("demo" if self.toy else "paper").nets
        size = {"batch_size": 4} if self.toy else {}
        return {name: replace(net, train=replace(net.train, **size)) for name, net in nets.items()}

    def fits(self, what: str, seconds: float) -> bool:
        """Whether so many seconds are left; what does not fit is noted."""
        left = self.deadline - time.monotonic()
        if left < seconds and not self.toy:
            self.left_out.append(f"{what}: needs about {seconds:.0f} s, {max(left, 0):.0f} s left")
            return False
        return True

    def settings(self, profile: str, *options: str) -> Settings:
        toy = ["extract.n_frames=8"] if self.toy else []
        return load_settings(profile, ["extract.fetch=false", *toy, *options])


def write_clips(day: Day, name: str, n_clips: int, settings: Settings) -> tuple[Path, Manifest]:
    """Write a manifest of stub files and a working cache with their random contents."""
    root = day.folder / name
    media, work = root / "media", root / "work"
    media.mkdir(parents=True)
    plans = [settings.nets[net] for net in settings.extract.nets]
    request, _ = media_request(plans, settings.extract.descriptors, settings.descriptors)
    store = DecodedStore(work / "decoded", request)
    rng = np.random.default_rng(0)
    seconds = 4 if day.toy else 30
    sounds = {sr: (rng.normal(size=2 * seconds * sr) * 0.1).astype(np.float32)
              for sr in request.sample_rates}  # fmt: skip
    pictures = {s: rng.integers(0, 256, (2 * s.views * s.n_frames, s.size, s.size, 3), np.uint8)
                for s in request.pictures}  # fmt: skip
    clips = [Clip(f"{i:04}", f"media/{i:04}.mp4", (CLASSES[i % 6],), f"g{i // 2}")
             for i in range(n_clips)]  # fmt: skip
    manifest = Manifest(name, "multiclass", CLASSES, tuple(clips), root)
    known = KnownContents()
    for i, clip in enumerate(clips):
        path = manifest.media_path(clip)
        path.write_bytes(f"clip {name} {i}".encode())
        known.put(path, stamp_of(path), f"{i:064x}")
    known.close()

    def write(i: int) -> None:
        job = folders.DecodeJob(clips[i].clip_id, manifest.media_path(clips[i]), f"{i:064x}")
        folder = store.assign_folder(job)
        for sr, sound in sounds.items():
            path = folders.array_path(folder, sr, request.level)
            folders.write_array(path, sound[i * 997 % (len(sound) // 2) :][: seconds * sr])
        for sampling, frames in pictures.items():
            n = sampling.views * sampling.n_frames
            folders.write_array(folders.array_path(folder, sampling), frames[i % n :][:n])
        folders.write_array(folder / folders.LOUDNESS, LOUD)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(n_clips)))
    write_manifest(manifest, root / "clips.csv")
    return root / "clips.csv", manifest


def extract(day: Day, table: Path, settings: Settings, out: str) -> tuple[Path, float]:
    """Run stage one from the working cache; return the features and the wall seconds."""
    path = day.folder / f"{out}.h5"
    started = time.perf_counter()
    summary = run_extract(ExtractRequest(table, settings, table.parent / "work", path))
    seconds = time.perf_counter() - started
    if summary.failures:
        raise RuntimeError(f"{out}: {summary.failures[0]}")
    return path, seconds


def difference(path: Path, other: Path, name: str) -> float:
    """The largest difference of an embedding, as a share of its largest value."""
    values = []
    for each in (path, other):
        with open_cache(each) as cache:
            values.append(cache.vectors(name)[0])
    return float(np.abs(values[0] - values[1]).max() / np.abs(values[1]).max())


def tests(day: Day) -> Iterator[Row]:
    """The tests marked ``gpu``."""
    files = map(str, sorted(ROOT.glob("tests/**/test_gpu.py")))
    options = ["-m", "gpu", "-q", "-p", "no:cacheprovider", *files]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "pytest", *options], cwd=ROOT, check=False,
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    print(done.stdout[-6000:])
    yield Row(f"tests: {done.stdout.strip().splitlines()[-1]}", time.perf_counter() - started, "s")
    if done.returncode:
        raise RuntimeError(f"pytest ends with {done.returncode}")


def profile(day: Day) -> Iterator[Row]:
    """The default profile from working cache to feature file, beside this machine's processor."""
    few, many = (6, 12) if day.toy else (24, 192)
    weights = write_weights(FROZEN, day.folder, day.weights)
    if day.toy:
        # Their pictures are too large for a toy.
        weights = {"musicnn": weights["musicnn"]}
    options = [f"nets.{net}.weights='{path}'" for net, path in weights.items()]
    options += [f"extract.nets={json.dumps(list(weights))}", "extract.folds=2"]
    settings = day.settings("pretrained", *options)
    tables = {n: write_clips(day, f"profile-{n}", n, settings)[0] for n in (few, many)}
    # The first run of a precision loads its kernels.
    runs = [(few, "float32", "auto"), (few, day.half, "auto"), (few, "float32", "cpu"),
            (many, "float32", "auto"), (many, day.half, "auto")]  # fmt: skip
    found: dict[tuple[int, str, str], Path] = {}
    processor = np.nan
    # On a processor, both precisions are one.
    for n_clips, precision, device in dict.fromkeys(runs):
        what = f"profile pretrained, {n_clips} clips, {precision}"
        if not day.fits(what, 15):
            continue
        run = replace(settings.extract.run, precision=precision, device=device)
        chosen = replace(settings, extract=replace(settings.extract, run=run))
        key = n_clips, precision, device
        found[key], seconds = extract(day, tables[n_clips], chosen, f"profile-{len(found)}")
        rate = 3600 * n_clips / seconds
        processor = rate if device == "cpu" else processor
        what += ", the processor" if device == "cpu" else ", first" if n_clips == few else ""
        yield Row(what, rate, "songs/h", "the processor", processor, rate / processor)
    for precision in dict.fromkeys(("float32", day.half)):
        for net in weights:
            sides = [(few, precision, "auto"), (few, "float32", "cpu")]
            if found.keys() >= set(sides):
                apart = difference(*(found[side] for side in sides), net)
                yield Row(f"{net}, {precision}: difference from the processor", apart,
                          "of the largest")  # fmt: skip


def train(day: Day) -> Iterator[Row]:
    """Training of each net: clips per second and the share of time in which the GPU works."""
    sides: dict[str, Callable[[Bench], Any]] = {
        "fp32": lambda bench: bench.trained("float32"),
        "bf16, channels first": lambda bench: bench.trained(day.half, layout=Net.to),
        "bf16": lambda bench: bench.trained(day.half),
    }
    for name in day.names:
        if not day.fits(f"train {name}", 20):
            continue
        bench = Bench(day.nets()[name], day.device)
        plain = timed(*bench.plain(), day.device, day.seconds)
        for side, made in sides.items():
            # Only nets of pictures have another layout than torch's own.
            if "channels" not in side or NETS[name].modality == "video":
                rate, busy = rate_and_busy(made(bench), day.device, day.seconds)
                yield Row(f"train {name}, {side}", rate, "clips/s", "plain eager fp32", plain,
                          rate / plain, share=busy)  # fmt: skip
        torch.cuda.empty_cache()


def embed(day: Day) -> Iterator[Row]:
    """Embedding of batches that are on the device, in float32 and bf16."""
    for name in day.names:
        if not day.fits(f"embed {name}", 8):
            continue
        plan = day.nets()[name]
        bench = Bench(replace(plan, train=replace(plan.train, batch_size=4 if day.toy else 32)),
                      day.device)  # fmt: skip
        rates = {}
        for precision in ("float32", "bf16"):
            if precision in ("float32", day.half):
                rate, busy = rate_and_busy(bench.embedded(precision), day.device, day.seconds)
                rates[precision] = rate
                yield Row(f"embed {name}, {precision}", rate, "clips/s", "float32",
                          rates["float32"], rate / rates["float32"], share=busy)  # fmt: skip


def loader(day: Day) -> Iterator[Row]:
    """Clips per second that the working cache gives to the device, beside those that train."""
    nets = ["extract.nets=music1d"] * day.toy
    settings = day.settings("demo" if day.toy else "paper", "extract.descriptors=[]", *nets)
    n_clips = 12 if day.toy else 192
    table, manifest = write_clips(day, "loader", n_clips, settings)
    plans = [settings.nets[net] for net in settings.extract.nets]
    media = ClipMedia(manifest, settings, table.parent / "work", plans=plans)
    for plan in plans:
        net = build_net(plan.name, 6, width=plan.width, **plan.options)
        reader, size = media.batches(net, ViewSettings()), plan.train.batch_size
        rows = [list(range(i, min(i + size, n_clips))) for i in range(0, n_clips, size)]
        given = timed(partial(_load, reader, rows, day.device), n_clips, day.device, day.seconds)
        bench = Bench(plan, day.device)
        used = timed(*bench.trained(day.half), day.device, day.seconds)
        yield Row(f"load {plan.name}", given, "clips/s", "training in bf16", used, given / used)


def _load(reader: RawBatches, rows: list[list[int]], device: torch.device) -> None:
    for _, raw in reader.ahead(rows):
        raw.to(device, non_blocking=True)


def tune(day: Day) -> Iterator[Row]:
    """Stage one as a whole with training: two folds of two nets, all steps between included."""
    n_clips, epochs = (12, 1) if day.toy else (96, 4)
    nets = ("music1d",) if day.toy else ("c3d", "i3d")
    options = [f"extract.nets={json.dumps(nets)}", "extract.folds=2", "extract.descriptors=[]"]
    options += [f"nets.{net}.{key}={value}" for net in nets
                for key, value in (("epochs", epochs), ("patience", 0))]  # fmt: skip
    for precision in ("float32", "bf16")[: 1 if day.toy else None]:
        settings = day.settings("demo" if day.toy else "paper", *options,
                                f"extract.precision='{precision}'")  # fmt: skip
        if not day.fits(f"tune, {precision}", 40):
            continue
        table, _ = write_clips(day, f"tune-{precision}", n_clips, settings)
        _, seconds = extract(day, table, settings, f"tune-{precision}")
        steps = len(nets) * n_clips * epochs
        yield Row(f"stage one, {' and '.join(nets)}, 2 folds, {precision}", steps / seconds,
                  "trained clips/s, all included")  # fmt: skip


def memory(day: Day) -> Iterator[Row]:
    """A batch that does not fit: it is halved, and training goes on."""
    bench = Bench(day.nets()["c3d"], day.device)
    function, n_clips = bench.trained("float32")
    if day.device.type != "cuda":
        yield Row("c3d in one part", timed(function, n_clips, day.device, day.seconds), "clips/s")
        return
    gib = peak_memory(function, day.device)
    whole = timed(function, n_clips, day.device, day.seconds)
    del function
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory / 2**30
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_per_process_memory_fraction(0.75 * gib / total)
        try:
            function, n_clips = bench.trained("float32")
            function()
            halved = timed(function, n_clips, day.device, day.seconds)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    texts = [str(each.message) for each in caught if "does not fit" in str(each.message)]
    if not texts:
        raise RuntimeError("no batch was divided")
    print("\n".join(texts))
    yield Row(f"c3d with 3/4 of its {gib:.1f} GiB: {texts[-1].rpartition(' in ')[2]}", halved,
              "clips/s", "all memory", whole, halved / whole)  # fmt: skip


def compiled(day: Day) -> Iterator[Row]:
    """The compiled step, with the seconds that the compiler takes."""
    for name in ("music1d",) if day.toy else day.names:
        if not day.fits(f"compile {name}", 45):
            continue
        bench = Bench(day.nets()[name], day.device)
        eager = timed(*bench.trained(day.half), day.device, day.seconds)
        function, n_clips = bench.trained(day.half, compiled=True)
        started = time.perf_counter()
        function()
        yield Row(f"compile {name}", time.perf_counter() - started, "s")
        rate, busy = rate_and_busy((function, n_clips), day.device, day.seconds)
        yield Row(f"train {name}, compiled", rate, "clips/s", "eager", eager, rate / eager,
                  share=busy)  # fmt: skip


PARTS = (tests, profile, train, loader, memory, tune, embed, compiled)


def facts_of(device: torch.device) -> dict[str, Any]:
    """The machine, its GPU, and the versions of what computes."""
    facts = {**machine(), "torch": torch.__version__, "device": device.type}
    if device.type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        facts |= {"gpu": gpu.name, "gpu memory": f"{gpu.total_memory / 2**30:.0f} GiB",
                  "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}  # fmt: skip
    return facts


def page(facts: dict[str, Any], parts: dict[str, dict[str, Any]], left_out: list[str]) -> str:
    """All figures as HTML: a table of each part, with a bar for the share of the best rate."""
    lines = ["<!doctype html><meta charset=utf-8><title>A day on a GPU</title>", STYLE]
    lines.append(f"<h1>A day on {html.escape(str(facts.get('gpu', facts['processor'])))}</h1>")
    lines.append(f"<p>{html.escape(', '.join(f'{k} {v}' for k, v in facts.items()))}</p>")
    for name, part in parts.items():
        lines.append(f"<h2>{name}</h2><p>{html.escape(part['about'])} {part['seconds']:.0f} s.</p>")
        lines += [f"<pre>{html.escape(part['error'])}</pre>"] if part["error"] else []
        if not part["rows"]:
            continue
        rates = [row["value"] for row in part["rows"] if "/" in row["unit"]]
        lines.append("<table><tr><th>measured<th>value<th><th>other<th>ratio<th>GPU busy</tr>")
        for row in part["rows"]:
            width = 100 * row["value"] / max(rates) if "/" in row["unit"] else 0
            other = number(row["other"])
            cells = [row["what"], number(row["value"], f" {row['unit']}"),
                     f"{row['alternative']} {other}" if other else "", number(row["ratio"]),
                     number(100 * row["share"], " %")]  # fmt: skip
            cells = [html.escape(cell) for cell in cells]
            cells.insert(2, f'<i style="width:{width:.0f}px"></i>')
            lines.append(f"<tr><td>{'<td>'.join(cells)}</tr>")
        lines.append("</table>")
    lines += [f"<p>left out: {html.escape(text)}</p>" for text in left_out]
    return "\n".join(lines)


STYLE = """<meta name=viewport content="width=device-width"><style>
body{font:15px system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{text-align:left;padding:.15rem .8rem .15rem 0}
i{display:inline-block;height:.7rem;background:#2a6f97}pre{overflow:auto;background:#eee}
</style>"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-day"))
    parser.add_argument("--weights", type=Path, help="folder with NAME.npz of public weights")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--only", default="", help=", ".join(part.__name__ for part in PARTS))
    parser.add_argument("--nets", default=",".join(TRAINED), help="nets to train and embed with")
    parser.add_argument("--toy", action="store_true", help="on the processor, at small sizes")
    chosen = parser.parse_args()
    device = torch.device("cpu" if chosen.toy else "cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU: --toy runs all parts on the processor")
    deadline = time.monotonic() + 60 * chosen.minutes
    folder = chosen.out / "scratch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["MVEMO_HOME"] = str(folder / "home")
    day = Day(folder, chosen.toy, chosen.weights, deadline, device, tuple(chosen.nets.split(",")))
    facts, parts = facts_of(device), dict[str, dict[str, Any]]()
    print(", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    known = [part.__name__ for part in PARTS]
    names = chosen.only.split(",") if chosen.only else known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no part {unknown[0]!r}: some of {', '.join(known)}")
    for part in (part for part in PARTS if part.__name__ in names):
        set_determinism(False)
        rows, error, started = [], "", time.monotonic()
        try:
            if day.fits(part.__name__, 20):
                for row in part(day):
                    rows.append(row)
                    print(table_lines([row], judged=False)[-1], flush=True)
        except Exception:  # the other parts are still worth their time
            error = traceback.format_exc()
            print(error, file=sys.stderr, flush=True)
        parts[part.__name__] = {"about": part.__doc__, "seconds": time.monotonic() - started,
                                "error": error, "rows": [asdict(row) for row in rows]}  # fmt: skip
        saved = {**facts, "parts": parts, "left out": day.left_out}
        (chosen.out / "gpu_day.json").write_text(json.dumps(saved, indent=1), encoding="utf-8")
        text = page(facts, parts, day.left_out)
        (chosen.out / "gpu_day.html").write_text(text, encoding="utf-8")
    print("\n".join(f"left out: {text}" for text in day.left_out))
    failed = [name for name, part in parts.items() if part["error"]]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

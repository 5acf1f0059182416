"""Command ``mvemo doctor``: checks of packages, folders, codecs, GPU, weights and speed."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
from packaging.requirements import Requirement

from mvemo.pipeline.commands.options import COUNT, FOLDER, flag, typed_option
from mvemo.pipeline.console.messages import escaped, unguarded, verbosity

if TYPE_CHECKING:
    from mvemo.pipeline.settings import Settings

Status = Literal["ok", "note", "problem"]

COLOURS = {"ok": "green", "note": "yellow", "problem": "red"}
INSTALL_STAGE_ONE = "in mvemo's folder: pip install '.[extract]'"
# Distribution -> module, if the names differ. The packages of stage one are imported, to check
# that the libraries they load are installed.
_MODULES = {"opencv-python-headless": "cv2"}
# Free space in bytes below which a run of a hundred clips may fill the disk.
LITTLE_ROOM = 2 * 2**30
# Size of the clip that is generated to measure the speed, in pixels.
HEIGHT, WIDTH = 256, 456
# Codecs of common music and music video files.
CODECS = (
    *("h264", "hevc", "vp8", "vp9", "av1", "mpeg4"),
    *("mp3", "aac", "flac", "vorbis", "opus", "alac", "pcm_s16le"),
)


@dataclass(frozen=True)
class Diagnosis:
    """Result of one check, on one line."""

    # ``note``: something optional is missing; ``problem``: something needed is missing or broken.
    status: Status
    subject: str  # subject of the check, in one or two words
    text: str  # result of the check
    cure: str = ""  # remedy, as a command if there is one; empty if all is well

    def line(self) -> str:
        cure = f" -> {self.cure}" if self.cure else ""
        return f"{self.status:7}  {self.subject}: {self.text}{cure}"


def examine(work: Path, n_clips: int, *, measure: bool = True) -> Iterator[Diagnosis]:
    """Check installation and machine; if `measure`, estimate the time for `n_clips` clips."""
    findings, stage_one = check_packages()
    yield from findings
    yield check_work(work)
    if not stage_one:
        return
    from mvemo.extract.store.contents import data_folder

    yield check_folder("data folder", data_folder(), "set MVEMO_HOME to a folder")
    yield check_codecs()
    yield check_gpu()
    yield from check_weights()
    if measure:
        from mvemo.pipeline.settings_files import load_settings

        yield from check_speed(load_settings("pretrained"), n_clips)


# --- packages


def check_packages() -> tuple[list[Diagnosis], bool]:
    """Check Python and all packages; return the findings, and True if stage one can run."""
    version = metadata.version("mvemo")
    system = f"{platform.system()} {platform.machine()}"
    findings = [
        Diagnosis("ok", "mvemo", f"{version}, Python {platform.python_version()}, {system}"),
        _stage("stage two", "", "in mvemo's folder: pip install --upgrade ."),
    ]
    present = [r.name for r in _requirements("extract") if _version(r.name)]
    if not present:
        text = "not installed; reports, 'mvemo fuse' and 'mvemo-cv' need only stage two"
        return [*findings, Diagnosis("note", "stage one", text, INSTALL_STAGE_ONE)], False
    stage_one = [_stage("stage one", "extract", f"{INSTALL_STAGE_ONE} --upgrade")]
    for name in present:
        try:
            import_module(_MODULES.get(name, name))
        except Exception as error:  # a broken binary package may raise anything
            text = f"installed, but cannot be imported: {str(error).splitlines()[0]}"
            cure = f"pip install --force-reinstall {name}"
            stage_one.append(Diagnosis("problem", name, text, cure))
    if {"torch", "torchvision"} <= set(present):
        stage_one.append(check_torch_pair())
    return findings + stage_one, all(finding.status != "problem" for finding in stage_one)


def check_torch_pair() -> Diagnosis:
    """Check that torch and torchvision were built for each other."""
    torch, torchvision = metadata.version("torch"), metadata.version("torchvision")
    pair = f"torch {torch} with torchvision {torchvision}"
    needs = map(Requirement, metadata.requires("torchvision") or [])
    wanted = [need.specifier for need in needs if need.name == "torch"]
    reason = ""
    if not all(specifier.contains(torch, prereleases=True) for specifier in wanted):
        reason = f"torchvision needs torch{wanted[0]}"
    try:
        import_module("torchvision")
        import_module("torch").ops.torchvision.nms  # noqa: B018 (raises where it is absent)
    except (AttributeError, ImportError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
    if not reason:
        return Diagnosis("ok", "torch pair", pair)
    cure = "pip install --force-reinstall torch torchvision, both from the same index"
    return Diagnosis("problem", "torch pair", f"{pair} do not work together: {reason}", cure)


def _stage(name: str, extra: str, cure: str) -> Diagnosis:
    """Check the packages of a stage; return a finding with all versions or all problems."""
    versions, problems = [], []
    for requirement in _requirements(extra):
        version = _version(requirement.name)
        versions.append(f"{requirement.name} {version}")
        if version is None:
            problems.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(f"{requirement.name}: expected {requirement.specifier}, got {version}")
    if problems:
        return Diagnosis("problem", name, "; ".join(problems), cure)
    return Diagnosis("ok", name, ", ".join(versions))


def _requirements(extra: str) -> Iterator[Requirement]:
    """Yield mvemo's requirements: those of the base install, or only those of an extra."""
    for requirement in map(Requirement, metadata.requires("mvemo") or []):
        of_extra = "extra" in str(requirement.marker)
        if of_extra == bool(extra) and (
            requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        ):
            yield requirement


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# --- folders


def check_work(work: Path) -> Diagnosis:
    """Check the working folder, and report its size."""
    finding = check_folder("work folder", work, "--work FOLDER")
    from mvemo.pipeline.work_folder import measure_work

    size = measure_work(work)
    if finding.status == "problem" or not size.decoded + size.nets:
        return finding
    return replace(finding, text=f"{finding.text}; it takes {size.text()}")


def check_folder(subject: str, folder: Path, remedy: str) -> Diagnosis:
    """Check that a folder (or its parent) can hold an HDF5 file, and measure the free space."""
    import h5py

    folder = folder.absolute()
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".mvemo-doctor-", dir=place) as temp,
            h5py.File(Path(temp) / "try.h5", "w") as file,
        ):
            file["x"] = range(1000)
    except OSError as error:
        return Diagnosis("problem", subject, f"{folder}: cannot be written: {error}", remedy)
    free = shutil.disk_usage(place).free
    text = f"{folder}: can be written, {free / 2**30:.1f} GiB free"
    if free < LITTLE_ROOM:
        return Diagnosis("note", subject, text, f"{remedy}, on a disk with more free space")
    return Diagnosis("ok", subject, text)


# --- media and devices


def check_codecs() -> Diagnosis:
    """Check that PyAV decodes the common codecs."""
    import av

    absent = []
    for name in CODECS:
        try:
            av.codec.Codec(name, "r")
        except ValueError:
            absent.append(name)
    if not absent:
        return Diagnosis("ok", "codecs", f"av {av.__version__} reads {', '.join(CODECS)}")
    return Diagnosis(
        "note",
        "codecs",
        f"av {av.__version__} does not read {', '.join(absent)}: clips in these formats will fail",
        "pip install --force-reinstall --only-binary av av",
    )


def check_gpu() -> Diagnosis:
    """Check for a GPU that nets can run on."""
    import torch

    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        return Diagnosis("ok", "GPU", f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB")
    if shutil.which("nvidia-smi") is None:
        return Diagnosis("note", "GPU", "none found", "--profile pretrained works without one")
    built = "without CUDA" if torch.version.cuda is None else f"for CUDA {torch.version.cuda}"
    return Diagnosis(
        "problem",
        "GPU",
        f"this machine has nvidia-smi, but torch, built {built}, finds no GPU",
        "see 'nvidia-smi'; install torch and torchvision for its CUDA version (pytorch.org)",
    )


def check_weights() -> Iterator[Diagnosis]:
    """Check that the public weights of each net are downloaded and undamaged."""
    from mvemo.extract.pretrained import find_weights, list_packages

    for package in list_packages():
        subject = f"weights {package.net}"
        get = f"mvemo weights get {package.net}"
        stored = find_weights(package.net)
        if stored is None:
            yield Diagnosis("note", subject, "not downloaded yet", get)
        elif stored.whole:
            text = f"SHA-256 {stored.sha256[:16]}, licence {stored.licence}"
            yield Diagnosis("ok", subject, text)
        else:
            text = f"{stored.path} is damaged: its SHA-256 does not match"
            yield Diagnosis("problem", subject, text, get)


# --- speed


def check_speed(settings: Settings, n_clips: int, seconds: float = 30.0) -> Iterator[Diagnosis]:
    """Measure time and disk space for a generated clip, and extrapolate to `n_clips`."""
    from mvemo.extract import cost
    from mvemo.extract.store.folders import DecodeJob
    from mvemo.extract.workers.pool import cores
    from mvemo.pipeline.clips.clip_media import media_request
    from mvemo.pipeline.console.progress import duration_text

    extract, descriptors = settings.extract, settings.descriptors
    plans = [settings.nets[name] for name in extract.nets]
    request, names = media_request(plans, extract.descriptors, descriptors)
    with tempfile.TemporaryDirectory(prefix="mvemo-doctor-") as temp:
        path = Path(temp) / "clip.mp4"
        _write_clip(path, seconds)
        jobs = [DecodeJob("clip", path, content="")]
        reading = cost.measure_reading(jobs, request, names, descriptors, extract.decoding)
    of_window = {plan.name: cost.measure_net(plan, extract.run).seconds for plan in plans}
    times = {p.name: of_window[p.name] * cost.clip_windows(p, seconds) for p in plans}
    nets = ", ".join(f"{name} {taken:.1f} s" for name, taken in times.items())
    text = f"a clip of {seconds:.0f} s takes: reading {reading.seconds:.1f} s, {nets}"
    with suppress(AttributeError, OSError):  # some systems do not report their load
        if os.getloadavg()[0] > 1.5 * cores():
            text += "; other programs are using the cores, which makes this slower"
    yield Diagnosis("ok", "speed", text)
    each = reading.seconds / cores() + sum(times.values())
    yield Diagnosis(
        "ok",
        "time",
        f"{n_clips} such clips take about {duration_text(n_clips * each)} with --profile "
        f"pretrained, and {n_clips * reading.n_bytes / 2**30:.1f} GiB in the working folder",
    )


def _write_clip(path: Path, seconds: float) -> None:
    """Write a moving random pattern with noise, which is as hard to decode as a film."""
    import numpy as np

    from mvemo.manifests.demo.media import FPS, SR, video_codec, write_clip

    rng = np.random.default_rng(0)
    n_frames = round(seconds * FPS)
    picture = rng.integers(0, 256, (HEIGHT // 16, WIDTH // 8, 3), dtype=np.uint8)
    picture = picture.repeat(16, axis=0).repeat(8, axis=1)
    frames = np.stack([np.roll(picture, 3 * i, axis=1) for i in range(n_frames)])
    sound = rng.normal(0.0, 0.1, (2, round(seconds * SR))).astype(np.float32)
    write_clip(path, frames, np.ones(n_frames, dtype=np.bool_), sound, video_codec())


# --- command


@click.command()
@typed_option("--work", FOLDER, "Working folder to check.", default=Path("work"))
@typed_option("--clips n_clips", COUNT, "Number of clips to estimate the time for.", default=100)
@flag("--no-speed", "Do not measure the speed, the slowest check.")
def doctor(work: Path, n_clips: int, no_speed: bool) -> int:
    """Check this installation and machine: print each finding with its remedy.

    It checks versions, torch and torchvision as a pair, codecs, GPU, downloaded weights
    and their digests, free space in the folders and write access to them, and it measures
    the speed. The exit code is 1 if something needed is absent or does not work.

    \b
    Example:
      mvemo doctor --clips 500
    """
    n_problems = 0
    for finding in examine(work, n_clips, measure=not no_speed):
        n_problems += finding.status == "problem"
        if verbosity() != "quiet" or finding.status != "ok":
            # Only the status is coloured.
            status = click.style(finding.status, fg=COLOURS[finding.status])
            rest = escaped(finding.line().removeprefix(finding.status))
            click.echo(status + rest, file=unguarded(sys.stdout))
    if n_problems:
        click.echo(f"{n_problems} problem{'s' * (n_problems > 1)}", err=True)
    return int(n_problems > 0)

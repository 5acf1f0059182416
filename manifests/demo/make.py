"""Creation of the demo data set; an existing set is reused, an interrupted set is completed."""

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from filelock import FileLock

from mvemo.manifests import files, reader, text_files
from mvemo.manifests.declared import check_settings, setting
from mvemo.manifests.demo import media
from mvemo.manifests.errors import BadManifest, MvemoError
from mvemo.manifests.model import Clip, Manifest, write_manifest

# Must be increased whenever equal settings would give different files.
VERSION = 2
VARIABLE = 0.25  # share of the clips with a variable frame rate
# For fewer seconds of media than this, starting workers costs more time than it saves.
_SHORT = 40.0
_WORKERS = 8

# Names of clips and of temporary files that a killed run left behind.
_NAME = re.compile(r"\.?[a-z]+_\d+-\d+-of-\d+\.mp4(\..*\.tmp)?")


@dataclass(frozen=True)
class _Settings:
    clips_per_class: int = setting(16, ge=1)
    clips_per_group: int = setting(2, ge=1)
    seconds: float = setting(4.0, ge=0.5, le=120)
    seed: int = setting(0, ge=0)

    def __post_init__(self) -> None:
        check_settings(self)

    def record(self) -> dict[str, Any]:
        return {"version": VERSION, **asdict(self), "seconds": float(self.seconds)}


def make_demo(
    folder: str | Path,
    *,
    clips_per_class: int = 16,
    clips_per_group: int = 2,
    seconds: float = 4.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Make the demo set, or reuse one that was made with the same settings.

    Files are ``folder/media/CLASS/NAME-k-of-n.mp4`` (H.264 and AAC, PL20's six classes),
    ``folder/demo.json`` with the settings, and ``folder/manifest.csv``, which is written last.
    Clips of one group share key, instrument and palette, like pieces of one music video.

    A class's last group may be smaller. An existing set with other settings is replaced, an
    interrupted one completed. The same settings give the same files, byte for byte, with the same
    versions of numpy and of the encoders. `progress` is called with the number of finished clips
    and of all clips.
    """
    settings = _Settings(clips_per_class, clips_per_group, seconds, seed)
    folder, clips = Path(folder), tuple(_clips(clips_per_class, clips_per_group))
    manifest = Manifest(
        "demo (synthetic)", "multiclass", media.CLASSES, clips, folder, synthetic=True
    )
    if _finished(manifest, settings):
        return manifest
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # If two runs start together, the second one waits and then finds the finished set.
        with FileLock(folder / ".demo.lock"):
            if not _finished(manifest, settings):
                _make(manifest, settings, progress)
    except OSError as error:
        raise MvemoError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return manifest


def _clips(per_class: int, per_group: int) -> list[Clip]:
    clips = []
    for label in media.CLASSES:
        for i in range(per_class):
            song, piece = divmod(i, per_group)
            pieces = min(per_group, per_class - song * per_group)
            group = f"{label.lower()}_{song + 1:02d}"
            name = f"{group}-{piece + 1}-of-{pieces}"
            clips.append(Clip(name, f"media/{label}/{name}.mp4", (label,), group))
    return clips


def _finished(manifest: Manifest, settings: _Settings) -> bool:
    """Return True if settings, manifest and all file sizes in the folder are as expected."""
    stated, sizes = _saved(manifest.root)
    intact = (_intact(manifest, clip, sizes) for clip in manifest.clips)
    if stated != settings.record() or not all(intact):
        return False
    try:
        stored = reader.read_manifest(manifest.root / "manifest.csv", media=False)
    except MvemoError:
        return False
    return stored.digest == manifest.digest and stored.synthetic


def _intact(manifest: Manifest, clip: Clip, sizes: dict[str, int]) -> bool:
    """Return True if the clip's file exists, with the recorded size if one is recorded."""
    path = manifest.media_path(clip)
    return path.is_file() and sizes.get(clip.path) in (None, path.stat().st_size)


def _make(
    manifest: Manifest, settings: _Settings, progress: Callable[[int, int], None] | None
) -> None:
    folder, clips = manifest.root, manifest.clips
    table = folder / "manifest.csv"
    codec = media.video_codec()
    stated, sizes = _saved(folder)
    if stated is None and table.exists():
        other = "choose another folder for the demo set"
        raise BadManifest(f"{table}: this manifest is not of a demo set; {other}")
    # Without a manifest the set does not look finished until it is written again.
    table.unlink(missing_ok=True)
    same = stated == settings.record()
    expected = {clip.path for clip in clips if same}
    for label in media.CLASSES:
        place = folder / "media" / label
        place.mkdir(parents=True, exist_ok=True)
        for path in place.iterdir():
            # Remove files of a killed run or of other settings; other names belong to the user.
            if _NAME.fullmatch(path.name) and f"media/{label}/{path.name}" not in expected:
                path.unlink()
    facts = {"settings": settings.record(), "bytes": sizes if same else {}}
    files.write_json(folder / "demo.json", facts)

    missing = [i for i, clip in enumerate(clips) if not (same and _intact(manifest, clip, sizes))]
    tasks = []
    for i in missing:
        of_class, n = divmod(i, settings.clips_per_class)
        path, numbers = manifest.media_path(clips[i]), divmod(n, settings.clips_per_group)
        drawn = (of_class, *numbers, settings.seconds, settings.seed)
        tasks.append(joblib.delayed(_make_clip)(path, *drawn, codec))
    long = len(missing) * settings.seconds >= _SHORT
    workers = min(joblib.cpu_count(), _WORKERS if long else 1)
    finished = joblib.Parallel(n_jobs=workers, return_as="generator_unordered")(tasks)
    for done, _ in enumerate(finished, start=len(clips) - len(missing) + 1):
        if progress is not None:
            progress(done, len(clips))
    facts["bytes"] = {clip.path: manifest.media_path(clip).stat().st_size for clip in clips}
    files.write_json(folder / "demo.json", facts)
    write_manifest(manifest, table)


def _make_clip(
    path: Path, label: int, song: int, piece: int, seconds: float, seed: int, codec: str
) -> None:
    # All clips of a group draw the same key, instrument and palette from these two generators.
    music, palette = (np.random.default_rng([seed, label, song, sense]) for sense in (1, 2))
    rng = np.random.default_rng([seed, label, song, 0, piece])
    sound = media.synthesise(media.sound_of(media.CLASSES[label], music, rng), seconds, rng)
    frames = media.render(media.picture_of(media.CLASSES[label], palette, rng), seconds, rng)
    kept = np.ones(len(frames), dtype=np.bool_)
    if rng.random() < VARIABLE:
        kept = rng.random(len(frames)) > 0.3
        kept[[0, -1]] = True
    media.write_clip(path, frames, kept, sound, codec)


def _saved(folder: Path) -> tuple[Any, dict[str, int]]:
    """Return the settings and file sizes of the last run in this folder; None if there is none."""
    try:
        saved = text_files.read_json(folder / "demo.json")
        return saved["settings"], dict(saved["bytes"])
    except (OSError, ValueError, LookupError, TypeError):
        return None, {}

"""Settings of both stages, which a profile states and a command overrides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mvemo.extract.descriptors import DESCRIPTORS, DescriptorSettings
from mvemo.extract.errors import BadSetting
from mvemo.extract.nets import (
    NETS,
    SharedSettings,
    net_names,
)
from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.extract.store.decoded import DecodeSettings
from mvemo.extract.workers.process import ClipLimits
from mvemo.fuse.crossval.settings import EvaluationSettings

PROFILES = ("best", "c17", "demo", "paper", "pretrained")
# Default nets: those of PL20 and Z22.
DEFAULT_NETS = ("music1d", "music2d", "c3d", "i3d")

# Upper limit of folds, frames, processes, seconds and GiB.
MOST = 1_000_000


@dataclass(frozen=True)
class ExtractSettings:
    """Settings of stage one.

    Parameters
    ----------
    run
        Settings shared by all nets: protocol, seed, device and precision. They are keys of
        ``[extract]``, too.
    nets
        Names of the nets to run, in order.
    folds
        Number of folds.
    fold_seed
        Seed of the folds and of the split.
    keep_folds
        True to keep the folds of clips in the feature file when other clips come or go, so
        that only nets whose training clips change are trained again.
    fail_fast
        True to end the run at the first clip that cannot be decoded or described.
    split
        Shares of training, validation and test clips for ``holdout`` (J22: 7:2:1), if the
        manifest prescribes no split.
    n_frames
        Number of frames in a window, for video nets without a fixed number.
    workers
        Number of decoding processes; 0 for one per core.
    clip_seconds
        Time limit for decoding or describing a clip, in seconds for a small file, and the
        same again for each 30 MB; 0 for no limit.
    clip_memory
        Memory limit for decoding or describing a clip, in GiB; 0 for no limit.
    retry_failed
        True to decode clips again that failed before.
    embed_batch
        Number of windows to embed in one step and of clips to read at a time; 0 for 4 on a
        CPU and 32 on a GPU.
    fetch
        True to fetch public weights that are not here, for nets that start from such weights;
        a net whose weights cannot be fetched is left out.
    descriptors
        Names of the descriptor sequences to write to the cache; other sequences that nets
        read are computed, too.
    sequence_dtype
        Storage type of the sequences: ``float32``, or ``float16`` in half the room, with a
        relative error of at most 2^-11 (0.05 %), or an absolute error of 2^-25 near zero.
        Times stay float32.

    Raises
    ------
    BadSetting
        A value is out of range, or a name is unknown or given twice.
    """

    run: RunSettings = field(default_factory=RunSettings)
    nets: tuple[str, ...] = DEFAULT_NETS
    folds: int = 6
    fold_seed: int = 0
    keep_folds: bool = True
    fail_fast: bool = False
    split: str = "7:2:1"
    n_frames: int = 32
    workers: int = 0
    clip_seconds: float = 60.0
    clip_memory: float = 4.0
    retry_failed: bool = False
    embed_batch: int = 0
    fetch: bool = False
    descriptors: tuple[str, ...] = (
        "mel",
        "mfcc",
        "rp",
        "mfcc_rp",
        "f0",
        "formants",
        "contrast",
        "chroma",
        "times",
    )
    sequence_dtype: str = "float32"

    def __post_init__(self) -> None:
        least = {"folds": 2, "fold_seed": 0, "n_frames": 1, "workers": 0, "embed_batch": 0}
        least |= {"clip_seconds": 0, "clip_memory": 0}
        for name, value in least.items():
            most = 2**32 - 1 if name == "fold_seed" else MOST
            if not value <= getattr(self, name) <= most:
                raise BadSetting(
                    f"{name} is {getattr(self, name)}: it must be from {value} to {most}"
                )
        if self.sequence_dtype not in ("float32", "float16"):
            raise BadSetting(f"sequence_dtype is {self.sequence_dtype!r}: it is float32 or float16")
        if not self.nets:
            raise BadSetting(f"nets names no net: some of {', '.join(net_names())}")
        for what, known in (("nets", NETS), ("descriptors", DESCRIPTORS)):
            names = getattr(self, what)
            for name in names:
                if name not in known:
                    raise BadSetting(
                        f"{what}: unknown {what[:-1]} {name!r}: one of {', '.join(known)}"
                    )
                if names.count(name) > 1:
                    raise BadSetting(f"{what} names {name!r} twice")

    @property
    def decoding(self) -> DecodeSettings:
        """Settings of decoding."""
        limits = ClipLimits(self.clip_seconds, self.clip_memory)
        return DecodeSettings(self.workers, limits, self.retry_failed)


@dataclass(frozen=True)
class Settings:
    """Settings of a whole run.

    Parameters
    ----------
    profile
        Name or path of the profile.
    extract, descriptors, fuse
        Settings of stage one, of its descriptors, and of stage two.
    nets
        Settings of every known net, by name, including options that follow from `extract` and
        `descriptors`.
    profile_named
        True if the user chose the profile; otherwise another may be proposed.
    folds_named
        True if the user asked for folds; otherwise a split that the manifest prescribes is
        used.
    """

    profile: str
    extract: ExtractSettings
    descriptors: DescriptorSettings
    nets: Mapping[str, NetSettings]
    fuse: EvaluationSettings
    profile_named: bool = True
    folds_named: bool = True

    @property
    def shared(self) -> SharedSettings:
        """Settings that the options of nets follow."""
        return SharedSettings(self.extract.n_frames, self.descriptors)

    def record(self) -> dict[str, Any]:
        """Return all settings of stage one as JSON values, with those of the nets that run."""
        return {
            "profile": self.profile,
            "extract": asdict(self.extract),
            "descriptors": asdict(self.descriptors),
            "nets": {name: self.nets[name].record() for name in self.extract.nets},
        }

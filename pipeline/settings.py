"""Settings of both stages: everything that a profile may state and a command override."""

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
# Those of PL20 and Z22, which run unless others are asked for.
DEFAULT_NETS = ("music1d", "music2d", "c3d", "i3d")

# More folds, frames, processes, seconds or GiB than anyone needs.
MOST = 1_000_000


@dataclass(frozen=True)
class ExtractSettings:
    """Stage one.

    Parameters
    ----------
    run
        What all nets share: protocol, seed, device and precision, keys of ``[extract]``
        like all others.
    nets
        Names of the nets to run, in order.
    folds, fold_seed
        Number of folds and the seed they are made with; the seed is the split's, too.
    keep_folds
        Clips that the feature file has keep their folds when others come or go, so that
        only nets whose training clips change are trained again.
    fail_fast
        Whether the first clip that cannot be decoded or described ends the run.
    split
        ``holdout``: shares of training, validation and test clips (J22: 7:2:1), where the
        manifest prescribes no split.
    n_frames
        Frames of a window for the video nets that have no count of their own.
    workers
        Decoding processes; 0 for one a core.
    clip_seconds
        How long decoding or describing a clip may take, for a small file, and as long again
        for each 30 MB; 0 for no limit.
    clip_memory
        GiB that decoding or describing a clip may take; 0 for no limit.
    retry_failed
        Also decode clips that could not be decoded before.
    embed_batch
        Windows a step when embedding, and clips that are read at a time; 0 for 4 on a
        processor and 32 on a GPU.
    fetch
        Fetch the public weights that are not here, of nets that start from such, and leave
        out a net whose weights cannot be had.
    descriptors
        Names of the descriptor sequences to write to the cache; nets that read others get
        them, too.
    sequence_dtype
        How these are stored: ``float32``, or ``float16`` in half the room, with a relative
        error of 2^-11 (0.05 %) at most, or an absolute one of 2^-25 near zero. Times stay
        float32.

    Raises
    ------
    BadSetting
        A value out of range, a name that is unknown or there twice.
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
        """How clips are decoded."""
        limits = ClipLimits(self.clip_seconds, self.clip_memory)
        return DecodeSettings(self.workers, limits, self.retry_failed)


@dataclass(frozen=True)
class Settings:
    """All of it.

    Parameters
    ----------
    profile
        The profile's name or path.
    extract, descriptors, fuse
        Of stage one, of its descriptors, of stage two.
    nets
        Of every net there is, by name; options that follow from `extract` and
        `descriptors` are filled in.
    profile_named
        Whether somebody chose the profile; another may be proposed where nobody did.
    folds_named
        Whether somebody asked for folds; a split that the manifest prescribes is not passed
        over where nobody did.
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
        """What the options of nets follow."""
        return SharedSettings(self.extract.n_frames, self.descriptors)

    def record(self) -> dict[str, Any]:
        """All settings of stage one as JSON values, the nets' of those that run."""
        return {
            "profile": self.profile,
            "extract": asdict(self.extract),
            "descriptors": asdict(self.descriptors),
            "nets": {name: self.nets[name].record() for name in self.extract.nets},
        }

"""Settings of both stages, set by a profile and overridden on the command line."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from mvemo.extract.descriptors import DESCRIPTORS, DescriptorSettings
from mvemo.extract.nets import NETS, SharedSettings, net_names
from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.extract.store.decoded import DecodeSettings
from mvemo.extract.workers.process import ClipLimits
from mvemo.fuse.crossval.evaluation_settings import EvaluationSettings
from mvemo.manifests.declared import check_settings, setting
from mvemo.manifests.errors import BadOption
from mvemo.manifests.plugins import offered

PROFILES = ("best", "c17", "demo", "paper", "pretrained")
# Default nets: the nets of the papers PL20 and Z22.
DEFAULT_NETS = ("music1d", "music2d", "c3d", "i3d")

# Upper limit of folds, frames, processes, seconds and GiB.
MOST = 1_000_000


@dataclass(frozen=True)
class ExtractSettings:
    """Settings of stage one; an unknown name or a value out of range raises `BadOption`."""

    run: RunSettings = setting(RunSettings, "Settings shared by all nets.")
    nets: tuple[str, ...] = setting(DEFAULT_NETS, "Nets to run, in order.")
    folds: int = setting(6, "Number of folds.", ge=2, le=MOST)
    fold_seed: int = setting(0, "Seed of the folds and of the split.", ge=0, le=2**32 - 1)
    keep_folds: bool = setting(True, "Keep the folds of earlier clips in the feature file.")
    fail_fast: bool = setting(False, "Stop at the first clip that cannot be decoded.")
    split: str = setting("7:2:1", "Shares of training, validation and test for `holdout`.")
    n_frames: int = setting(32, "Frames in a window, unless the net sets them.", ge=1, le=MOST)
    workers: int = setting(0, "Decoding processes; 0: one per core.", ge=0, le=MOST)
    clip_seconds: float = setting(
        60.0, "Time limit per clip in s, and per 30 MB; 0: none.", ge=0, le=MOST
    )
    clip_memory: float = setting(4.0, "Memory limit per clip in GiB; 0: none.", ge=0, le=MOST)
    retry_failed: bool = setting(False, "Try again to decode clips that failed before.")
    embed_batch: int = setting(
        0, "Windows to embed in one step; 0: 4 on a CPU, 32 on a GPU.", ge=0, le=MOST
    )
    fetch: bool = setting(False, "Download missing public weights.")
    descriptors: tuple[str, ...] = setting(
        (
            *("mel", "mfcc", "rp", "mfcc_rp", "f0", "formants", "contrast", "chroma"),
            *("times", "loudness"),
        ),
        "Descriptor sequences to write to the cache.",
    )
    # float16 has a relative error of at most 2^-11 or an absolute one of 2^-25; times stay float32.
    sequence_dtype: str = setting(
        "float32", "Storage type of the sequences.", names=("float32", "float16")
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.nets:
            raise BadOption(f"nets is empty: expected some of {', '.join(net_names())}")
        described = [*offered(DESCRIPTORS, "descriptors")]
        for what, known in (("nets", NETS), ("descriptors", described)):
            names = getattr(self, what)
            for name in names:
                if name not in known:
                    raise BadOption(
                        f"{what}: unknown {what[:-1]} {name!r}: expected one of {', '.join(known)}"
                    )
                if names.count(name) > 1:
                    raise BadOption(f"{what} repeats {name!r}")

    @property
    def decoding(self) -> DecodeSettings:
        limits = ClipLimits(self.clip_seconds, self.clip_memory)
        return DecodeSettings(self.workers, limits, self.retry_failed)


@dataclass(frozen=True)
class Settings:
    """Settings of a whole run."""

    profile: str  # name or path
    extract: ExtractSettings
    descriptors: DescriptorSettings
    nets: Mapping[str, NetSettings]  # every known net, with options derived from other settings
    fuse: EvaluationSettings
    profile_named: bool = True  # True if the user named it; otherwise another may be proposed
    folds_named: bool = True  # True if the user set folds; otherwise the manifest's split is used

    @property
    def shared(self) -> SharedSettings:
        """Settings that determine options of nets."""
        return SharedSettings(self.extract.n_frames, self.descriptors)

    def record(self) -> dict[str, Any]:
        """Return all settings of stage one as JSON values; of nets, only those that run."""
        return {
            "profile": self.profile,
            "extract": asdict(self.extract),
            "descriptors": asdict(self.descriptors),
            "nets": {name: self.nets[name].record() for name in self.extract.nets},
        }

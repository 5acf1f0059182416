"""Division of the work of stage one: processes, schedulers and shards."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.manifests import Manifest
from mvemo.pipeline.errors import BadOption

# Name of a net, and fold; None for a net that is trained once (``shared`` and ``holdout``).
Training = tuple[str, "int | None"]


@dataclass(frozen=True)
class Shard:
    """One of several parts of a run, each a separate job of a batch system.

    The manifest and the settings determine the clips and the nets of a shard.

    Examples
    --------
    >>> shards = [Shard(number, 2) for number in (1, 2)]
    >>> [[shard.has_clip(clip) for clip in ("a", "d", "e")] for shard in shards]
    [[True, False, True], [False, True, False]]
    """

    number: int  # from 1
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise BadOption(
                f"--shard {self}: shards are 1/{max(self.count, 1)} to "
                f"{max(self.count, 1)}/{max(self.count, 1)}"
            )

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that a text as ``2/8`` names."""
        number, slash, count = text.partition("/")
        if not (slash and number.strip().isdecimal() and count.strip().isdecimal()):
            raise BadOption(f"--shard {text!r}: write it as i/n, the first of eight as 1/8")
        return cls(int(number), int(count))

    def has_clip(self, clip_id: str) -> bool:
        """Return True if a clip belongs to this shard; only its id decides, not the other clips."""
        digest = hashlib.sha256(clip_id.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def trainings(self, trainings: Sequence[Training]) -> list[Training]:
        """Return the trainings of this shard; the folds of one net go to many shards."""
        return list(trainings[self.number - 1 :: self.count])

    def rows(self, manifest: Manifest) -> list[int]:
        """Return the manifest rows of this shard's clips."""
        return [row for row, clip_id in enumerate(manifest.clip_ids) if self.has_clip(clip_id)]


@dataclass(frozen=True)
class Execution:
    """Options of a run of stage one that do not change its result."""

    force: bool = False  # replace a cache of other clips
    shard: Shard | None = None  # do only this part
    jobs: int = 1  # number of processes on this machine that share clips, or nets and folds
    fetch: bool = True  # fetch missing public weights that the settings ask for
    scheduler: str = ""  # address of a Dask scheduler whose workers do all the work

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise BadOption(f"--jobs {self.jobs}: it must be 1 or more")
        if self.shard and self.jobs > 1:
            raise BadOption(
                f"--shard {self.shard} with --jobs {self.jobs}: a shard is done by one process: "
                "make more shards"
            )
        if self.scheduler and (self.shard or self.jobs > 1):
            raise BadOption(
                f"--scheduler {self.scheduler} with --shard or --jobs: the scheduler's workers do "
                "all of it"
            )


def trainings_of(
    plans: Sequence[NetSettings], run: RunSettings, folds: Iterable[int]
) -> list[Training]:
    """Return (net, fold) of every net that a protocol trains; ``frozen`` trains none.

    Examples
    --------
    >>> trainings_of([NetSettings("c3d")], RunSettings(protocol="crossfit"), [1, 0, 1])
    [('c3d', 0), ('c3d', 1)]
    >>> trainings_of([NetSettings("c3d")], RunSettings(protocol="shared"), [0, 1])
    [('c3d', None)]
    """
    if run.protocol == "frozen":
        return []
    crossfit = run.protocol == "crossfit"
    per_net: list[int | None] = [*sorted({int(fold) for fold in folds})] if crossfit else [None]
    return [(plan.name, fold) for plan in plans for fold in per_net]

"""Division of the work of stage one: the request, its shards, trainings and batches of clips.

Worker processes import torch while the command reads its settings, so this module does not.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from mvemo.manifests.errors import BadOption
from mvemo.manifests.reader import ManifestOptions

if TYPE_CHECKING:
    from mvemo.extract.settings import NetSettings
    from mvemo.pipeline.settings import Settings

# Name of a net, and the fold to train it for; None if the net is trained only once.
Training = tuple[str, "int | None"]
# Maximum number of clips per task, and in first tasks; a killed worker loses at most one task.
BATCH, FIRST = 32, 8


@dataclass(frozen=True)
class Shard:
    """One of several parts of a run; its clips depend only on the manifest and the settings."""

    number: int  # from 1
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            last = max(self.count, 1)
            raise BadOption(f"--shard {self}: expected 1/{last} to {last}/{last}")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that a text such as ``2/8`` names."""
        number, slash, count = text.partition("/")
        if not (slash and number.strip().isdecimal() and count.strip().isdecimal()):
            raise BadOption(f"--shard {text!r}: write it as i/n, such as 1/8 for the first part")
        return cls(int(number), int(count))

    def rows(self, clip_ids: Sequence[str]) -> list[int]:
        """Return the rows of the clips of this shard, which depend only on the clips' ids."""
        digests = (hashlib.sha256(clip_id.encode()).digest()[:8] for clip_id in clip_ids)
        parts = (int.from_bytes(digest, "big") % self.count + 1 for digest in digests)
        return [row for row, part in enumerate(parts) if part == self.number]

    def trainings(self, trainings: Sequence[Training]) -> list[Training]:
        """Return the trainings of this shard; the folds of a net are spread over the shards."""
        return list(trainings[self.number - 1 :: self.count])


@dataclass(frozen=True)
class ExtractRequest:
    """Request for a run of stage one; the fields from `force` on do not change its result."""

    manifest: Path | None  # None for the demo set, which is made under `work`
    settings: Settings
    work: Path  # folder of decoded media and checkpoints
    out: Path  # feature cache; for a shard, the whole cache
    options: ManifestOptions = field(default_factory=ManifestOptions)
    fold_file: Path | None = None  # folds that replace those of settings and manifest
    force: bool = False  # replace a cache of other clips
    shard: Shard | None = None  # the only part to do; None for the whole run
    jobs: int = 1  # number of processes on this machine that share clips, or nets and folds
    scheduler: str = ""  # address of a Dask scheduler whose workers do all the work
    fetch: bool = True  # fetch missing public weights that the settings ask for

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise BadOption(f"--jobs {self.jobs}: must be 1 or more")
        if self.shard and self.jobs > 1:
            raise BadOption(
                f"--shard {self.shard} cannot be combined with --jobs {self.jobs}: leave out "
                "--jobs, and make more shards"
            )
        if self.scheduler and (self.shard or self.jobs > 1):
            raise BadOption(
                f"--scheduler {self.scheduler} cannot be combined with --shard or --jobs: leave "
                "them out"
            )


def trainings_of(
    nets: Sequence[NetSettings], protocol: str, folds: Iterable[int]
) -> list[Training]:
    """Return (net, fold) of every net that a protocol trains; ``frozen`` trains none."""
    if protocol == "frozen":
        return []
    crossfit = protocol == "crossfit"
    per_net = sorted({int(fold) for fold in folds}) if crossfit else [None]
    return [(net.name, fold) for net in nets for fold in per_net]


def clip_batches(weights: Sequence[float], processes: int, unit: int) -> list[list[int]]:
    """Return the rows of each task: half a process's share of the remaining weight of the clips.

    Tasks have a multiple of `unit` clips. If it is 1, clips of large weight come first, so that
    no process works on a long clip when the others are done; otherwise neighbours fill a step of a
    net. The first task of each process is small: when it is done, the remaining time is known.
    """
    rows = range(len(weights))
    # Clips of unknown weight are shared, too.
    least = sum(weights) / max(len(weights), 1) / 1000 or 1.0
    weights = [max(weight, least) for weight in weights]
    order = sorted(rows, key=lambda row: -weights[row]) if unit == 1 else list(rows)
    before = [0.0, *accumulate(weights[row] for row in order)]
    batches: list[list[int]] = []
    first = 0
    while first < len(order):
        end = before[first] + (before[-1] - before[first]) / (2 * processes)
        most = FIRST if len(batches) < processes else BATCH
        share = min(most, bisect_right(before, end) - 1 - first)
        batches.append(sorted(order[first : first + max(share // unit, 1) * unit]))
        first += len(batches[-1])
    return batches

"""The feature ``lld``: statistics of low-level descriptors, from the sequences in the cache.

By default these are the mean, the standard deviation, and the standard deviation of the
differences between neighbouring frames, for every column of the named descriptors. Stage one
writes the sequences; stage two computes the statistics when it needs them, so a laptop without
media can choose other descriptors. Nothing is trained or written.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvemo.cache import Cache, FeatureSpec
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.numeric import F32, F64, Bools

LLD = "lld"
# Increased whenever the same sequences would give other statistics.
VERSION = 1
# Name in settings to the name in caches and models.
STATISTICS = {
    "mean": "mean",
    "std": "sd",
    "p10": "10th percentile",
    "p90": "90th percentile",
    "diff_mean": "mean of differences",
    "diff_std": "sd of differences",
    "diff_p10": "10th percentile of differences",
    "diff_p90": "90th percentile of differences",
}
DEFAULT = ("mean", "std", "diff_std")


def check_statistics(names: Sequence[str]) -> None:
    """Refuse an empty list, an unknown statistic, or a statistic named twice."""
    known = ", ".join(STATISTICS)
    if not names:
        raise BadFeatures(f"lld_statistics is empty: expected some of {known}")
    for name in names:
        if name not in STATISTICS:
            raise BadFeatures(f"lld_statistics: unknown statistic {name!r}: one of {known}")
        if list(names).count(name) > 1:
            raise BadFeatures(f"lld_statistics names {name!r} twice")


def sequence_statistics(sequence: F32, statistics: Sequence[str] = DEFAULT) -> F32:
    """Return statistics over time: the first statistic of all columns, and so on."""
    values = sequence.astype(np.float64)
    parts: dict[str, F64] = {}
    for prefix in ("", "diff_"):
        named = [name for name in statistics if name.startswith("diff_") == bool(prefix)]
        if not named:
            continue
        if prefix:
            values = np.diff(values, axis=0) if len(values) > 1 else np.zeros_like(values)
        parts |= {f"{prefix}mean": values.mean(axis=0), f"{prefix}std": values.std(axis=0)}
        if f"{prefix}p10" in named or f"{prefix}p90" in named:
            low, high = np.quantile(values, [0.1, 0.9], axis=0)
            parts |= {f"{prefix}p10": low, f"{prefix}p90": high}
    return np.concatenate([parts[name] for name in statistics]).astype(np.float32)


def statistics_of(spec: FeatureSpec) -> tuple[str, ...]:
    """Return the statistics of a feature ``lld``, by their names in settings."""
    names = {stored: name for name, stored in STATISTICS.items()}
    return tuple(names[stored] for stored in spec.params["statistics"])


class DescriptorStatistics:
    """The feature ``lld`` of a cache; the sequences are read when its vectors are needed."""

    def __init__(
        self, cache: Cache, descriptors: Sequence[str], statistics: Sequence[str] = DEFAULT
    ) -> None:
        self._cache = cache
        self._statistics = tuple(statistics)
        self._descriptors = tuple(descriptors)
        self._vectors: tuple[F32, Bools] | None = None
        sequences = [spec.name for spec in cache.specs if spec.kind == "sequence"]
        if LLD in cache.names():
            raise BadFeatures(f"{cache.path}: has a feature {LLD!r} already: leave fuse.lld empty")
        for name in self._descriptors:
            if name not in sequences:
                raise BadFeatures(
                    f"{cache.path}: fuse.lld names {name!r}: expected one of its sequences: "
                    f"{', '.join(dict.fromkeys(sequences)) or 'there are none'}"
                )
            if self._descriptors.count(name) > 1:
                raise BadFeatures(f"fuse.lld names {name!r} twice")
        specs = [cache.spec(name) for name in self._descriptors]
        if len({spec.modality for spec in specs}) > 1:
            raise BadFeatures(f"fuse.lld: {', '.join(descriptors)} are not all of one modality")
        self.spec = FeatureSpec(
            name=LLD,
            modality=specs[0].modality,
            kind="vector",
            dim=len(self._statistics) * sum(spec.dim for spec in specs),
            extractor="statistics of descriptors",
            version=VERSION,
            params={
                "statistics": [STATISTICS[name] for name in self._statistics],
                "descriptors": {spec.name: spec.digest for spec in specs},
                "order": list(self._descriptors),
            },
        )

    def vectors(self) -> tuple[F32, Bools]:
        """Return vectors as `mvemo.cache.Cache.vectors`; present clips have all descriptors."""
        if self._vectors is None:
            clip_ids = self._cache.table.clip_ids
            values = np.full((len(clip_ids), self.spec.dim), np.nan, dtype=np.float32)
            for row, clip_id in zip(values, clip_ids, strict=True):
                sequences = [self._cache.sequence(name, clip_id) for name in self._descriptors]
                parts = [
                    sequence_statistics(s, self._statistics) for s in sequences if s is not None
                ]
                if len(parts) == len(self._descriptors):
                    row[:] = np.concatenate(parts)
            self._vectors = values, ~np.isnan(values[:, 0])
        values, present = self._vectors
        return values.copy(), present.copy()

"""Writer that buffers rows and commits them to parts in ``<cache>.parts/``."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.cache import cache_file, schema, union
from mvemo.cache.errors import BadCache
from mvemo.cache.rewrite import MemoryRows, corrupt_stage, failure_now, rewrite
from mvemo.cache.spec import HALF_LARGEST, FeatureSpec, check_spec
from mvemo.cache.table import ClipTable, Failure, Failures, check_table, check_texts, subset
from mvemo.manifests.array_types import F32

# Rows, bytes and seconds after which rows are committed.
LIMITS = (1024, 64 << 20, 60.0)
# Last part of the message if a file cannot be written.
KEPT = "; committed rows are kept: free some disk space and run the same command again"


@dataclass(frozen=True)
class StoredRows:
    """Stored rows of some clips, for a process that writes more rows of these clips."""

    # Key of each clip's row, by spec digest and clip id.
    keys: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    failures: Failures = field(default_factory=dict)
    number: int = 0  # number for new parts, above those of all existing parts


class PartWriter:
    """Writer of parts for a cache that another process has locked.

    It locks nothing and writes only its own parts, so many such writers may work at the same
    time. `CacheWriter.take_up` of the locking process adds the parts; if that process is killed,
    the next writer adds them. Writing a row twice does no harm.
    """

    def __init__(
        self,
        path: Path | str,
        table: ClipTable,
        stored: StoredRows = StoredRows(),
        *,
        provenance: Mapping[str, Any] | None = None,
        limits: tuple[int, int, float] = LIMITS,
    ) -> None:
        self.path: Path = Path(path)
        check_table(table, str(self.path))
        self.table = table
        self.provenance: dict[str, Any] = dict(provenance or {})
        # Each request for a feature, with the keys that its rows must have.
        self.requested: list[tuple[FeatureSpec, dict[str, str]]] = []
        self.parts: list[str] = []  # names of the committed parts
        self._limits = limits
        self._row = {clip: i for i, clip in enumerate(table.clip_ids)}
        self._before = stored.keys
        self._failures = dict(stored.failures)
        self._next = stored.number
        self._memory = MemoryRows()
        self._rows: dict[str, dict[str, bytes]] = {}
        self._stale: dict[str, set[str]] = {}
        # Features that this run requests, the most recent last.
        self._specs: dict[str, FeatureSpec] = {}
        # Spec digest -> training clips of the net, if a part already names them.
        self._named: dict[str, frozenset[str]] = {}
        self._closed = False
        self._committed = time.monotonic()
        self._folder = cache_file.parts_folder(self.path)

    def current(self, spec: FeatureSpec, keys: Mapping[str, str]) -> frozenset[str]:
        """Return the ids of the clips whose stored row is up to date.

        `keys` has the `FeatureSpec.key` of each clip's current media. A stored row with another
        key belongs to replaced media; `close` drops it unless `put` replaces it.
        """
        self.requested.append((spec, dict(keys)))
        known = self._known(spec)
        stale = {c for c, key in keys.items() if c in known and known[c] != key.encode()}
        self._stale.setdefault(spec.digest, set()).update(stale)
        return frozenset(c for c, key in keys.items() if known.get(c) == key.encode())

    @property
    def failures(self) -> tuple[tuple[str, str, str], ...]:
        """(clip id, stage, reason) of each failure of the table's clips, sorted."""
        known = (why for (clip, _), why in self._failures.items() if why and clip in self._row)
        return tuple(sorted((why.clip_id, why.stage, why.reason) for why in known))

    def put(self, spec: FeatureSpec, clip_id: str, key: str, array: F32, copy: bool = True) -> None:
        """Buffer one clip's values; they are durable after the next commit.

        `array` is float32 (dim,) for a vector, (frames, dim) with frames above 0 for a sequence,
        and all finite. If `copy` is False, it must not change before the next commit. If a commit
        fails (MvemoError), the rows stay buffered.
        """
        self._check_open()
        where = f"{self.path}: {spec.label} of clip {clip_id!r}"
        if clip_id not in self._row:
            raise BadCache(f"{where}: the table has no such clip")
        known = self._known(spec)
        values = _checked_values(spec, array, where, copy)
        if not 0 < len(key) <= schema.KEY or not key.isascii() or not key.isprintable():
            raise BadCache(f"{where}: invalid key {key!r}: give FeatureSpec.key(...)")
        self._memory.put(spec, clip_id, key.encode("ascii"), values)
        known[clip_id] = key.encode("ascii")
        self._stale.get(spec.digest, set()).discard(clip_id)
        self.clear_failures(clip_id, corrupt_stage(spec))
        rows, size, seconds = self._limits
        if rows and (
            self._memory.n_rows >= rows
            or self._memory.n_bytes >= size
            or time.monotonic() - self._committed >= seconds
        ):
            self.commit()

    def fail(self, clip_id: str, stage: str, reason: str) -> None:
        """Record a failure; it replaces an earlier failure of the same clip and stage.

        `stage` is the step that failed, such as ``decode:audio``. If reason and version are those
        of the earlier failure, the earlier time is kept.
        """
        self._check_open()
        if clip_id not in self._row:
            raise BadCache(f"{self.path}: failure of clip {clip_id!r}: the table has no such clip")
        text = " ".join(reason.replace("\0", " ").split()) or "no reason given"
        check_texts([stage], str(self.path))
        # A reason may quote invalid bytes of a file's name or tags.
        new = failure_now(clip_id, stage, text.encode("utf-8", "replace").decode())
        earlier = self._failures.get((clip_id, stage))
        if earlier is None or replace(earlier, time=new.time) != new:
            self._set_failure(clip_id, stage, new)

    def clear_failures(self, clip_id: str, stage: str | None = None) -> None:
        """Remove a clip's failures of one stage, or of all stages, after a success."""
        self._check_open()
        stages = [s for c, s in self._failures if c == clip_id] if stage is None else [stage]
        for known in stages:
            if self._failures.get((clip_id, known)) is not None:
                self._set_failure(clip_id, known, None)

    def curve(self, name: str, values: Mapping[str, Sequence[float]]) -> None:
        """Store the series of a training, such as ``train_loss``, by net and fold."""
        self._check_open()
        self._memory.curves[name] = {k: [float(v) for v in s] for k, s in values.items()}

    def commit(self) -> None:
        """Write all buffered rows to one part, which makes them durable.

        If the part cannot be written, MvemoError is raised and the rows stay buffered.
        """
        self._check_open()
        if self._memory:
            memory = self._frozen_memory()
            content = memory.indexes, memory.failures, memory.curves, self.provenance
            plan = union.Plan(memory.table, [memory], *content)
            # The name must be unique because other processes write parts, too.
            self._folder.mkdir(exist_ok=True)
            path = self._folder / f"{self._next:08d}-{uuid.uuid4().hex[:12]}.h5"
            rewrite(path, plan, kept=KEPT)
            self._next += 1
            self._note_part(path)
            for digest in memory.indexes.keys() - self._named.keys():
                self._named[digest] = frozenset(self._specs[digest].trained_on)
            self._memory = MemoryRows()
        self._committed = time.monotonic()

    def _frozen_memory(self) -> MemoryRows:
        """Return the rows since the last commit as a source of a plan."""
        rows = sorted(self._row[clip] for clip in self._memory.clips())
        self._memory.freeze(subset(self.table, rows), self._named)
        return self._memory

    def _check_open(self) -> None:
        if self._closed:
            raise BadCache(f"{self.path}: this writer is closed: open a new one")

    def _known(self, spec: FeatureSpec) -> dict[str, bytes]:
        """Map clip ids to keys of a feature's rows, and record that the feature is requested."""
        digest = spec.digest
        if digest not in self._specs:
            check_spec(spec, str(self.path))
            check_texts((spec.name, *spec.trained_on), str(self.path))
        self._specs.pop(digest, None)
        self._specs[digest] = spec
        if digest not in self._rows:
            self._rows[digest] = self._stored(digest)
        return self._rows[digest]

    def _stored(self, digest: str) -> dict[str, bytes]:
        """Map clip ids to the keys of a feature's already stored rows."""
        return dict(self._before.get(digest, {}))

    def _note_part(self, path: Path) -> None:
        """Record a committed part."""
        self.parts.append(path.name)

    def _set_failure(self, clip_id: str, stage: str, failure: Failure | None) -> None:
        self._memory.failures[clip_id, stage] = self._failures[clip_id, stage] = failure


def _checked_values(spec: FeatureSpec, array: F32, where: str, copy: bool) -> F32:
    """Return a row's values as stored; raise BadCache if they do not match the spec."""
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise BadCache(f"{where}: expected a float32 array, got {kind}")
    if spec.kind != "sequence":
        if array.shape != (spec.dim,):
            raise BadCache(f"{where}: expected shape ({spec.dim},), got {array.shape}")
    elif array.ndim != 2 or array.shape[1] != spec.dim or not len(array):
        expected = f"shape (frames, {spec.dim}) with frames above 0"
        raise BadCache(f"{where}: expected {expected}, got {array.shape}")
    if not np.isfinite(array).all():
        raise BadCache(f"{where}: has NaN or infinite values: record a failure instead")
    if spec.dtype == "<f2":
        if (largest := float(np.abs(array).max())) > HALF_LARGEST:
            limit = f"{largest:.6g} is above float16's {HALF_LARGEST:g}"
            raise BadCache(f"{where}: {limit}: store it as float32")
        # The checksum covers the rounded values, as they will be read.
        array = array.astype("<f2")
    return (np.array if copy else np.asarray)(array, "<f4", order="C")

"""Cache of the features of predicted clips, by the contents of their files.

If no clip is new, neither media nor nets are read, and PyTorch is not imported.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mvemo import cache as caches
from mvemo.cache.parts import locked_cache
from mvemo.cache.spec import UNDIGESTED
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.clips.media_files import digest_files
from mvemo.pipeline.console.messages import note_resumable, tell, tell_note
from mvemo.pipeline.prediction import new_clips
from mvemo.pipeline.prediction.feature_maker import FeatureMaker
from mvemo.pipeline.provenance import provenance

if TYPE_CHECKING:
    from mvemo.pipeline.prediction.embedding import BatchReader
    from mvemo.pipeline.prediction.spread import SpreadReader

NAME = "catalogue"
# Names of the features that store the length of each clip, and when it was read.
RECORD, READ = "clip", "read"
# Stage of failures of whole clips; other stages name a modality.
PREDICT = "predict"
# Number of stored clips whose vectors are in memory at a time.
BATCH = 4096
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def batch_reader(maker: FeatureMaker) -> BatchReader:
    """Return the reader of new clips in this process."""
    new_clips.warm_up(maker.folder, maker.options)
    from mvemo.pipeline.prediction.embedding import BatchReader

    return BatchReader(maker)


class Catalogue:
    """Cache of `EmbeddedClip` by content and segment.

    A call of `read` drops all clips that it is not given, unless `keep_absent` is True.
    """

    def __init__(
        self,
        path: Path,
        maker: FeatureMaker,
        *,
        keep_absent: bool = False,
        reader_of: Callable[[FeatureMaker], BatchReader | SpreadReader] = batch_reader,
    ) -> None:
        self._path, self._maker, self._keep_absent = path, maker, keep_absent
        self._reader_of = reader_of
        # Check that the file can be locked and written before the media are digested.
        with locked_cache(path):
            self._earlier, stored = _contents(path)
        self._records = frozenset(spec.digest for spec in stored if spec.name == RECORD)
        # The stored length of a window is valid if the nets have not changed since.
        windows = (spec.params["windows"][0] for spec in stored if "windows" in spec.params)
        self._choose(maker.wanted(), next(windows, 0.0))

    def _choose(self, features: Sequence[str], window: float) -> None:
        """Set the features to keep, and the length of a window in seconds."""
        self._window = window
        windows = {"windows": [window, new_clips.LONG, new_clips.MOST_WINDOWS]}
        specs = self._maker.specs(features)
        # For new clips, the nets of several folds are separate features, not a crossfitted one.
        whole: dict[str, Any] = {"protocol": "none", "fold": None, "trained_on": ()}
        self._specs = {
            (s.name, s.fold): replace(s, name=s.label, params={**s.params, **windows}, **whole)
            for s in specs
        }
        self._modalities = sorted({spec.modality for spec in specs})
        # Length in seconds; written last for each clip.
        made_of = {"features": [spec.digest for spec in self._specs.values()]}
        self._record = caches.FeatureSpec(
            RECORD, "record", "vector", 1, "mvemo predict", 2, made_of
        )
        # Reading time in seconds, day, second of the day.
        self._read = caches.FeatureSpec(
            READ, "record", "vector", 3, "mvemo predict", 1, {UNDIGESTED: True}
        )

    def read(self, clips: Mapping[int, new_clips.NewClip]) -> Generator[new_clips.Batch]:
        """Yield batches of (key, clip), cached clips first; keep the cache locked."""
        digests = digest_files(clip.path for clip in clips.values())
        # A file that cannot be read has an empty digest.
        content = {row: digests[clip.path].digest for row, clip in clips.items()}
        ids = {row: _clip_id(content[row], clip) for row, clip in clips.items() if content[row]}
        reader = None
        if self._count_current(ids) < len(clips):
            reader = self._reader_of(self._maker)
            self._choose(reader.features, reader.window)
        elif self._names(clips, ids) == self._earlier:
            tell(f"{self._path}: 0 new, {len(ids)} kept, 0 removed")
            yield from self._kept(clips, content, ids)
            return
        with self._open(self._names(clips, ids)) as writer:
            current = writer.current(self._record, _keys(self._record, ids))
            writer.current(self._read, _keys(self._read, ids))
            kept = {row: clip_id for row, clip_id in ids.items() if clip_id in current}
            new = {row: clip for row, clip in clips.items() if row not in kept}
            n_gone = 0 if self._keep_absent else len(self._earlier.keys() - set(ids.values()))
            tell(f"{self._path}: {len(new)} new, {len(kept)} kept, {n_gone} removed")
            if kept:
                yield from self._kept(clips, content, kept)
            # Files with the same content are read once.
            alike = defaultdict[str, list[int]](list)
            for row in new:
                alike[ids.get(row, str(row))].append(row)
            first = {rows[0]: new[rows[0]] for rows in alike.values()}
            for batch in () if reader is None else reader.read(first):
                for row, clip in batch:
                    if clip.content in ("", content[row]) and row in ids and not clip.passing:
                        self._put(writer, ids[row], clip)
                # Single clips are committed after a minute, or at the end.
                if len(batch) > 1:
                    writer.commit()
                yield [
                    (other, replace(clip, clip=new[other], content=content[row]))
                    for row, clip in batch
                    for other in alike[ids.get(row, str(row))]
                ]

    def _count_current(self, ids: Mapping[int, str]) -> int:
        """Return how many of the clips have current values; 0 after an interrupted run."""
        if self._record.digest not in self._records or caches.unfinished_run(self._path)[1]:
            return 0
        with caches.open_cache(self._path) as cache:
            current = cache.current(self._record, _keys(self._record, ids))
        return sum(clip_id in current for clip_id in ids.values())

    def _names(
        self, clips: Mapping[int, new_clips.NewClip], ids: Mapping[int, str]
    ) -> dict[str, str]:
        """Map each clip id (content) to the places of its files, sorted, one place per line."""
        places = defaultdict[str, list[str]](list)
        for row, clip_id in ids.items():
            places[clip_id].append(str(clips[row].path.absolute()))
        names = {clip_id: "\n".join(sorted({*of})) for clip_id, of in places.items()}
        if self._keep_absent:
            names = self._earlier | names
        return dict(sorted(names.items()))

    def _open(self, names: Mapping[str, str]) -> caches.CacheWriter:
        """Return a cache writer for clips, given as clip id to places."""
        if self._earlier and not self._earlier.keys() & names.keys():
            raise BadOption(
                f"{self._path}: none of its {len(self._earlier)} clips is among the "
                f"{len(names)} given: use one catalogue per folder, or delete this file"
            )
        clips, n = (tuple(names), tuple(names.values())), len(names)
        labels, folds = np.zeros((n, 0), dtype=np.int64), np.full(n, -1)
        table = caches.ClipTable(NAME, "multilabel", (), *clips, labels, folds, k=0)
        facts = provenance(model=self._maker.model.name)
        if caches.unfinished_run(self._path)[1]:
            # Merge the committed rows of a killed run into the file, to read them from it.
            caches.CacheWriter(self._path, table, provenance=facts).close()
        if self._records - {self._record.digest}:
            tell_note(
                f"{self._path}: its features are from another model or --modality, and are "
                "replaced: use one catalogue for each"
            )
        note_resumable()
        return caches.CacheWriter(self._path, table, provenance=facts)

    def _put(self, writer: caches.CacheWriter, clip_id: str, clip: new_clips.EmbeddedClip) -> None:
        for feature, vector in clip.vectors.items():
            if (spec := self._specs.get(feature)) is None:
                continue  # a feature that only workers can compute
            writer.put(spec, clip_id, spec.key(clip_id), vector.astype(np.float32))
        writer.clear_failures(clip_id)
        stages = [(f"decode:{m}", reason) for m, reason in clip.reasons.items()]
        for stage, reason in (*stages, (PREDICT, clip.problem)):
            if reason:
                writer.fail(clip_id, stage, reason)
        since = clip.date - _EPOCH
        read = [clip.seconds, since.days, since.seconds]
        for spec, facts in ((self._read, read), (self._record, [clip.windows.length])):
            writer.put(spec, clip_id, spec.key(clip_id), np.array(facts, dtype=np.float32))

    def _kept(
        self,
        clips: Mapping[int, new_clips.NewClip],
        content: Mapping[int, str],
        kept: Mapping[int, str],
    ) -> Iterator[list[tuple[int, new_clips.EmbeddedClip]]]:
        """Yield batches of stored clips, so that memory does not grow with the catalogue."""
        with caches.open_cache(self._path) as cache:
            known = {spec.digest for spec in cache.specs}
            stored = {key: s.name for key, s in self._specs.items() if s.digest in known}
            failures = {(f.clip_id, f.stage): f.reason for f in cache.failures}
            rows = list(kept)
            for start in range(0, len(rows), BATCH):
                batch = rows[start : start + BATCH]
                ids = [kept[row] for row in batch]
                facts = [cache.vectors(name, clips=ids)[0] for name in (RECORD, READ)]
                records = np.nan_to_num(np.hstack(facts).astype(np.float64)).tolist()
                vectors = {
                    key: cache.vectors(name, clips=ids)[0].astype(np.float64)
                    for key, name in stored.items()
                }
                found = []
                for i, (row, clip_id) in enumerate(zip(batch, ids, strict=True)):
                    length, seconds, day, second = records[i]
                    clip = new_clips.EmbeddedClip(
                        clips[row],
                        new_clips.windows_of(clips[row], self._window, length),
                        content[row],
                        {key: x[i] for key, x in vectors.items() if np.isfinite(x[i]).all()},
                        {m: failures.get((clip_id, f"decode:{m}"), "") for m in self._modalities},
                        failures.get((clip_id, PREDICT), ""),
                        seconds=seconds,
                        date=_EPOCH + timedelta(days=day, seconds=second),
                    )
                    found.append((row, clip))
                yield found


def _contents(path: Path) -> tuple[dict[str, str], tuple[caches.FeatureSpec, ...]]:
    """Read a catalogue: return its clip ids with their places, and the specs of its features."""
    if not path.exists():
        return {}, ()
    try:
        opened = caches.open_cache(path)
    except caches.DamagedCache:
        raise BadOption(
            f"{path}: is truncated or overwritten: delete it, or restore it from a copy"
        ) from None
    with opened as cache:
        if cache.table.name != NAME:
            raise BadOption(
                f"{path}: expected a catalogue of 'mvemo predict', got features of "
                f"{cache.table.name!r}: give --cache another file"
            )
        return dict(zip(cache.table.clip_ids, cache.table.groups, strict=True)), cache.specs


def _keys(spec: caches.FeatureSpec, ids: Mapping[int, str]) -> dict[str, str]:
    return {clip_id: spec.key(clip_id) for clip_id in ids.values()}


def _clip_id(content: str, clip: new_clips.NewClip) -> str:
    duration = "" if clip.duration is None else f"{clip.duration:g}"
    return f"{content}@{clip.start:g}+{duration}" if clip.start or duration else content

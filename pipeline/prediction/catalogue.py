"""Cache of the features of predicted clips, by the digests of their files."""

from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np

from mvemo.cache import (
    CacheWriter,
    ClipTable,
    DamagedCache,
    FeatureSpec,
    open_cache,
    unfinished_run,
)
from mvemo.cache.shards import locked_cache
from mvemo.fuse.final.model import FeatureKey
from mvemo.manifests import Clip, Manifest
from mvemo.pipeline.clips.media_files import digest_media
from mvemo.pipeline.console.messages import note_resumable, tell, tell_note
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.prediction.embedding import BatchReader, EmbeddedClip
from mvemo.pipeline.prediction.new_clips import LONG, MOST_WINDOWS, NewClip, windows_of
from mvemo.pipeline.provenance import provenance

NAME = "catalogue"
# Name of the feature that stores the facts about each clip.
RECORD = "clip"
# Stage of the failure of a clip that cannot be predicted; other stages name modalities.
PREDICT = "predict"
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


class Catalogue:
    """Cache of `EmbeddedClip` by digest of the file's bytes and segment.

    Clips that are absent from a call of `read` are dropped, or with `keep_absent` kept.
    """

    def __init__(self, path: Path, reader: BatchReader, *, keep_absent: bool = False) -> None:
        self._path, self._reader, self._keep_absent = path, reader, keep_absent
        # Check that the file can be locked and written before the media are digested.
        with locked_cache(path):
            self._earlier, self._records = _contents(path)
        windows = {"windows": [reader.window, LONG, MOST_WINDOWS]}
        specs = [s for name in reader.features for s in reader.maker.model.variants(name)]
        # For new clips, the nets of several folds are separate features, not a crossfitted one.
        self._specs: dict[FeatureKey, FeatureSpec] = {
            (s.name, s.fold): replace(
                s,
                name=s.label,
                params={**s.params, **windows},
                protocol="none",
                fold=None,
                trained_on=(),
            )
            for s in specs
        }
        self._modalities = sorted({spec.modality for spec in specs})
        # Length and reading time in seconds, day, second of the day; written last for each clip.
        made_of = [spec.digest for spec in self._specs.values()]
        self._record = FeatureSpec(
            RECORD, "record", "vector", 4, "mvemo predict", 1, params={"features": made_of}
        )

    def read(self, clips: Mapping[int, NewClip]) -> Generator[list[tuple[int, EmbeddedClip]]]:
        """Yield batches of (key, clip), cached clips first; keep the cache locked."""
        content = _digest(clips)
        ids = {row: _clip_id(content[row], clip) for row, clip in clips.items() if content[row]}
        with self._open({clip_id: clips[row] for row, clip_id in reversed(ids.items())}) as writer:
            keys = {clip_id: self._record.key(clip_id) for clip_id in ids.values()}
            current = writer.current(self._record, keys)
            kept = {row: clip_id for row, clip_id in ids.items() if clip_id in current}
            new = {row: clip for row, clip in clips.items() if row not in kept}
            n_gone = 0 if self._keep_absent else len(self._earlier.keys() - set(ids.values()))
            tell(f"{self._path}: {len(new)} new, {len(kept)} kept, {n_gone} removed")
            if kept:
                yield list(self._kept(clips, content, kept))
            # Files with identical bytes are read once.
            alike = defaultdict[str, list[int]](list)
            for row in new:
                alike[ids.get(row, str(row))].append(row)
            for batch in self._reader.read({rows[0]: new[rows[0]] for rows in alike.values()}):
                for row, clip in batch:
                    if clip.content in ("", content[row]) and row in ids and not clip.passing:
                        self._put(writer, ids[row], clip)
                writer.commit()
                yield [
                    (other, replace(clip, clip=new[other], content=content[row]))
                    for row, clip in batch
                    for other in alike[ids.get(row, str(row))]
                ]

    def _open(self, clips: Mapping[str, NewClip]) -> CacheWriter:
        """Return the writer of a cache of these clips, given by id."""
        if self._earlier and not self._keep_absent and not self._earlier.keys() & clips.keys():
            raise BadOption(
                f"{self._path}: none of its {len(self._earlier)} clips is among the "
                f"{len(clips)} given: use one catalogue per folder, or delete this file"
            )
        names = dict(self._earlier) if self._keep_absent else {}
        for clip_id, clip in clips.items():
            path = str(clip.path.absolute())
            names[clip_id] = path.encode("utf-8", "backslashreplace").decode()
        n = len(names)
        table = ClipTable(
            name=NAME,
            task="multilabel",
            classes=(),
            clip_ids=tuple(names),
            groups=tuple(names.values()),
            labels=np.zeros((n, 0), dtype=np.int64),
            folds=np.full(n, -1),
            k=0,
            fold_seed=0,
            digest="",
        )
        facts = provenance(model=self._reader.maker.model.name)
        if unfinished_run(self._path) is not None:
            # Merge the committed rows of a killed run into the file, to read them from it.
            CacheWriter(self._path, table, provenance=facts).close()
        if self._records - {self._record.digest}:
            tell_note(
                f"{self._path}: its features are from another model or --modality, and are "
                "replaced: use one catalogue for each"
            )
        note_resumable()
        return CacheWriter(self._path, table, provenance=facts)

    def _put(self, writer: CacheWriter, clip_id: str, clip: EmbeddedClip) -> None:
        for feature, vector in clip.vectors.items():
            spec = self._specs[feature]
            writer.put(spec, clip_id, spec.key(clip_id), vector.astype(np.float32))
        writer.clear_failures(clip_id)
        stages = [(f"decode:{m}", reason) for m, reason in clip.reasons.items()]
        for stage, reason in (*stages, (PREDICT, clip.problem)):
            if reason:
                writer.fail(clip_id, stage, reason)
        since = clip.date - _EPOCH
        facts = [clip.windows.length, clip.seconds, since.days, since.seconds]
        key = self._record.key(clip_id)
        writer.put(self._record, clip_id, key, np.array(facts, dtype=np.float32))

    def _kept(
        self, clips: Mapping[int, NewClip], content: Mapping[int, str], kept: Mapping[int, str]
    ) -> Iterator[tuple[int, EmbeddedClip]]:
        with open_cache(self._path) as cache:
            ids = cache.table.clip_ids
            records = cache.vectors(self._record.name)[0].astype(np.float64).tolist()
            known = {spec.digest for spec in cache.specs}
            stored = {
                key: cache.vectors(spec.name)[0].astype(np.float64)
                for key, spec in self._specs.items()
                if spec.digest in known
            }
            failures = {(f.clip_id, f.stage): f.reason for f in cache.failures}
        place = dict(zip(ids, range(len(ids)), strict=True))
        for row, clip_id in kept.items():
            i = place[clip_id]
            length, seconds, day, second = records[i]
            yield (
                row,
                EmbeddedClip(
                    clips[row],
                    windows_of(clips[row], self._reader.window, length),
                    content[row],
                    {key: x[i] for key, x in stored.items() if np.isfinite(x[i]).all()},
                    {m: failures.get((clip_id, f"decode:{m}"), "") for m in self._modalities},
                    failures.get((clip_id, PREDICT), ""),
                    seconds=seconds,
                    date=_EPOCH + timedelta(days=day, seconds=second),
                ),
            )


def _contents(path: Path) -> tuple[dict[str, str], frozenset[str]]:
    """Return the paths by clip id in a catalogue, and the digests of the specs of its records."""
    if not path.exists():
        return {}, frozenset()
    try:
        opened = open_cache(path)
    except DamagedCache:
        raise BadOption(
            f"{path}: is truncated or overwritten: delete it, or restore it from a copy"
        ) from None
    with opened as cache:
        if cache.table.name != NAME:
            raise BadOption(
                f"{path}: expected a catalogue of 'mvemo predict', got features of "
                f"{cache.table.name!r}: give --cache another file"
            )
        records = frozenset(spec.digest for spec in cache.specs if spec.name == RECORD)
        return dict(zip(cache.table.clip_ids, cache.table.groups, strict=True)), records


def _digest(clips: Mapping[int, NewClip]) -> dict[int, str]:
    """Return the digest of each file's bytes; it is empty if the file cannot be read."""
    listed = [Clip(str(row), str(clip.path.absolute()), (), "") for row, clip in clips.items()]
    manifest = Manifest("predict", "multilabel", (), tuple(listed), Path())
    with Progress("digest media", len(clips), "file") as bar:
        digests = digest_media(manifest, lambda failed: bar.step(failed=int(failed)))
    return {row: digests.content[str(row)] for row in clips}


def _clip_id(content: str, clip: NewClip) -> str:
    duration = "" if clip.duration is None else f"{clip.duration:g}"
    return f"{content}@{clip.start:g}+{duration}" if clip.start or duration else content

"""Folder of the shards of a run: a cache for each, markers of finished shards, common facts.

``features.h5.shards`` holds ``clips.h5`` (all clips, no features), ``run.json`` (the facts that
decide the result), and for each shard ``1-of-4.h5`` and, when it is done, ``1-of-4.done``. The
folder can be read as one cache, because no two files hold the same row.
"""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mvemo.cache import ClipTable, open_cache, write_clips
from mvemo.cache.spec import digest_of
from mvemo.manifests.errors import BadFile, BadOption, MissingFile
from mvemo.manifests.files import shown, to_json_values, write_json
from mvemo.manifests.text_files import read_json
from mvemo.pipeline.provenance import versions
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.settings_files import dotted
from mvemo.pipeline.stage_one.division import Shard

# Settings in ``[extract]`` that do not change the result.
_NOT_IN_RESULT = (
    "device",
    "workers",
    "fail_fast",
    "retry_failed",
    "clip_seconds",
    "clip_memory",
    "fetch",
)

# Ending of the folder's name, after the name of the cache.
SUFFIX = ".shards"


class ShardFolder:
    """Folder of the shards of the cache `out`; it may not exist yet."""

    def __init__(self, out: Path) -> None:
        self.path = out.with_name(f"{out.name}{SUFFIX}")
        self.clips = self.path / "clips.h5"
        self._run = self.path / "run.json"

    def cache(self, shard: Shard) -> Path:
        """Return the file that a shard writes."""
        return self.path / f"{shard.number}-of-{shard.count}.h5"

    def claim(
        self,
        facts: Mapping[str, Any],
        table: ClipTable,
        provenance: Mapping[str, Any],
        *,
        force: bool,
    ) -> None:
        """Prepare the folder for a shard of a run; `force` replaces shards of another run."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not force:
            self.check(facts)
        if self._facts(ignore_damage=force) == facts and self.clips.exists():
            return
        # Remove shards of another division: they would hold the same rows twice.
        current = set(self.path.glob(f"*-of-{facts['shards']}.*"))
        for path in set(self.path.glob("*-of-*.*")) - current:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        write_clips(self.clips, table, provenance)
        write_json(self._run, facts)

    def check(self, facts: Mapping[str, Any]) -> None:
        """Raise BadOption if the folder has shards of another run."""
        stored = self._facts()
        if stored is None or stored == facts:
            return
        what = next(k for k in (*facts, *stored) if stored.get(k) != facts.get(k))
        raise BadOption(
            f"{self.path}: its shards belong to another run: {what} is "
            f"{shown(str(stored.get(what)))} there, but {shown(str(facts.get(what)))} here: run "
            "the same command for all shards, write to another file with --out, or replace these "
            "with --force"
        )

    def is_done(self, shard: Shard, facts: Mapping[str, Any]) -> bool:
        """Return True if a shard was finished with these facts and its file exists."""
        done = self._read_marker(shard).get("run") == digest_of(facts)
        return done and self.cache(shard).exists()

    def finish(self, shard: Shard, facts: Mapping[str, Any]) -> None:
        self.check(facts)
        with open_cache(self.cache(shard)) as cache:
            marker = {"run": digest_of(facts), "digest": cache.digest(), "clips": len(cache.table)}
        write_json(self._marker(shard), marker)

    def refuse_changed(self) -> None:
        """Raise BadOption if the file of a shard is not the one that its marker describes."""
        for shard in self._shards():
            path = self.cache(shard)
            with open_cache(path) as cache:
                if cache.digest() != self._read_marker(shard).get("digest"):
                    raise BadOption(
                        f"{path}: is not the file that {self._marker(shard).name} describes: "
                        "copy both again, or run this shard again with --force"
                    )

    def unfinished(self) -> list[Shard]:
        facts = self._facts() or {}
        return [shard for shard in self._shards() if not self.is_done(shard, facts)]

    def _shards(self) -> list[Shard]:
        count = (self._facts() or {}).get("shards")
        if not isinstance(count, int):
            raise BadOption(f"{self._run}: does not state the number of shards: run one again")
        return [Shard(i + 1, count) for i in range(count)]

    def _marker(self, shard: Shard) -> Path:
        return self.cache(shard).with_suffix(".done")

    def _read_marker(self, shard: Shard) -> dict[str, Any]:
        """Return the content of a shard's marker; empty if it is missing or unreadable."""
        with suppress(BadFile, MissingFile):
            return dict(read_json(self._marker(shard)))
        return {}

    def _facts(self, *, ignore_damage: bool = False) -> dict[str, Any] | None:
        """Return the facts common to the existing shards, or None if there are no shards."""
        with suppress(MissingFile, *[BadFile] * ignore_damage):
            try:
                return dict(read_json(self._run))
            except BadFile as error:
                raise BadFile(f"{error}: replace the shards with --force") from None
        return None


def run_facts(settings: Settings, table: ClipTable, count: int) -> dict[str, Any]:
    """Return the facts that all shards of a run must share, as JSON values by dotted keys."""
    record = settings.record()
    folds = [table.folds.tolist(), None if table.splits is None else table.splits.tolist()]
    facts = dict(dotted({key: record[key] for key in ("extract", "descriptors", "nets")}))
    for key in _NOT_IN_RESULT:
        facts.pop(f"extract.{key}", None)
        facts.pop(f"extract.run.{key}", None)
    facts |= {"manifest": table.digest, "folds": digest_of(folds), "shards": count}
    return dict(to_json_values({**facts, "mvemo": versions()["mvemo"]}))


def refuse_unfinished(path: Path) -> None:
    """Raise BadOption if a folder of shards has unfinished or replaced shards."""
    if not path.name.endswith(SUFFIX) or not path.is_dir():
        return
    folder = ShardFolder(path.with_name(path.name.removesuffix(SUFFIX)))
    unfinished = folder.unfinished()
    if unfinished:
        names = ", ".join(map(str, unfinished[:5])) + ", …" * (len(unfinished) > 5)
        raise BadOption(
            f"{path}: {len(unfinished)} of {unfinished[0].count} shards are not done: {names}: "
            f"run the same command for each, the first with --shard {unfinished[0]}"
        )
    folder.refuse_changed()

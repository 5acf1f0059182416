"""Summary of a run of stage one, and a record so that the same command later ends at once.

Importing torch and checking all media takes seconds, which is wasted if nothing has changed. A
run after which nothing can be retried writes a record to its working folder: the request, the
stamps of all files that it read and wrote, and its messages.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvemo.cache import cache_file, table
from mvemo.manifests import read_manifest
from mvemo.manifests.errors import MvemoError
from mvemo.manifests.files import dump_json, find_stamp, write_json
from mvemo.manifests.text_files import as_tuples, read_json
from mvemo.pipeline.provenance import versions
from mvemo.pipeline.work_folder import measure_work

if TYPE_CHECKING:
    from mvemo.pipeline.settings import Settings

FINISHED = "finished.json"
# Maximum size of the record and of the manifest in bytes. For larger manifests (over 100,000
# clips), checking the record takes as long as the run that it would save.
_MOST_BYTES = 1 << 25
# Parts of the summary that the record keeps.
_KEPT = ("clips", "features", "failures", "missing", "notes")
# Packages whose code can change the result of a run.
_PACKAGES = ("cache", "extract", "manifests", "pipeline")
# Prefixes of environment variables for folders of weights and visible devices.
_VARIABLES = ("MVEMO_", "CUDA_", "HIP_", "ROCR_")


# (clip id, stage or modality, reason)
Problem = tuple[str, str, str]


@dataclass(frozen=True)
class ExtractSummary:
    """Result of a run of stage one."""

    path: Path  # feature cache
    clips: int  # number of clips in the manifest
    features: tuple[str, ...]  # names of features in the cache
    failures: tuple[Problem, ...]
    missing: tuple[Problem, ...] = ()  # clips that lack one modality, which is not a failure
    notes: tuple[str, ...] = ()  # on omitted nets, and on clips longer than a net's input
    work: Path | None = None  # working folder whose size is shown
    settled: bool = False  # True if a repeated run would not retry any failed clip

    def text(self) -> str:
        """Return the text for the terminal: notes, missing modalities, failures, the file."""
        lines = [f"note: {note}" for note in self.notes]
        for modality in ("audio", "video"):
            clips = [(clip, why) for clip, kind, why in self.missing if kind == modality]
            if clips:
                lines.append(
                    f"{len(clips)} of {self.clips} clips have no {modality}, which counts as "
                    f"missing, not as failed; the first, {clips[0][0]}: {clips[0][1]}"
                )
        if self.failures:
            shown = 20
            lines.append(f"{len(self.failures)} failures, kept in the cache, by reason:")
            kinds = table.failures_by_reason(self.failures)
            lines += [f"  {kind.text()}" for kind in kinds[:shown]]
            if len(kinds) > shown:
                lines.append(f"  and {len(kinds) - shown} more reasons: see 'mvemo cache info'")
        if self.work is not None:
            lines.append(
                f"{self.work} takes {measure_work(self.work).text()}; 'mvemo cache clean-work "
                f"{self.work}' removes the decoded media"
            )
        lines.append(f"{self.clips} clips, features {', '.join(self.features)}: {self.path}")
        return "\n".join(lines)


@dataclass
class RepeatableRun:
    """Command of stage one that an earlier run may have finished with the same files."""

    options: Mapping[str, Any]  # options of the command line by name
    manifest: Path | None  # None for the demo set under `work`
    work: Path
    out: Path

    def __post_init__(self) -> None:
        self._key = self._request_key()

    def recall(self) -> tuple[ExtractSummary, tuple[str, ...]] | None:
        """Return summary and notes of the run that finished this command, or None."""
        path = self.work / FINISHED
        try:
            # Rows of an interrupted run are not in the cache yet.
            if path.stat().st_size > _MOST_BYTES or cache_file.parts_folder(self.out).exists():
                return None
            kept = read_json(path)
            changed = any(find_stamp(Path(name)) != stamp for name, stamp in kept["files"].items())
            if changed or kept["key"] != self._key:
                return None
            facts = {name: as_tuples(kept["summary"][name]) for name in _KEPT}
            summary = ExtractSummary(self.out, work=self.work, settled=True, **facts)
            return summary, (*kept["notes"],)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            # The record is missing, damaged or of another version: do the run.
            return None

    def keep(self, settings: Settings, summary: ExtractSummary, notes: Sequence[str]) -> None:
        """Record that this run is finished, unless its inputs have changed since it began."""
        key = self._request_key()
        # Without a manifest, the run itself creates the demo set, which changes the key.
        if key is None or (key != self._key and self.manifest is not None):
            return
        files = [self.out, self.work / "folds.csv", *_weight_files(settings)]
        # The record only saves time: failing to write it is not an error.
        with suppress(OSError):
            write_json(
                self.work / FINISHED,
                {
                    "key": key,
                    "files": {str(path.absolute()): find_stamp(path) for path in files},
                    "summary": {name: getattr(summary, name) for name in _KEPT},
                    "notes": notes,
                },
                durable=False,
            )

    def _request_key(self) -> str | None:
        """Return a digest of options, manifest, media and code, or None if a file is missing."""
        path = self.manifest or self.work / "demo" / "manifest.csv"
        try:
            if path.stat().st_size > _MOST_BYTES:
                return None
            stated = {name: self.options.get(name) for name in ("root", "task")}
            columns = self.options["columns"]
            listed = read_manifest(path, columns=columns, media=False, **stated)
            media = {str(p): find_stamp(p) for p in map(listed.media_path, listed.clips)}
        except (OSError, MvemoError):
            return None
        named = [Path(str(self.options.get(name) or "")) for name in ("profile", "folds")]
        # The result is the same for any number of processes above 1.
        given = {**self.options, "jobs": self.options.get("jobs") not in (None, 1)}
        request = {
            "options": {name: str(value) for name, value in sorted(given.items())},
            "paths": [str(p.absolute()) for p in (path, self.work, self.out)],
            "files": {str(p): find_stamp(p) for p in (path, *named)},
            "variables": {k: v for k, v in os.environ.items() if k.startswith(_VARIABLES)},
            "media": media,
            "code": {
                str(path): find_stamp(path)
                for package in _PACKAGES
                for top in importlib.import_module(f"mvemo.{package}").__path__
                for path in sorted(Path(top).rglob("*"))
                if path.parent.name != "__pycache__" and path.is_file()
            },
            # With other versions of a decoder, failed clips are tried again.
            "versions": versions(),
            "folder": str(Path.cwd()),
        }
        return hashlib.sha256(dump_json(request).encode("utf-8", "backslashreplace")).hexdigest()


def _weight_files(settings: Settings) -> list[Path]:
    """Return the paths of starting weights that a run's nets read if the files exist."""
    from mvemo.extract.nets.parts.encoder_names import EncoderName
    from mvemo.extract.pretrained.store import weights_folder
    from mvemo.extract.settings import FETCHED

    files = []
    for name in settings.extract.nets:
        given = settings.nets[name].weights
        if given not in ("", FETCHED):
            files.append(Path(given))
        files += [weights_folder(name) / file for file in ("about.json", "weights.npz")]
        if isinstance(name, EncoderName):
            files += name.files()
    return files

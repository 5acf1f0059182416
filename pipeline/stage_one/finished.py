"""What the last run of stage one finished, so that the same command again ends at once.

Importing torch and looking through all media takes seconds, and where nothing has changed it
tells nothing new. A run that leaves nothing to try again keeps here, in its working folder,
what it was asked for, the stamps of all files that it read and wrote, and what it said.
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

from mvemo.extract.store.stamps import stamp_of
from mvemo.manifests import ManifestError, read_manifest
from mvemo.manifests.files import dump_json, parse_json, write_json
from mvemo.pipeline.provenance import versions
from mvemo.pipeline.stage_one.summary import ExtractSummary

if TYPE_CHECKING:
    from mvemo.pipeline.settings import Settings

FINISHED = "finished.json"
# Of this file and of the manifest. With more clips, some 100,000, it would take as long as what
# it saves.
_MOST_BYTES = 1 << 25
# A change of ours may change what a run does.
_PACKAGES = ("cache", "extract", "manifests", "pipeline")
# Prefixes of variables that say where weights lie and which devices there are.
_VARIABLES = ("MVEMO_", "CUDA_", "HIP_", "ROCR_")


@dataclass(frozen=True)
class FinishedRun:
    """A run that had nothing left to do."""

    summary: ExtractSummary  # of the run
    notes: tuple[str, ...]  # all that it told as a note


class RepeatableRun:
    """One command, and whether it was carried out before by the same files.

    Parameters
    ----------
    options
        Of the command line, by name; values that differ ask for different runs.
    manifest
        None for the demo set under `work`.
    root
        Media root, where it is not the manifest's own.
    work, out
        Working folder and feature cache.

    Examples
    --------
    >>> import tempfile
    >>> work = Path(tempfile.mkdtemp())
    >>> run = RepeatableRun({}, work / "m.csv", root=None, work=work, out=work / "features.h5")
    >>> run.recall() is None
    True
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        manifest: Path | None,
        *,
        root: Path | None,
        work: Path,
        out: Path,
    ) -> None:
        self._options = options
        self._manifest = manifest
        self._root = root
        self._work = work
        self._out = out
        self._key = self._request_key()

    def recall(self) -> FinishedRun | None:
        """The run that finished this; None where something is to be done, or may be."""
        path = self._work / FINISHED
        try:
            # Rows that a run which was cut off has left are still to be put into the cache.
            if path.stat().st_size > _MOST_BYTES or self._unfinished.exists():
                return None
            kept = parse_json(path.read_bytes())
            if self._key is None or kept["key"] != self._key:
                return None
            if any(_stamp(Path(name)) != stamp for name, stamp in kept["files"].items()):
                return None
            return FinishedRun(_summary(kept["summary"], self._out, self._work), (*kept["notes"],))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            # None, of another version, or damaged: the run finds out what is to be done.
            return None

    def keep(self, settings: Settings, summary: ExtractSummary, notes: Sequence[str]) -> None:
        """Note that this run is finished, if nothing that it read has changed meanwhile."""
        key = self._request_key()
        # The demo set is made by the run itself.
        if key is None or (key != self._key and self._manifest is not None):
            return
        files = [self._out, self._work / "folds.csv", *_weight_files(settings)]
        # It only saves time.
        with suppress(OSError):
            write_json(
                self._work / FINISHED,
                {
                    "key": key,
                    "files": {str(path.absolute()): _stamp(path) for path in files},
                    "summary": {
                        "clips": summary.clips,
                        "features": summary.features,
                        "failures": summary.failures,
                        "missing": summary.missing,
                        "notes": summary.notes,
                    },
                    "notes": notes,
                },
                durable=False,
            )

    @property
    def _unfinished(self) -> Path:
        from mvemo.cache.storage.files import parts_folder

        return parts_folder(self._out)

    def _request_key(self) -> str | None:
        """Digest of all that is asked for and read but weights; None where it is not there."""
        path = self._manifest or self._work / "demo" / "manifest.csv"
        try:
            if path.stat().st_size > _MOST_BYTES:
                return None
            listed = read_manifest(path, root=self._root, media=False)
            media = {str(p): _stamp(p) for p in map(listed.media_path, listed.clips)}
        except (OSError, ManifestError):
            return None
        named = [Path(str(self._options.get(name) or "")) for name in ("profile", "folds")]
        request = {
            "options": {name: str(value) for name, value in sorted(self._options.items())},
            "paths": [str(p.absolute()) for p in (path, self._work, self._out)],
            "files": {str(p): _stamp(p) for p in (path, *named)},
            "variables": {k: v for k, v in os.environ.items() if k.startswith(_VARIABLES)},
            "media": media,
            "code": _code(),
            # Other versions of a decoder try clips again that failed.
            "versions": versions(),
            "folder": str(Path.cwd()),
        }
        return hashlib.sha256(dump_json(request).encode("utf-8", "backslashreplace")).hexdigest()


def _summary(kept: Mapping[str, Any], out: Path, work: Path) -> ExtractSummary:
    """The summary that `RepeatableRun.keep` wrote."""
    failures = tuple((str(clip), str(stage), str(why)) for clip, stage, why in kept["failures"])
    missing = tuple((str(clip), str(kind), str(why)) for clip, kind, why in kept["missing"])
    return ExtractSummary(
        path=out,
        clips=int(kept["clips"]),
        features=tuple(map(str, kept["features"])),
        failures=failures,
        missing=missing,
        notes=tuple(map(str, kept["notes"])),
        work=work,
        settled=True,
    )


def _stamp(path: Path) -> list[int] | None:
    """What changes when a file does, as JSON has it; None where there is no such file."""
    try:
        return list(stamp_of(path))
    except (OSError, ValueError):
        return None


def _code() -> dict[str, list[int] | None]:
    """Stamps of all files that mvemo's stage one consists of, by path."""
    stamps: dict[str, list[int] | None] = {}
    for package in _PACKAGES:
        for top in importlib.import_module(f"mvemo.{package}").__path__:
            for folder, folders, names in os.walk(top):
                folders[:] = sorted(set(folders) - {"__pycache__"})
                paths = [Path(folder, name) for name in sorted(names)]
                stamps |= {str(path): _stamp(path) for path in paths}
    return stamps


def _weight_files(settings: Settings) -> list[Path]:
    """Files of starting weights that the nets of a run have, or would find if they were there."""
    from mvemo.extract.nets.parts.registry import folder_nets
    from mvemo.extract.pretrained.store import weights_folder
    from mvemo.extract.settings import FETCHED

    folders = folder_nets()
    files = []
    for name in settings.extract.nets:
        given = settings.nets[name].weights
        if given not in ("", FETCHED):
            files.append(Path(given))
        files += [weights_folder(name) / file for file in ("about.json", "weights.npz")]
        if name in folders:
            files += sorted(folders[name].path.iterdir())
    return files

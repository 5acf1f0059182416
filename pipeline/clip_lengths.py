"""Lengths of clips, from their files."""

from __future__ import annotations

from collections.abc import Callable

from mvemo.extract.errors import ExtractError
from mvemo.extract.media.isolated import PROBE, read_each
from mvemo.manifests import Manifest
from mvemo.pipeline.inputs import media_files
from mvemo.pipeline.progress import Progress


def clip_lengths(
    manifest: Manifest, on_problem: Callable[[str], object]
) -> dict[str, float | None]:
    """Seconds from each clip's start to its file's end.

    Parameters
    ----------
    manifest
        With media.
    on_problem
        Called with a sentence for each file that cannot be read, and each clip that begins
        after its file's end.

    Returns
    -------
    Clip id to seconds; None where they are not known.
    """
    files = media_files(manifest)
    names = list(files)
    lengths: dict[str, float | None] = dict.fromkeys(names)
    with Progress("measure media", len(files), "file") as bar:
        for i, found in read_each(PROBE, [(path, {}) for path in files.values()]):
            if isinstance(found, ExtractError):
                on_problem(str(found))
            else:
                lengths[names[i]] = found
            bar.step(failed=int(lengths[names[i]] is None))
    seconds: dict[str, float | None] = {}
    for clip in manifest.clips:
        length = lengths[clip.path]
        if length is not None and length <= clip.start:
            on_problem(f"{clip.clip_id} begins after its file's end")
            length = None
        seconds[clip.clip_id] = None if length is None else length - clip.start
    return seconds

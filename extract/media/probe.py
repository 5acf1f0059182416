"""Length of a media file's sound or pictures, without decoding them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import soundfile

from mvemo.extract.errors import BadMedia
from mvemo.extract.media.audio_file import AUDIO_SUFFIXES, open_parts
from mvemo.extract.media.checks import check_file, reasons_text
from mvemo.extract.media.formats import check_format
from mvemo.extract.media.packets import (
    Packets,
    is_cover,
    open_container,
    sound_tracks,
    start_of,
    unit_seconds,
)
from mvemo.extract.media.reading import decode_clip, media_errors


def probe_seconds(path: str | Path) -> float:
    """Return the length of a file's sound, or of its pictures if it has no sound, in seconds.

    The length is that of all packets' presentation times, as for `decode_clip`, and not the
    one in the header: the file is read completely, but not decoded. It starts at the file's
    first presentation time, also if the sound begins later.

    Parameters
    ----------
    path
        Path of the file.

    Raises
    ------
    MissingFile
        If the file does not exist or cannot be opened.
    BadMedia
        If the file cannot be read as media.

    See Also
    --------
    mvemo.extract.media.reading.decode_clip : Decode a stretch of a file.

    Examples
    --------
    >>> import numpy as np, soundfile
    >>> soundfile.write("noise.flac", np.random.default_rng(0).uniform(-1, 1, 12000), 8000)
    >>> probe_seconds("noise.flac")
    1.5
    """
    path = Path(path)
    check_file(path)
    if path.suffix.lower() in AUDIO_SUFFIXES:
        try:
            seconds = 0.0
            for file in open_parts(path):
                # The header may state more frames than there are.
                file.seek(max(file.frames - 1, 0))
                seconds += file.frames / file.samplerate
            if seconds > 0:
                return seconds
        except (soundfile.LibsndfileError, ValueError):
            pass
    with media_errors(path):
        seconds = _by_packets(path)
    if not seconds > 0:
        raise BadMedia(f"{path}: {reasons_text(decode_clip(path).problems)}")
    return seconds


def _by_packets(path: Path) -> float:
    """Return the end of the last packet, from the file's first presentation time; 0 if none."""
    with open_container(path) as container:
        check_format(path, container.format.name)
        streams: list[Any] = sound_tracks(container)[:1]
        streams += [s for s in container.streams.video if not is_cover(s)][:1]
        ends = {stream.index: 0.0 for stream in streams}
        origin = start_of(container)
        if streams:
            for packet in Packets(container, streams):
                if packet.pts is not None:
                    index = packet.stream.index
                    unit = unit_seconds(container, packet)
                    end = (packet.pts + (packet.duration or 0)) * unit - origin
                    ends[index] = max(ends[index], end)
    return next((end for end in ends.values() if end > 0), 0.0)

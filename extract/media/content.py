"""Digest of what a media file contains: the packets of its sound and pictures, without its tags."""

import hashlib
from pathlib import Path
from typing import Any

import av.error

from mvemo.cache.spec import content_digest
from mvemo.extract.errors import BadMedia
from mvemo.extract.media import packets, reading

# The headers of these codecs contain the tags.
_TAGS_IN_HEADER = frozenset({"vorbis", "theora"})
# FFmpeg takes a stream's length from these formats' headers; for others it may guess it from the
# size of the file, which changes with the tags.
_STATING_LENGTH = frozenset({"mov", "avi", "flac", "wav", "aiff"})
# Formats without an index: their readers take tags after the sound for packets.
_RAW = frozenset({"mp3", "aac"})
_CODEC = ("name", "sample_rate", "channels", "width", "height", "pix_fmt")


def file_digest(path: Path) -> str:
    """Return `packets_digest` of a file, or the SHA-256 of its bytes if it is not media."""
    try:
        return packets_digest(path)
    except BadMedia:
        return content_digest(path)


def packets_digest(path: Path) -> str:
    """Return the SHA-256 of the packets and codecs of a file's sound and pictures, without tags."""
    with reading.media_errors(path), packets.open_container(path) as container:
        is_stated = not _STATING_LENGTH.isdisjoint(container.format.name.split(","))
        streams = [*packets.videos(container), *container.streams.audio]
        digests = {s.index: hashlib.sha256(_header(s, is_stated).encode()) for s in streams}
        n_bytes, kind = 0, b""
        is_raw = container.format.name in _RAW
        try:
            for packet in container.demux(streams):
                former, kind = kind, _kind(packet) if is_raw else kind
                # A frame has the kind of the frame before it; a tag has none.
                if packet.size and (kind == former or not n_bytes):
                    digest = digests[packet.stream.index]
                    digest.update(memoryview(packet))
                    # The times of sound follow from its packets; versions of FFmpeg differ.
                    if packet.stream.type == "video":
                        digest.update(f" {packet.pts}".encode())
                    n_bytes += packet.size
        except av.error.FFmpegError:
            # The file is damaged or cut off at this point; decoding ends there, too.
            pass
        if not n_bytes:
            raise BadMedia(f"{path}: has neither sound nor pictures")
        joined = " ".join(digest.hexdigest() for digest in digests.values())
    return hashlib.sha256(joined.encode()).hexdigest()


def _kind(packet: Any) -> bytes:
    """Return the bits of an MP3 or ADTS frame's header that its whole stream shares."""
    return bytes(a & b for a, b in zip(memoryview(packet), b"\xff\xfe\x0c", strict=False))


def _header(stream: Any, is_stated: bool) -> str:
    """Return the properties of a stream that change how its packets are read."""
    codec = stream.codec_context
    facts = [stream.type, int(stream.disposition), *(getattr(codec, n, None) for n in _CODEC)]
    facts.append(stream.duration if is_stated else None)
    if stream.type == "video":
        facts += [stream.time_base, stream.sample_aspect_ratio]
    elif stream.start_time is not None:
        late = float(stream.start_time * stream.time_base) - packets.start_of(stream.container)
        # This fact is missing if the sound starts with the pictures, or if there are no pictures.
        facts += [int(late * 5)] * (late >= 0.2)
    if codec is not None and codec.name not in _TAGS_IN_HEADER:
        facts.append((codec.extradata or b"").hex())
    return " ".join(map(str, facts))

"""Supported formats, and checks of a file's structure by its bytes."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from mvemo.extract.errors import BadMedia
from mvemo.extract.media.request import MIN_DECODED_SHARE

# FFmpeg's names. Playlists, picture patterns, devices and stream descriptions are excluded, because
# they open other files or URLs, or wait for more data.
_READ = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpeg,mpegts,mxf,dv,nut,rm,wtv,nsv,ivf,gif,"
    "mp3,aac,ac3,eac3,flac,ogg,wav,w64,aiff,au,caf,amr,ape,wv,tta,tak,dts,dtshd,mlp,truehd,mpc,"
    "mpc8,dsf,iff,voc,xwma,shn,spdif,qoa"
)
# Formats of video without a container, which has no time stamps; opened only to report the reason.
_RAW = "h264,hevc,vvc,m4v,mpegvideo,mjpeg,vc1,av1,obu,dirac,dnxhd,cavsvideo,h261,h263,evc"
FORMAT_WHITELIST = f"{_READ},{_RAW}"

_HEAD = 1 << 16
_ASF_PROPERTIES = b"\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\x00\xc0\x0c\x20\x53\x65"
# Bytes at the end of a transport stream that surely hold more than one audio packet.
_TS_TAIL = 1 << 20
# Maximum number of bytes of a QuickTime file's index that are read.
_MAX_INDEX = 1 << 26
_PICTURE = re.compile(
    rb"\x89PNG\r\n|\xff\xd8\xff[^\xc0-\xcf]|RIFF....WEBP|II\*\0|MM\0\*|\0\0\x01\0[\x01-\x20]\0"
    rb"|....ftyp(?:avif|heic|heix|mif1)|BM....\0\0\0\0",
    re.DOTALL,
)
_LIST = re.compile(
    rb"\s*(?:#EXTM3U|ffconcat|\[playlist\]|\[Reference\]|v=0\r?\n|<\?xml|<MPD|<asx|<smil|<Smooth)",
    re.IGNORECASE,
)
# Sample descriptions of encrypted tracks (ISO/IEC 14496-12, 8.12; Apple's FairPlay).
_ENCRYPTED_MOV = re.compile(rb"stsd.{12}(?:encv|enca|drmi|drms)", re.DOTALL)
# ContentEncoding element that contains a ContentEncryption (RFC 9559, 5.1.4.1.31).
_ENCRYPTED_MATROSKA = re.compile(rb"\x62\x40.{1,24}?\x50\x35", re.DOTALL)
# Content Encryption Object and its extended form (Advanced Systems Format, 3.14 and 3.15).
_ENCRYPTED_ASF = re.compile(
    rb"\xfb\xb3\x11\x22\x23\xbd\xd2\x11\xb4\xb7\x00\xa0\xc9\x55\xfc\x6e"
    rb"|\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c"
)
# Raw audio streams (AAC in ADTS, AC-3, E-AC-3) consist of frames, each of which states its length.
# Number of bytes examined at the end: many times the longest frame, which has 8 kB.
_RAW_TAIL = 1 << 17
# Number of consecutive valid frames that cannot be a coincidence.
_RAW_FRAMES = 4
_RAW_HEADER = 7
# Bit rates of AC-3, in kilobits per second (ETSI TS 102 366, table 4.13).
_AC3_RATES = (
    32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640,
)  # fmt: skip
# First frame of an MP3 file: its version and sampling rate (ISO/IEC 11172-3, 2.4.2.3), and instead
# of sound the number of frames, as stated by Xing, LAME and others, or by Fraunhofer (VBRI).
_MP3_LENGTH = re.compile(
    rb"\xff([\xe2\xe3\xf2\xf3\xfa\xfb])([\x10-\xef]).(?:"
    rb"(?:.{9}|.{11}|.{17}|.{19}|.{32}|.{34})(?:Xing|Info)...[\1\3\5\7\x09\x0b\x0d\x0f](.{4})"
    rb"|.{32}VBRI.{10}(.{4}))",
    re.DOTALL,
)
_MP3_RATES = (44_100, 48_000, 32_000, math.inf)


def check_head(path: Path) -> None:
    """Refuse images, playlists and encrypted files, which the file's first bytes show."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if _PICTURE.match(head):
        raise BadMedia(f"{path}: is an image, not audio or video")
    if _LIST.match(head):
        raise BadMedia(f"{path}: refers to other files or URLs, but must be self-contained")
    encrypted = (
        (head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") and _mov_is_encrypted(path))
        or (head.startswith(b"\x1aE\xdf\xa3") and _ENCRYPTED_MATROSKA.search(head))
        or (head.startswith(b"\x30\x26\xb2\x75") and _ENCRYPTED_ASF.search(head))
    )
    if encrypted:
        raise BadMedia(f"{path}: is encrypted")


def check_format(path: Path, names: str) -> None:
    """Refuse video without a container; `names` is FFmpeg's comma-separated format name."""
    if names in _RAW.split(","):
        raise BadMedia(
            f"{path}: is a raw {names} stream without time stamps: put it into a container, "
            "for example with 'ffmpeg -i FILE -c copy FILE.mkv'"
        )


def _mov_is_encrypted(path: Path) -> bool:
    with path.open("rb") as file:
        for kind, at, size in _boxes(file):
            if kind == b"moov":
                file.seek(at)
                return _ENCRYPTED_MOV.search(file.read(min(size, _MAX_INDEX))) is not None
    return False


def _boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind, offset and stated size of each top-level box of a QuickTime file."""
    end = file.seek(0, 2)
    at = 0
    while at + 16 <= end:
        file.seek(at)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        elif size == 0:
            size = end - at
        if size < 8:
            return
        yield header[4:8], at, size
        at += size


def is_cut_off(path: Path, names: str, share: float = MIN_DECODED_SHARE) -> bool:
    """Return True if the file has less than a `share` of its stated size, or ends in a packet."""
    formats = set(names.split(","))
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if "mpegts" in formats:
            return _ts_is_cut_off(file, size)
        if "ogg" in formats:
            return _ogg_is_cut_off(file, size)
        if _raw_is_cut_off(file, size, names):
            return True
        return size < share * _stated_size(file, formats)


def _stated_size(file: BinaryIO, formats: set[str]) -> int:
    """Return the size in bytes that the file states, or 0."""
    file.seek(0)
    head = file.read(_HEAD)
    if "mov" in formats:
        # A tag may follow the last box.
        boxes = [box for box in _boxes(file) if box[0] in (b"moov", b"moof", b"mdat")]
        whole = max((at + size for _, at, size in boxes), default=0)
        # A fragmented file counts as cut off if a box is, because no index shows missing fragments.
        fragmented = any(kind == b"moof" for kind, _, _ in boxes)
        return 2 * whole if fragmented and whole > file.seek(0, 2) else whole
    # If a WAV file holds compressed sound as samples, `formats` is the format of the sound.
    if head.startswith(b"RIFF"):
        size = int.from_bytes(head[4:8], "little")
    elif "asf" in formats:
        # File Properties Object (Advanced Systems Format, 3.2).
        at = head.find(_ASF_PROPERTIES)
        size = int.from_bytes(head[at + 40 : at + 48], "little") - 8 if at >= 0 else 0
    elif head.startswith(b"FORM"):
        size = int.from_bytes(head[4:8], "big")
    elif head.startswith(b".snd"):
        # The header has the offset of the samples and their size in bytes.
        size = int.from_bytes(head[4:8], "big") + int.from_bytes(head[8:12], "big") - 8
    elif head.startswith(b"riff"):
        size = int.from_bytes(head[16:24], "little") - 8
    elif head.startswith(b"caff"):
        return _caf_size(file)
    else:
        return 0
    # Programs that write to a pipe state the largest possible size, which means unknown.
    return size + 8 if 0 < size < 0x7FFFF000 else 0


def _caf_size(file: BinaryIO) -> int:
    """Return the end of a Core Audio file's last chunk; 0 if the chunk has no stated size."""
    end = file.seek(0, 2)
    at = 8
    while at + 12 <= end:
        file.seek(at)
        header = file.read(12)
        size = int.from_bytes(header[4:12], "big", signed=True)
        if size < 0:
            return 0
        at += 12 + size
    return at


def _ogg_is_cut_off(file: BinaryIO, size: int) -> bool:
    """Return True if the last page is incomplete or not marked as the last (RFC 3533, 6)."""
    # A page has at most `_HEAD` bytes, but a tag may follow the last one.
    tail, length = b"", 2 * _HEAD
    while b"OggS" not in tail and len(tail) < size:
        file.seek(max(size - length, 0))
        tail, length = file.read(), 8 * length
    at = tail.rfind(b"OggS")
    page = tail[at:] if at >= 0 else b""
    if len(page) < 27:
        return True
    # The flags are at byte 5, the number of segments at byte 26, their lengths after it.
    n_segments = page[26]
    whole = len(page) >= 27 + n_segments + sum(page[27 : 27 + n_segments])
    return not (whole and page[5] & 0x04)


def _ts_is_cut_off(file: BinaryIO, size: int) -> bool:
    """Return True if a transport stream ends inside a TS packet or inside an audio packet."""
    # A recorded broadcast may begin and end anywhere. Only a stream that a program wrote (with
    # tables numbered from 0) must end with a complete packet.
    if all(size % length for length in (188, 192, 204)):
        return True
    file.seek(0)
    first = file.read(188)
    pid = int.from_bytes(first[1:3], "big") & 0x1FFF
    if size % 188 or first[:1] != b"\x47" or pid not in (0x00, 0x11) or first[3] & 0x0F:
        return False
    file.seek(max(size - (_TS_TAIL // 188) * 188, 0))
    tail = file.read()
    remaining: dict[int, int] = {}
    open_ended: set[int] = set()
    payload = b""
    for at in range(0, len(tail), 188):
        packet = tail[at : at + 188]
        pid = int.from_bytes(packet[1:3], "big") & 0x1FFF
        payload = packet[4 + (1 + packet[4] if packet[3] & 0x20 else 0) :]
        if packet[1] & 0x40 and payload.startswith(b"\0\0\1"):
            # Length 0 means that the packet lasts until the next packet (ISO/IEC 13818-1, 2.4.3.7).
            length = int.from_bytes(payload[4:6], "big")
            remaining[pid] = 6 + length if length else 0
            open_ended.add(pid) if not length else open_ended.discard(pid)
        if remaining.get(pid):
            remaining[pid] -= min(len(payload), remaining[pid])
    # A complete video packet almost never fills its last TS packet without stuffing.
    return any(remaining.values()) or (pid in open_ended and len(payload) == 184)


def _raw_is_cut_off(file: BinaryIO, size: int, format_name: str) -> bool:
    """Return True if a raw stream of `size` bytes begins with a frame and ends inside one."""
    length_of = _LENGTHS.get(format_name)
    file.seek(0)
    if length_of is None or not length_of(file.read(_RAW_HEADER)):
        return False
    file.seek(max(size - _RAW_TAIL, 0))
    tail = file.read()
    for start in range(len(tail) - _RAW_HEADER):
        at, n_frames = start, 0
        while length := length_of(tail[at : at + _RAW_HEADER]):
            at, n_frames = at + length, n_frames + 1
        # A tag, or the beginning of a frame's header, may follow the last complete frame.
        certain = n_frames >= _RAW_FRAMES
        if at >= len(tail) - _RAW_HEADER and (certain or start == 0 == size - len(tail)):
            return at != len(tail)
        if certain:
            return False
    return False


def _adts_length(header: bytes) -> int:
    """Return the size of an AAC frame in bytes, 0 if it is not one (ISO/IEC 13818-7, 6.2)."""
    if len(header) < _RAW_HEADER or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return 0
    length = (header[3] & 0x03) << 11 | header[4] << 3 | header[5] >> 5
    return length if length >= _RAW_HEADER else 0


def _ac3_length(header: bytes) -> int:
    """Return the size of an AC-3 or E-AC-3 frame (ETSI TS 102 366, 4.4.1, E.1.3), or 0."""
    if len(header) < _RAW_HEADER or header[:2] != b"\x0b\x77":
        return 0
    if header[5] >> 3 > 10:
        return 2 * (((header[2] & 0x07) << 8 | header[3]) + 1)
    rate, code = header[4] >> 6, header[4] & 0x3F
    if rate == 3 or code >= 2 * len(_AC3_RATES):
        return 0
    sr = (48_000, 44_100, 32_000)[rate]
    # 1,536 samples per frame, in words of 16 bits; at 44.1 kHz some frames are a word longer.
    words = _AC3_RATES[code // 2] * 96_000 // sr
    return 2 * (words + (code & 1 if sr == 44_100 else 0))


_LENGTHS: Mapping[str, Callable[[bytes], int]] = {
    "aac": _adts_length,
    "ac3": _ac3_length,
    "eac3": _ac3_length,
}


def mp3_seconds(path: Path) -> float:
    """Return the length that an MP3 file states, without the parts that were joined to it; or 0."""
    with path.open("rb") as file:
        # Skip ID3 tags, which may hold pictures of any size (ID3v2.4, 3.1).
        while (tag := file.read(10)).startswith(b"ID3"):
            size = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(tag[:5:-1]))
            file.seek(size + (10 if tag[5] & 0x10 else 0), 1)
        found = _MP3_LENGTH.search(tag + file.read(_HEAD))
    if found is None:
        return 0.0
    # Versions 2 and 2.5 have half as many samples per frame, and 1/2 and 1/4 of the rates.
    halves = {3: 0, 2: 1, 0: 2}[found[1][0] >> 3 & 3]
    sr = _MP3_RATES[found[2][0] >> 2 & 3] / 2**halves
    return int.from_bytes(found[3] or found[4], "big") * (1152 if halves == 0 else 576) / sr

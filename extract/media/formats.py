"""Which formats are read: those that are one file of sound or video, and of no other file."""

from __future__ import annotations

import re
from pathlib import Path

from mvemo.extract.errors import BadMedia

# FFmpeg's names. Playlists, patterns of pictures, devices and descriptions of streams are not
# among them: they open other files and addresses, or wait for more.
_READ = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpeg,mpegts,mxf,dv,nut,rm,wtv,nsv,ivf,gif,"
    "mp3,aac,ac3,eac3,flac,ogg,wav,w64,aiff,au,caf,amr,ape,wv,tta,tak,dts,dtshd,mlp,truehd,mpc,"
    "mpc8,dsf,iff,voc,xwma,shn,spdif,qoa"
)
# Video without a container has no time stamps; these are named, so that the reason can be told.
_RAW = "h264,hevc,vvc,m4v,mpegvideo,mjpeg,vc1,av1,obu,dirac,dnxhd,cavsvideo,h261,h263,evc"
FORMAT_WHITELIST = f"{_READ},{_RAW}"

_HEAD = 1 << 16
# The index of a QuickTime file is read to this size.
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
# ContentEncoding with a ContentEncryption in it (RFC 9559, 5.1.4.1.31).
_ENCRYPTED_MATROSKA = re.compile(rb"\x62\x40.{1,24}?\x50\x35", re.DOTALL)
# Content Encryption Object, and the extended one (Advanced Systems Format, 3.14 and 3.15).
_ENCRYPTED_ASF = re.compile(
    rb"\xfb\xb3\x11\x22\x23\xbd\xd2\x11\xb4\xb7\x00\xa0\xc9\x55\xfc\x6e"
    rb"|\x14\xe6\x8a\x29\x22\x26\x17\x4c\xb9\x35\xda\xe0\x7e\xe9\x28\x9c"
)


def check_head(path: Path) -> None:
    """Refuse what a file's beginning shows not to be sound or video that can be read.

    Raises
    ------
    BadMedia
        A picture, a list of other files, or an encrypted file.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if _PICTURE.match(head):
        raise BadMedia(f"{path}: is a picture, not sound or video")
    if _LIST.match(head):
        raise BadMedia(f"{path}: names other files or addresses; a media file is one file")
    encrypted = (
        (head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") and _mov_is_encrypted(path))
        or (head.startswith(b"\x1aE\xdf\xa3") and _ENCRYPTED_MATROSKA.search(head))
        or (head.startswith(b"\x30\x26\xb2\x75") and _ENCRYPTED_ASF.search(head))
    )
    if encrypted:
        raise BadMedia(f"{path}: is encrypted")


def check_format(path: Path, names: str) -> None:
    """Refuse video without a container.

    Parameters
    ----------
    names
        Of the format, as FFmpeg gives them.

    Raises
    ------
    BadMedia
        It is a raw stream.
    """
    if names in _RAW.split(","):
        raise BadMedia(
            f"{path}: is a raw {names} stream without time stamps: put it into a container, "
            "as ffmpeg -i FILE -c copy FILE.mkv"
        )


def _mov_is_encrypted(path: Path) -> bool:
    """Whether the index (``moov``) of a QuickTime file describes an encrypted track."""
    with path.open("rb") as file:
        size_of_file = file.seek(0, 2)
        at = 0
        while at + 16 <= size_of_file:
            file.seek(at)
            header = file.read(16)
            size, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if size == 1:
                size = int.from_bytes(header[8:16], "big")
            elif size == 0:
                size = size_of_file - at
            if kind == b"moov":
                file.seek(at)
                return _ENCRYPTED_MOV.search(file.read(min(size, _MAX_INDEX))) is not None
            if size < 8:
                return False
            at += size
    return False


def is_cut_off(path: Path, names: str) -> bool:
    """Whether the end of a file that does not state its length shows that more was to come.

    Ogg marks its last page, and a transport stream has whole packets.

    Parameters
    ----------
    names
        Of the format, as FFmpeg gives them.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if names == "mpegts":
            return all(size % packet for packet in (188, 192, 204))
        if names != "ogg":
            return False
        file.seek(max(size - 2 * _HEAD, 0))
        tail = file.read()
    at = tail.rfind(b"OggS")
    page = tail[at:] if at >= 0 else b""
    if len(page) < 27:
        return True
    # Page header: flags at 5, number of segments at 26, their lengths behind it (RFC 3533, 6).
    n_segments = page[26]
    whole = len(page) >= 27 + n_segments + sum(page[27 : 27 + n_segments])
    return not (whole and page[5] & 0x04)

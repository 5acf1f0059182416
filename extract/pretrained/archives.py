"""Reader of single members of wheels and source archives, with limits on their sizes.

Nothing is unpacked to disk, so the name of a member is never used as a path.
"""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Iterable

from mvemo.extract.errors import BadWeights

# Maximum number of inflated bytes of a source archive, which is read from its start to the
# last requested member.
MOST_INFLATED = 1 << 30


def read_members(content: bytes, names: Iterable[str], most_bytes: int) -> dict[str, bytes]:
    """Return members of an archive by name, each of at most `most_bytes`."""
    names = list(names)
    read = _read_zip if content.startswith(b"PK") else _read_tar
    try:
        found = read(content, names, most_bytes)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, OSError, EOFError) as error:
        raise BadWeights(f"damaged or incomplete: {error}") from error
    except (NotImplementedError, RuntimeError, ValueError) as error:
        # zipfile raises these for unknown compressions and encryptions.
        if isinstance(error, BadWeights):
            raise
        raise BadWeights(f"cannot be unpacked: {error}") from error
    for name in names:
        if name not in found:
            raise BadWeights(f"has no member {name}")
    return {name: found[name] for name in names}


def _read_zip(content: bytes, names: list[str], most_bytes: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for info in archive.infolist():
            if info.filename not in names:
                continue
            if info.filename in found:
                raise BadWeights(f"has two members {info.filename}")
            if info.flag_bits & 1:
                raise BadWeights(f"member {info.filename} is encrypted")
            _check_size(info.filename, info.file_size, most_bytes)
            with archive.open(info) as member:
                # Reading one byte more than declared shows whether the size is wrong.
                found[info.filename] = member.read(info.file_size + 1)
            if len(found[info.filename]) != info.file_size:
                raise BadWeights(f"member {info.filename} is not of the size it announces")
    return found


def _read_tar(content: bytes, names: list[str], most_bytes: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    inflated = 0
    with tarfile.open(fileobj=io.BytesIO(content), mode="r|gz") as archive:
        for info in archive:
            inflated += info.size
            if inflated > MOST_INFLATED:
                raise BadWeights(f"holds more than {MOST_INFLATED >> 30} GiB")
            if info.name not in names:
                continue
            if info.name in found:
                raise BadWeights(f"has two members {info.name}")
            if not info.isreg() or info.issparse():
                raise BadWeights(f"member {info.name} is no plain file")
            _check_size(info.name, info.size, most_bytes)
            member = archive.extractfile(info)
            found[info.name] = b"" if member is None else member.read(info.size)
            if len(found[info.name]) != info.size:
                raise BadWeights(f"member {info.name} is incomplete")
    return found


def _check_size(name: str, size: int, most_bytes: int) -> None:
    if not 0 <= size <= most_bytes:
        raise BadWeights(f"member {name} has {size} bytes, at most {most_bytes} are expected")

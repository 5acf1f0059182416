"""Reader of texts in HDF5 files that does not use HDF5.

A data set of texts holds a reference for each text: its length, and the address of a global heap
collection with the number of an object in it. HDF5 loops endlessly, and cannot be interrupted, on
a damaged collection with an object of size 0. Therefore collections are parsed here.

The formats are those of the HDF5 File Format Specification, sections III.E (Global Heap) and VIII
(References to variable-length data).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Reference to a text: its length, address of its collection, number of its object.
REFERENCE = np.dtype([("length", "<u4"), ("place", "<u8"), ("number", "<u4")])
_COLLECTION = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<H6xQ")

ReadAt = Callable[[int, int], bytes]


def read_texts(references: NDArray[np.void], name: str, most: int, read_at: ReadAt) -> list[str]:
    """Return the UTF-8 texts that references point to, in their order.

    `most` limits the total bytes, because many references may point to one long text. `read_at`
    returns the bytes at an address, fewer at the end of the file. Damage raises ValueError.
    """
    total = int(references["length"].sum(dtype=np.int64))
    if total > most:
        raise ValueError(f"{name} announces texts of {total:,} bytes, more than the file has")
    collections: dict[int, tuple[bytes, Mapping[int, tuple[int, int]]]] = {}
    texts = []
    last, content = -1, b""
    objects: Mapping[int, tuple[int, int]] = {}
    for length, place, number in references.ravel().tolist():
        if not length:
            texts.append("")
            continue
        if place != last:
            if place not in collections:
                content = _read_collection(place, name, most, read_at)
                collections[place] = content, _objects_of(content)
            last, (content, objects) = place, collections[place]
        start, end = objects.get(number, (0, 0))
        if start + length > end:
            raise ValueError(f"the texts of {name} are damaged")
        texts.append(content[start : start + length].decode())
    return texts


def _read_collection(place: int, name: str, most: int, read_at: ReadAt) -> bytes:
    head = read_at(place, _COLLECTION.size)
    if len(head) == _COLLECTION.size:
        mark, version, size = _COLLECTION.unpack(head)
        if mark == b"GCOL" and version == 1 and _COLLECTION.size <= size <= most:
            content = read_at(place, size)
            if len(content) == size:
                return content
    raise ValueError(f"the texts of {name} are damaged")


# Data sets share collections, so parsed ones are cached.
@lru_cache(maxsize=8)
def _objects_of(content: bytes) -> Mapping[int, tuple[int, int]]:
    """Map the number of each object in a collection to the start and end of its data.

    A damaged collection gives an empty mapping.
    """
    objects: dict[int, tuple[int, int]] = {}
    start, end = _COLLECTION.size + _OBJECT.size, len(content)
    # At the end, less free space than an object's header may remain.
    while start <= end:
        number, size = _OBJECT.unpack_from(content, start - _OBJECT.size)
        if not number:
            # Object 0 is the free space at the end; its size includes the header.
            return objects if start - _OBJECT.size + size == end else {}
        objects[number] = start, start + size
        start += (size + 7 & ~7) + _OBJECT.size
    return objects if start - _OBJECT.size <= end else {}

"""Texts of HDF5 files, read from where they lie without HDF5.

A data set of texts has a reference for each: its length, and the place and number of an object in
a global heap, collections of such objects. HDF5 does not end where a damaged collection has an
object that is no bytes long, and nothing can interrupt it; so collections are walked here.

The formats are those of the HDF5 File Format Specification, sections III.E (Global Heap) and VIII
(References to variable-length data).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Of one text: its length, and where it lies in the file.
REFERENCE = np.dtype([("length", "<u4"), ("place", "<u8"), ("number", "<u4")])
_COLLECTION = struct.Struct("<4sB3xQ")
_OBJECT = struct.Struct("<H6xQ")

ReadAt = Callable[[int, int], bytes]


def read_texts(references: NDArray[np.void], name: str, most: int, read_at: ReadAt) -> list[str]:
    """The UTF-8 texts that references refer to, in their order."""
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


# Data sets share collections: a cache has some, and hundreds of texts.
@lru_cache(maxsize=8)
def _objects_of(content: bytes) -> Mapping[int, tuple[int, int]]:
    """Number of each object of a collection to the start and end of its data.

    None at all where the collection is damaged.
    """
    objects: dict[int, tuple[int, int]] = {}
    start, end = _COLLECTION.size + _OBJECT.size, len(content)
    # Less than an object's head is left free at the end.
    while start <= end:
        number, size = _OBJECT.unpack_from(content, start - _OBJECT.size)
        if not number:
            # Free space, whose size has its head in it, is the last.
            return objects if start - _OBJECT.size + size == end else {}
        objects[number] = start, start + size
        start += (size + 7 & ~7) + _OBJECT.size
    return objects if start - _OBJECT.size <= end else {}

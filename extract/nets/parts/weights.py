"""Pretrained weight files: read safely, recognised by SHA-256, loaded tensor by tensor.

The format of a file is recognised by its first bytes, never by its name.

Only torch's ``weights_only`` reader unpickles anything. It runs no code of a file, but decompresses
any amount of data, and returns any object that the file describes: dictionaries that contain
themselves, or tensors that repeat one number billions of times. Such files are refused here.
"""

import pickletools
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvemo.cache.spec import content_digest
from mvemo.cache.untrusted import data_set, data_set_names
from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.registry import NETS, broken_nets
from mvemo.manifests.array_files import DAMAGED, NpzFile, check_inflated, most_bytes, read_npy
from mvemo.manifests.errors import MissingFile
from mvemo.manifests.files import shown

UNKNOWN = "none of the published files that were tested"

Tensors = dict[str, Tensor]

# Keys under which training scripts store the tensors of a checkpoint.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "weights", "model", "net")
# Maximum depth of nested dictionaries, and maximum number of entries in all of them.
_MOST_DEPTH = 16
_MOST_ENTRIES = 100_000


@dataclass(frozen=True)
class WeightReport:
    """Result of `load_weights`: names of loaded, missing, unexpected and mismatched tensors."""

    path: Path
    sha256: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()

    @property
    def known_as(self) -> str:
        """Return the description of the published file and its net, or an empty string."""
        return published_as(self.sha256)

    @property
    def complete(self) -> bool:
        """Return True if every tensor of the net except the classifier's came from the file."""
        rest = (*self.missing, *self.mismatched)
        return all(name.startswith("classifier.") for name in rest)

    def text(self) -> str:
        """Return the report for the terminal, with the names of all tensors that did not match."""
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        lines = [
            str(self.path),
            f"  sha256 {self.sha256}",
            f"  known as {self.known_as or UNKNOWN}",
            f"  {len(self.loaded)} of the net's {total} tensors were loaded",
        ]
        for title, names in (
            ("are not in the file and keep their initial values", self.missing),
            ("have another shape and keep their initial values", self.mismatched),
            ("of the file are not used by the net", self.unexpected),
        ):
            if names:
                lines.append(f"  {len(names)} {title}:")
                lines += [f"    {name}" for name in names]
        return "\n".join(lines)


def load_weights(net: Net, path: str | Path) -> WeightReport:
    """Load a pretrained file into a net, in a published layout or as its ``state_dict``.

    Parameters
    ----------
    net
        Net to change in place; it is unchanged if this function raises.
    path
        Torch checkpoint, safetensors, ``.npz``, ``.npy`` or HDF5.

    Raises
    ------
    MissingFile
        The file does not exist.
    BadWeights
        The file cannot be read, holds values that are not finite, or none of its tensors fits
        learnt weights of the net before its classifier.
    """
    tensors, sha256 = read_weight_file(path)
    for name, value in tensors.items():
        if not value.isfinite().all():
            raise BadWeights(f"{path}: tensor {name} holds values that are not finite")
    before = {name: value.detach().clone() for name, value in net.state_dict().items()}
    try:
        report = load_tensors(net, tensors, Path(path), sha256)
        # The classifier, fixed front ends and biases may match by their size only, which does not
        # show that the file is for this net.
        learnt = {name for name, value in net.named_parameters() if value.ndim > 1}
        if not any(name in learnt and not name.startswith("classifier.") for name in report.loaded):
            raise BadWeights(_nothing_fits(net, tensors, report))
    except BadWeights as error:
        net.load_state_dict(before)
        raise BadWeights(f"{path}: {error}") from error
    return report


def _nothing_fits(net: Net, tensors: Tensors, report: WeightReport) -> str:
    def some(names: Iterable[str]) -> str:
        names = list(names)
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    if report.mismatched:
        return f"no tensor has the shape that this {net.name} needs: {some(report.mismatched)}"
    return (
        f"no tensor fits {net.name}: the file has {some(tensors)}, but the net has "
        f"{some(net.state_dict())}"
    )


def load_tensors(
    net: Net, tensors: Mapping[str, Tensor], path: Path = Path(), sha256: str = ""
) -> WeightReport:
    """Copy those tensors of a file into the net whose name and shape match."""
    state = net.state_dict()
    places = net.from_published(tensors) or {name: (name, tensors[name]) for name in tensors}
    places = {source: place for source, place in places.items() if place[0] in state}
    mapped = dict(places.values())
    loaded = [name for name in state if name in mapped and mapped[name].shape == state[name].shape]
    for name in loaded:
        state[name].copy_(mapped[name])
    mismatched = [
        f"{name}: file {tuple(mapped[name].shape)}, net {tuple(value.shape)}"
        for name, value in state.items()
        if name in mapped and name not in loaded
    ]
    # Only torch's own layouts have a counter of batches.
    missing = [
        name
        for name in state
        if name not in mapped and not name.startswith(net.fixed)
        if not name.endswith("num_batches_tracked")
    ]
    unexpected = [name for name in tensors if name not in places]
    return WeightReport(path, sha256, *map(tuple, (loaded, missing, unexpected, mismatched)))


def read_weight_file(path: str | Path) -> tuple[Tensors, str]:
    """Return the tensors of a weight file by name, on the CPU, and the file's SHA-256."""
    path = Path(path)
    layout = file_layout(path)
    try:
        sha256 = content_digest(path)
        if layout == "HDF5":
            tensors = _read_hdf5(path)
        elif layout == "NumPy archive":
            with NpzFile(path) as archive:
                tensors = {name: _tensor(name, array) for name, array in archive.items()}
        elif layout == "NumPy array":
            tensors = {path.stem: _tensor(path.stem, read_npy(path))}
        elif layout == "safetensors":
            try:
                from safetensors.torch import load_file
            except ImportError as error:
                advice = "run pip install safetensors"
                raise BadWeights(f"needs the package safetensors: {advice}") from error
            tensors = dict(load_file(path))
        else:
            tensors = _read_torch(path)
    except BadWeights as error:
        raise BadWeights(f"{path}: {error}") from error
    except Exception as error:
        # The readers raise many types of error for a damaged file. torch's message may recommend
        # loading the file unsafely, so it is not shown.
        if "weights_only" in str(error) or "Weights only" in str(error):
            raise BadWeights(
                f"{path}: contains Python objects other than tensors, or is damaged; such files "
                "are not opened: save only the net's state_dict()"
            ) from error
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BadWeights(f"{path}: damaged or incomplete {layout}: {lines[0][:200]}") from error
    if not tensors:
        raise BadWeights(f"{path}: holds no tensors")
    return tensors, sha256


def published_as(sha256: str) -> str:
    """Return the description of a published file and its net, or an empty string."""
    for name in NETS.keys() - broken_nets().keys():
        if sha256 in NETS[name].known_files:
            return f"{NETS[name].known_files[sha256]}: {name}"
    return ""


def file_layout(path: Path) -> str:
    """Return the format of a file from its first bytes; raise `BadWeights` if it is unknown."""
    if not path.exists():
        raise MissingFile(f"{path}: no such weight file")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a pipe, socket or device"
        raise BadWeights(f"{path}: is {what}, not a weight file")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise BadWeights(f"{path}: cannot be read: {error.strerror}") from error
    accepted = "expected a torch checkpoint, safetensors, NumPy .npz or .npy, or HDF5"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "HDF5"
    if head.startswith(b"\x93NUMPY"):
        return "NumPy array"
    # The length of the header in 8 bytes, and the header, which is JSON.
    if head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return "safetensors"
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except DAMAGED as error:
            raise BadWeights(f"{path}: damaged or incomplete: {error}") from error
        if any(name.endswith("data.pkl") for name in names):
            return "torch checkpoint"
        if names and all(name.endswith(".npy") for name in names):
            return "NumPy archive"
        raise BadWeights(f"{path}: is a zip archive without tensors: {accepted}")
    # Checkpoints of torch before 1.6 are pickles, and those before 0.2 tar archives.
    if head.startswith(b"\x80") or head[257:262] == b"ustar":
        return "torch checkpoint"
    what = "unknown format" if head else "is empty"
    if head and all(byte in b"\t\n\r\f" or byte >= 32 for byte in head) and b"\x7f" not in head:
        what = "is text, not weights"
    raise BadWeights(f"{path}: {what}: {accepted}")


def _read_hdf5(path: Path) -> Tensors:
    import h5py

    size = path.stat().st_size
    with h5py.File(path, "r") as file:
        items = {name: data_set(file, name, size) for name in data_set_names(file)}
        items = {name: item for name, item in items.items() if item.dtype.kind in "fiub"}
        _check_total(sum(item.nbytes for item in items.values()), size)
        return {name: _tensor(name, item[()]) for name, item in items.items()}


def _read_torch(path: Path) -> Tensors:
    _check_program(path)
    saved: Any = torch.load(path, map_location="cpu", weights_only=True)
    for _ in range(_MOST_DEPTH):
        inside = (
            [saved[key] for key in _WRAPPERS if key in saved] if isinstance(saved, dict) else []
        )
        inner = next((value for value in inside if isinstance(value, dict)), None)
        if inner is None:
            break
        saved = inner
    if isinstance(saved, Tensor):
        saved = {path.stem: saved}
    if not isinstance(saved, dict):
        raise BadWeights(f"holds a {type(saved).__name__}, not a dictionary of tensors")
    tensors: Tensors = {}
    total = 0
    for count, (name, value) in enumerate(_entries(saved)):
        if count == _MOST_ENTRIES:
            raise BadWeights(f"has more than {_MOST_ENTRIES:,} entries, more than any net has")
        if not isinstance(value, Tensor):
            continue
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise BadWeights(f"tensor {name} must be dense, not quantised, and have values")
        # A tensor may have more values than it stores: a stride of 0 repeats a value.
        total += value.numel() * value.element_size()
        _check_total(total, path.stat().st_size)
        tensors[name] = value.detach()
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _entries(
    tree: Mapping[Any, Any], prefix: str = "", depth: int = 1
) -> Iterator[tuple[str, Any]]:
    """Yield all entries of nested dictionaries, with joined names."""
    if depth > _MOST_DEPTH:
        raise BadWeights(f"{shown(prefix)} is nested more than {_MOST_DEPTH} levels deep")
    for key, value in tree.items():
        yield f"{prefix}{key}", value
        if isinstance(value, dict):
            yield from _entries(value, f"{prefix}{key}.", depth + 1)


def _tensor(name: str, array: NDArray[Any]) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise BadWeights(f"tensor {name} has type {array.dtype}, which is not numeric")
    # torch needs the byte order of the machine.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


def _check_total(n_bytes: int, file_size: int) -> None:
    if n_bytes > most_bytes(file_size):
        raise BadWeights(
            f"its tensors would take {n_bytes:,} bytes, but the limit for a file of this size is "
            f"{most_bytes(file_size):,}"
        )


def _check_program(path: Path) -> None:
    """Refuse archives that decompress to too much data, and pickles that allocate any memory."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            check_inflated(archive, most_bytes(path.stat().st_size))
            pickles = [n for n in archive.namelist() if n.endswith("data.pkl")]
            programs = [archive.read(name) for name in pickles]
    else:
        programs = [path.read_bytes()]
    arguments: list[str] = []
    for program in programs:
        # A program that ends early is an old file of several pickles, or damaged: torch reports it.
        with suppress(ValueError):
            for _, argument, _ in pickletools.genops(program):
                if isinstance(argument, str):
                    arguments.append(argument)
    if any(argument.rpartition(" ")[2] == "bytearray" for argument in arguments):
        raise BadWeights("allocates a bytearray, which is refused in weight files")

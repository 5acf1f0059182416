"""Pretrained weight files: read safely, recognised by SHA-256, loaded tensor by tensor.

Nothing is ever unpickled but by torch's ``weights_only`` reader. A file's format is told
by its first bytes, never by its name. What of a file fitted a net, and what did not, is
in the `WeightReport`.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mvemo.cache.storage.plain import PlainDataSets
from mvemo.extract.errors import BadWeights, MissingFile
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.registry import NETS
from mvemo.extract.nets.parts.torch_file import Tensors, numbers, read_torch
from mvemo.manifests.arrays import DAMAGED, NpzFile, most_bytes, read_npy

UNKNOWN = "nothing: not a published file tried here"


@dataclass(frozen=True)
class Match:
    """How the tensors of a file met those of a net."""

    loaded: tuple[str, ...]  # the net's tensors that now hold the file's values
    # The net's tensors that are not in the file, but for those that are fixed; they keep
    # their values.
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()  # the file's tensors that the net has no use for
    # Tensors of different shape, as ``NAME: file (…), net (…)``; not loaded.
    mismatched: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightReport:
    """What `load_weights` did: the file, and the fields of `Match`.

    Parameters
    ----------
    path, sha256
        Of the file.
    """

    path: Path
    sha256: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()

    @property
    def known_as(self) -> str:
        """The published file that it is, and its net; empty where no net knows it."""
        return published_as(self.sha256)

    @property
    def complete(self) -> bool:
        """Whether every tensor of the net but the classifier's came from the file."""
        rest = (*self.missing, *self.mismatched)
        return all(name.startswith("classifier.") for name in rest)

    def text(self) -> str:
        """For the terminal: every tensor that did not match, by name."""
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        lines = [
            f"{self.path}",
            f"  sha256 {self.sha256}",
            f"  known as {self.known_as or UNKNOWN}",
            f"  {len(self.loaded)} of the net's {total} tensors loaded",
        ]
        for title, names in (
            ("not in the file, left as they were", self.missing),
            ("of another shape, left as they were", self.mismatched),
            ("in the file, but of no use to the net", self.unexpected),
        ):
            if names:
                lines.append(f"  {len(names)} {title}:")
                lines += [f"    {name}" for name in names]
        return "\n".join(lines)


def load_weights(net: Net, path: str | Path) -> WeightReport:
    """Load a pretrained file into a net.

    A net with a method ``load_pretrained(tensors) -> Match`` maps published layouts
    itself; any other accepts the layout of its own ``state_dict`` alone.

    Parameters
    ----------
    net
        Changed in place; unchanged where this raises.
    path
        Of the file, in any format that `read_weight_file` reads.

    Raises
    ------
    MissingFile
        There is no such file.
    BadWeights
        The file cannot be read, holds values that are not finite, or not one of its
        tensors fits learnt weights of the net before its classifier.
    """
    path = Path(path)
    tensors, sha256 = read_weight_file(path)
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BadWeights(f"{path}: tensor {name} holds values that are not finite")
    before = {name: value.detach().clone() for name, value in net.state_dict().items()}
    convert = getattr(net, "load_pretrained", None)
    try:
        match: Match = load_own(net, tensors) if convert is None else convert(tensors)
        # The outputs' layer, fixed front ends and biases fit by their size alone: they prove
        # nothing.
        learnt = {name for name, value in net.named_parameters() if value.ndim > 1}
        if not any(name in learnt and not name.startswith("classifier.") for name in match.loaded):
            raise BadWeights(_nothing_fits(net, tensors, match))
    except BadWeights as error:
        net.load_state_dict(before)
        raise BadWeights(f"{path}: {error}") from error
    return WeightReport(
        path=path,
        sha256=sha256,
        loaded=match.loaded,
        missing=match.missing,
        unexpected=match.unexpected,
        mismatched=match.mismatched,
    )


def _nothing_fits(net: Net, tensors: Tensors, match: Match) -> str:
    def some(names: Iterable[str]) -> str:
        names = list(names)
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    if match.mismatched:
        return f"no tensor has the shape that this {net.name} needs: {some(match.mismatched)}"
    return (
        f"no tensor fits {net.name}; the file has {some(tensors)}, the net {some(net.state_dict())}"
    )


def load_own(net: Net, tensors: Mapping[str, Tensor]) -> Match:
    """Load tensors that are named as in the net's own ``state_dict``."""
    state = net.state_dict()
    return load_mapped(
        net,
        {name: value for name, value in tensors.items() if name in state},
        unexpected=[name for name in tensors if name not in state],
    )


def load_mapped(net: Net, mapped: Mapping[str, Tensor], *, unexpected: Iterable[str] = ()) -> Match:
    """Copy tensors of the net's own names into it, those of equal shape."""
    state = net.state_dict()
    loaded: list[str] = []
    mismatched: list[str] = []
    missing: list[str] = []
    with torch.no_grad():
        for name, target in state.items():
            if name not in mapped:
                # Counts batches seen; no published layout but torch's own has it.
                counted = name.endswith("num_batches_tracked")
                if not (counted or name.startswith(net.fixed)):
                    missing.append(name)
            elif mapped[name].shape != target.shape:
                shapes = f"file {tuple(mapped[name].shape)}, net {tuple(target.shape)}"
                mismatched.append(f"{name}: {shapes}")
            else:
                target.copy_(mapped[name])
                loaded.append(name)
    return Match(tuple(loaded), tuple(missing), tuple(unexpected), tuple(mismatched))


def read_weight_file(path: str | Path) -> tuple[Tensors, str]:
    """Read all tensors of a weight file.

    Torch checkpoints (zip or older), NumPy ``.npz`` and ``.npy``, and HDF5 are read.
    Wrappers such as ``state_dict`` and the prefix ``module.`` of data-parallel training
    are taken off; nested names are joined by a dot (torch) or a slash (HDF5).
    """
    path = Path(path)
    if not path.exists():
        raise MissingFile(f"{path}: no such weight file")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a pipe, socket or device"
        raise BadWeights(f"{path}: is {what}, not a weight file")
    try:
        sha256 = _sha256(path)
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise BadWeights(f"{path}: cannot be read: {error.strerror}") from error
    layout = _layout(path, head)
    try:
        if layout == "HDF5":
            tensors = _read_hdf5(path)
        elif layout == "NumPy archive":
            with NpzFile(path) as archive:
                tensors = {name: numbers(name, array) for name, array in archive.items()}
        elif layout == "NumPy array":
            tensors = {path.stem: numbers(path.stem, read_npy(path))}
        else:
            tensors = read_torch(path)
    except BadWeights as error:
        raise BadWeights(f"{path}: {error}") from error
    except Exception as error:
        # The readers raise many kinds for a damaged file, and each means the same here.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        # torch may advise to load a file unsafely; nobody should.
        advice = "weights_only" in str(error) or "Weights only" in str(error)
        what = "nothing that can be read safely" if advice else lines[0][:200]
        raise BadWeights(f"{path}: damaged or incomplete as {layout}: {what}") from error
    if not tensors:
        raise BadWeights(f"{path}: holds no tensors")
    return tensors, sha256


def published_as(sha256: str) -> str:
    """What a published file is, and its net's name; empty where no net knows it.

    Nets are imported for it until one knows the file.
    """
    for name, kind in NETS.items():
        if sha256 in kind.known_files:
            return f"{kind.known_files[sha256]}: {name}"
    return ""


def describe_file(path: str | Path) -> str:
    """Format, SHA-256, known origin and all tensors of a weight file, for the terminal."""
    tensors, sha256 = read_weight_file(path)
    n_numbers = sum(value.numel() for value in tensors.values())
    lines = [
        f"{path}: {file_layout(path)}, {len(tensors)} tensors, {n_numbers:,} numbers",
        f"sha256 {sha256}",
        f"known as {published_as(sha256) or UNKNOWN}",
    ]
    width = max(len(name) for name in tensors)
    for name, value in tensors.items():
        dtype = str(value.dtype).removeprefix("torch.")
        shape = " x ".join(map(str, value.shape)) or "scalar"
        lines.append(f"  {name:<{width}}  {dtype}  {shape}")
    return "\n".join(lines)


def file_layout(path: str | Path) -> str:
    """``torch checkpoint``, ``NumPy archive``, ``NumPy array`` or ``HDF5``."""
    path = Path(path)
    if not path.is_file():
        raise MissingFile(f"{path}: no such weight file")
    with path.open("rb") as file:
        return _layout(path, file.read(512))


def _layout(path: Path, head: bytes) -> str:
    """The format, from the file's first bytes."""
    accepted = "a torch checkpoint, NumPy .npz or .npy, or HDF5 is needed"
    if not head:
        raise BadWeights(f"{path}: is empty: {accepted}")
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return "HDF5"
    if head.startswith(b"\x93NUMPY"):
        return "NumPy array"
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, *DAMAGED, ValueError) as error:
            raise BadWeights(f"{path}: damaged or incomplete: {error}") from error
        if any(name.endswith("data.pkl") for name in names):
            return "torch checkpoint"
        if names and all(name.endswith(".npy") for name in names):
            return "NumPy archive"
        raise BadWeights(f"{path}: is a zip archive without tensors: {accepted}")
    # Checkpoints of torch before 1.6 are pickles, and those before 0.2 tar archives.
    if head.startswith(b"\x80") or head[257:262] == b"ustar":
        return "torch checkpoint"
    if all(byte in b"\t\n\r\f" or byte >= 32 for byte in head) and b"\x7f" not in head:
        raise BadWeights(f"{path}: is text, not weights: {accepted}")
    raise BadWeights(f"{path}: is of no known format: {accepted}")


def _sha256(path: Path) -> str:
    state = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def _read_hdf5(path: Path) -> Tensors:
    import h5py

    with h5py.File(path, "r") as file:
        found = PlainDataSets(file, path.stat().st_size)
        total, most = 0, most_bytes(path.stat().st_size)
        tensors: Tensors = {}
        for name in found:
            item = found[name]
            if item.dtype.kind in "fiub":
                total += item.nbytes
                if total > most:
                    raise BadWeights(
                        f"its data sets would become {total:,} bytes, at most {most:,} are read "
                        "of a file of its size"
                    )
                tensors[name] = numbers(name, item[()])
    return tensors

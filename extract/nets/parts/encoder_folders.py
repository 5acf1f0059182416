"""Names of nets of local folders in the layout of Hugging Face, such as ``hf:FOLDER@4+8``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvemo.manifests.errors import BadOption

if TYPE_CHECKING:
    from mvemo.extract.nets.parts.base import Net

PREFIX = "hf:"
# Layer number that means the encoder's output.
OUTPUT = -1
_LAYERS = re.compile(r"@(\d+(?:\+\d+)*)$")


class EncoderFolder(str):
    """Name of the net of a local folder in the layout of Hugging Face, with the folder's path.

    It is the folder's name in letters, digits, ``_`` and ``-``, with ``-layer8`` for a layer.
    """

    path: Path
    # Hidden state used as the embedding: 0 for the input of the first layer, 1 for its output,
    # `OUTPUT` for the encoder's output.
    layer: int
    # Class of the net; the registry reads the folder on first use.
    net: type[Net] | None = None

    def __new__(cls, name: str, path: Path, layer: int = OUTPUT) -> EncoderFolder:
        self = super().__new__(cls, name)
        self.path, self.layer = path, layer
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return EncoderFolder, (str(self), self.path, self.layer)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, EncoderFolder):
            return self.__reduce__() == other.__reduce__()
        return str(self) == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def parse_entry(entry: str) -> tuple[EncoderFolder, ...]:
    """Return the nets of an entry of ``--nets`` that begins with `PREFIX`, one per layer."""
    text = entry.removeprefix(PREFIX)
    found = _LAYERS.search(text)
    path = Path(_LAYERS.sub("", text)).expanduser()
    name = re.sub(r"[^A-Za-z0-9_-]", "_", path.name or path.absolute().name)
    if not text or not name.strip("_-"):
        raise BadOption(f"{entry!r}: write it as {PREFIX}FOLDER or {PREFIX}FOLDER@LAYER+LAYER")
    if found is None:
        return (EncoderFolder(name, path),)
    layers = [int(layer) for layer in found[1].split("+")]
    if len(set(layers)) < len(layers):
        raise BadOption(f"{entry!r}: duplicate layer")
    return tuple(EncoderFolder(f"{name}-layer{layer}", path, layer) for layer in layers)

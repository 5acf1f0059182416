"""Names of encoders that are not part of mvemo: folders, files, and models of libraries.

The entries of ``--nets`` are ``hf:FOLDER`` (a folder in the layout of Hugging Face), ``onnx:FILE``,
``hear:MODULE`` (a module with the functions of HEAR 2021), ``timm:NAME`` and ``torchaudio:BUNDLE``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from mvemo.manifests.errors import BadOption

if TYPE_CHECKING:
    from mvemo.extract.nets.parts.base import Net

# Sources of encoders, and how an entry is written.
SOURCES = {
    "hf": "hf:FOLDER, hf:FOLDER@LAYER+LAYER or hf:FOLDER@all",
    "hear": "hear:MODULE or hear:MODULE@FILE",
    "onnx": "onnx:FILE.onnx",
    "timm": "timm:NAME",
    "torchaudio": "torchaudio:BUNDLE, torchaudio:BUNDLE@LAYER+LAYER or torchaudio:BUNDLE@all",
}
# Layer number that means the encoder's output, and one that means all layers.
OUTPUT, ALL = -1, -2
_LAYERS = re.compile(r"@(all|\d+(?:\+\d+)*)$")
_SUFFIX = re.compile(r"-layer(s|\d+)$")
Value = TypeVar("Value")


class _Facts(NamedTuple):
    source: str  # key of `SOURCES`
    place: str  # folder, file, module, or name in the library
    # Hidden state used as the embedding: 0 for the input of the first layer, 1 for its output,
    # `OUTPUT` for the encoder's output, `ALL` for all hidden states one after the other.
    layer: int = OUTPUT
    file: str = ""  # file that the function `load_model` of HEAR 2021 opens


class EncoderName(str):
    """Name of the net of an encoder that is not part of mvemo, with the place of the encoder.

    It is the name of the folder, file or model in letters, digits, ``_`` and ``-``, followed by
    ``-layer8`` for a layer, and by ``-layers`` for all layers.
    """

    facts: _Facts
    # Class of the net; the registry makes it on first use.
    net: type[Net] | None = None

    def __new__(cls, name: str, *facts: Any) -> EncoderName:
        self = super().__new__(cls, name)
        self.facts = _Facts(*facts)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return EncoderName, (str(self), *self.facts)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, EncoderName):
            return self.__reduce__() == other.__reduce__()
        return str(self) == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return str.__hash__(self)

    @property
    def path(self) -> Path:
        return Path(self.facts.place)

    @property
    def entry(self) -> str:
        """Return the entry of ``--nets`` without layers, for messages."""
        return f"{self.facts.source}:{self.facts.place}"

    def files(self) -> list[Path]:
        """Return the files of the encoder, without weights that ``--weights`` gives."""
        if self.facts.source == "hf":
            return sorted(self.path.iterdir())
        if self.facts.source == "onnx":
            return sorted(self.path.parent.glob(f"{self.path.stem}.*"))
        return [Path(self.facts.file)] if self.facts.file else []


def parse_entry(entry: str) -> tuple[EncoderName, ...]:
    """Return the nets of an entry of ``--nets``, one per layer; () for any other name."""
    source, colon, text = entry.partition(":")
    if not colon or source not in SOURCES:
        return ()
    file, layers = "", [OUTPUT]
    found = _LAYERS.search(text) if "@LAYER" in SOURCES[source] else None
    if found is not None:
        text = text[: found.start()]
        layers = [ALL] if found[1] == "all" else [int(layer) for layer in found[1].split("+")]
    elif source == "hear":
        text, _, file = text.partition("@")
    if source in ("hf", "onnx"):
        text = str(Path(text).expanduser()) if text else ""
    name = Path(text).stem if source == "onnx" else text
    if source == "hf":
        name = Path(text).name or Path(text).absolute().name
    name = re.sub(r"[^A-Za-z0-9_-]", "_", name)
    if not text or not name.strip("_-"):
        raise BadOption(f"{entry!r}: write it as {SOURCES[source]}")
    if len(set(layers)) < len(layers):
        raise BadOption(f"{entry!r}: duplicate layer")
    suffixes = {OUTPUT: "", ALL: "-layers"}
    return tuple(
        EncoderName(name + suffixes.get(layer, f"-layer{layer}"), source, text, layer, file)
        for layer in layers
    )


def encoder_of(name: str) -> str:
    """Return the name of a net without its layer: ``MERT`` for ``MERT-layer4``."""
    return _SUFFIX.sub("", name)


def of_encoder(values: Mapping[str, Value], name: str) -> Value | None:
    """Return the value of a net, or of the encoder whose layer it is, or None."""
    return values.get(name, values.get(encoder_of(name)))

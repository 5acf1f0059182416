"""Folders of encoders that are named like nets: ``hf:FOLDER`` and ``hf:FOLDER@4+8``.

This module needs no torch and opens no folder, because stage two also reads profiles, on
machines without the folders.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mvemo.extract.errors import BadSetting

PREFIX = "hf:"
# Number of the encoder's output, after all its layers.
OUTPUT = -1
_LAYERS = re.compile(r"@(\d+(?:\+\d+)*)$")


@dataclass(frozen=True)
class EncoderFolder:
    """Local folder in the layout of Hugging Face that serves as a net."""

    # Name of the net and its feature: the folder's name, and ``-layer8`` if a layer is given;
    # letters, digits, ``_`` and ``-``.
    name: str
    path: Path
    # Hidden state used as the embedding: 0 for the input of the first layer, 1 for its output,
    # `OUTPUT` for the encoder's output.
    layer: int = OUTPUT


def parse_entry(entry: str) -> tuple[EncoderFolder, ...]:
    """Return the nets of an entry of ``--nets`` that begins with `PREFIX`, one per layer.

    Examples
    --------
    >>> [(net.name, net.layer) for net in parse_entry("hf:models/MERT-v1.0@4+8")]
    [('MERT-v1_0-layer4', 4), ('MERT-v1_0-layer8', 8)]
    >>> parse_entry("hf:models/dinov2")
    (EncoderFolder(name='dinov2', path=PosixPath('models/dinov2'), layer=-1),)
    """
    text = entry.removeprefix(PREFIX)
    found = _LAYERS.search(text)
    path = Path(text[: found.start()] if found else text).expanduser()
    name = re.sub(r"[^A-Za-z0-9_-]", "_", path.name or path.absolute().name)
    if not text or not name.strip("_-"):
        raise BadSetting(f"{entry!r}: write it as {PREFIX}FOLDER or {PREFIX}FOLDER@LAYER+LAYER")
    if found is None:
        return (EncoderFolder(name, path),)
    layers = [int(layer) for layer in found[1].split("+")]
    if len(set(layers)) < len(layers):
        raise BadSetting(f"{entry!r} names a layer twice")
    return tuple(EncoderFolder(f"{name}-layer{layer}", path, layer) for layer in layers)


def parse_entries(entries: Sequence[str]) -> tuple[tuple[str, ...], tuple[EncoderFolder, ...]]:
    """Return the names of all nets of a list, and the folders among them.

    Examples
    --------
    >>> parse_entries(["musicnn", "hf:models/clap"])[0]
    ('musicnn', 'clap')
    """
    names: list[str] = []
    folders: dict[str, EncoderFolder] = {}
    for entry in entries:
        if not entry.startswith(PREFIX):
            names.append(entry)
            continue
        for folder in parse_entry(entry):
            other = folders.setdefault(folder.name, folder)
            if other.path != folder.path:
                raise BadSetting(
                    f"{other.path} and {folder.path} would both be the net {folder.name!r}: "
                    "rename a folder, or link to it by another name"
                )
            names.append(folder.name)
    return tuple(names), tuple(folders.values())

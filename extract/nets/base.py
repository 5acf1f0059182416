"""What every net has: its input, its embedding, its outputs, and a digest of its weights."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class AudioInput:
    """The decoded waveform that a net is given: mono float32, zero-padded or cut.

    Parameters
    ----------
    sr
        Sampling rate in Hz.
    seconds
        Length.
    """

    sr: int
    seconds: float

    @property
    def samples(self) -> int:
        return round(self.sr * self.seconds)


@dataclass(frozen=True)
class VideoInput:
    """The decoded frames that a net is given: uint8 RGB, square.

    Parameters
    ----------
    n_frames
        Frames at uniform presentation times over the clip.
    size
        Height and width in pixels.
    """

    n_frames: int
    size: int


@dataclass(frozen=True)
class SequenceInput:
    """Descriptor sequences of a clip that share their frames, side by side.

    Parameters
    ----------
    features
        Names of descriptors (`mvemo.extract.descriptors`), in the order of the columns.
    n_frames
        Length; longer clips are cut, shorter ones filled up with NaN rows, by which a
        net knows their length.
    """

    features: tuple[str, ...]
    n_frames: int


class Net(nn.Module, ABC):
    """A unimodal net: ``prepare`` -> ``embed`` -> ``classifier``.

    A subclass sets the class variables `name` and `modality`, and in its constructor
    `input`, `embedding_dim` and `classifier` (an ``nn.Linear`` from the embedding to the
    outputs, the only part that depends on the number of outputs).
    """

    name: ClassVar[str]
    modality: ClassVar[Literal["audio", "video"]]
    # Rises whenever the same weights would give other embeddings.
    version: ClassVar[int] = 1

    input: AudioInput | VideoInput | SequenceInput
    embedding_dim: int
    classifier: nn.Linear

    @abstractmethod
    def prepare(self, raw: Tensor) -> Tensor:
        """Turn decoded media into the tensor that `embed` takes.

        Parameters
        ----------
        raw
            audio: float32 (batch, samples) in [-1, 1]; video: uint8
            (batch, frames, height, width, 3), RGB; sequences: float32
            (batch, n_frames, dim), NaN rows after a clip's end.
        """

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Penultimate layer, float32 (batch, embedding_dim), of a prepared batch."""

    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """The record of `prepare` that is bound to the weights: JSON values only."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32 (batch, outputs), of a prepared batch."""
        logits: Tensor = self.classifier(self.embed(x))
        return logits

    def embedding_state(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers that `embed` depends on: all but the classifier's."""
        for name, value in sorted(self.state_dict().items()):
            if not name.startswith("classifier."):
                yield name, value


def weights_digest(net: Net) -> str:
    """SHA-256 over names, types, shapes and bytes of all that `embed` depends on."""
    state = hashlib.sha256()
    for name, value in net.embedding_state():
        tensor = value.detach().cpu().contiguous()
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()

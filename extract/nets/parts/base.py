"""Base classes of nets, and the digest of their weights."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mvemo.extract.nets.parts import cards
from mvemo.extract.settings import NetSettings


@cards.NetCard("", object, {})
class Net(nn.Module, ABC):
    """Unimodal net: ``prepare`` -> ``embed`` -> ``classifier``.

    A subclass has a `NetCard`. Its constructor is called as ``kind(n_outputs, width=…,
    options=…)``; `n_outputs` is the number of classes, tags or regression targets, and `width`
    multiplies the number of channels or hidden units. The constructor sets `embedding_dim` and
    `classifier`, an ``nn.Linear`` from the embedding to the outputs and the only part that
    depends on `n_outputs`. It may set `classifier_dropout`, which is applied before the
    classifier. `BuiltNet` has such a constructor.

    Parameters
    ----------
    options
        Instance of the class's `Options`.

    Attributes
    ----------
    modality
        ``audio`` or ``video``.
    brings_weights
        True if the net is built with its pretrained weights and needs no weight file.
    layers
        Numbers of the layers whose embeddings, of equal size, follow each other in the net's
        embedding; empty for one layer.
    """

    modality: ClassVar[Literal["audio", "video"]]
    brings_weights: ClassVar[bool] = False
    # Fields of the card.
    name: ClassVar[str]
    Options: ClassVar[type[Any]]
    profiles: ClassVar[Mapping[str, NetSettings]]
    version: ClassVar[int]
    windows_at_once: ClassVar[int]
    faithful_in_bf16: ClassVar[bool]
    fixed: ClassVar[tuple[str, ...]]
    started_from: ClassVar[str]
    random_options: ClassVar[Mapping[str, Any]]
    published: ClassVar[tuple[str, ...]]
    known_files: ClassVar[Mapping[str, str]]
    pretrained_outputs: ClassVar[int]
    package: ClassVar[cards.PretrainedPackage | None]

    options: Any
    input: cards.NetInput
    embedding_dim: int
    layers: tuple[int, ...] = ()
    classifier_dropout: nn.Module
    classifier: nn.Linear

    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options
        self.input = self.input_of(options)
        self.classifier_dropout = nn.Identity()

    @classmethod
    @abstractmethod
    def input_of(cls, options: Any) -> cards.NetInput:
        """Return the input of a net with these options, without building the net."""

    @classmethod
    def shared_options(cls, shared: cards.SharedSettings) -> dict[str, Any]:
        """Return the options that follow from a run's settings; the user's options replace them."""
        return {}

    @classmethod
    def options_for(cls, seconds: float, shared: cards.SharedSettings) -> dict[str, Any]:
        """Return the options for clips of `seconds`; empty if the input has no length in time."""
        return {}

    @abstractmethod
    def prepare(self, raw: Tensor) -> Tensor:
        """Turn decoded media into the tensor that `embed` takes.

        Parameters
        ----------
        raw
            Decoded media. Audio: float32 (batch, samples) in [-1, 1], padded with zeros, or with
            NaN if the input marks the end of a clip. Video: uint8 (batch, frames, height,
            width, 3), RGB. Sequences: float32 (batch, n_frames, dim), padded with NaN rows.
        """

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Return the penultimate layer's output for a batch, float32 (batch, embedding_dim)."""

    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """Return a record of what `prepare` does, as JSON values, to be kept with the weights."""

    def features(self, x: Tensor) -> Tensor:
        """Return the embedding after `classifier_dropout`, float32 (batch, embedding_dim)."""
        return self.classifier_dropout(self.embed(x))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a prepared batch, float32 (batch, outputs)."""
        return self.classifier(self.features(x))

    def piece_input(self) -> cards.PieceInput | None:
        """Return the input of one piece, if windows of a clip can share embedded pieces.

        A net that reads a clip as a whole returns None; its `embed_pieces` and `pool_pieces`
        are never called.
        """
        return None

    def embed_pieces(self, raw: Tensor) -> Tensor:
        """Embed raw media of pieces: (pieces, ...), see `piece_input`, -> (pieces, dim)."""
        raise NotImplementedError

    def pool_pieces(self, values: Tensor) -> Tensor:
        """Return the embedding of a clip from its pieces: (pieces, dim) -> (embedding_dim,)."""
        raise NotImplementedError

    def from_published(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        """Map each published name to the net's name and to the value in the net's axis order.

        The mapping is empty for a file that mvemo saved. Tensors that the net lacks are left out.
        """
        return {}


class BuiltNet(Net):
    """Base of nets that define only layers; applies the options `dropout` and `norm_momentum`."""

    def __init__(self, n_outputs: int, *, width: float = 1.0, options: Any = None) -> None:
        super().__init__(options or self.Options())
        if hasattr(self.options, "dropout"):
            self.classifier_dropout: nn.Module = nn.Dropout(self.options.dropout)
        self.embedding_dim: int = self.build(width)
        if hasattr(self.options, "norm_momentum"):
            for module in self.modules():
                if hasattr(module, "momentum"):
                    module.momentum = self.options.norm_momentum
        self.classifier: nn.Linear = nn.Linear(self.embedding_dim, n_outputs)

    @abstractmethod
    def build(self, width: float) -> int:
        """Create the layers before the classifier, and return the size of the embedding."""

    def preparation(self) -> dict[str, Any]:
        """Return the record of `prepare` without the options, as JSON values."""
        return {}

    def preprocessing(self) -> dict[str, Any]:
        return {**self.preparation(), "options": asdict(self.options)}


class VideoNet(BuiltNet):
    """Base of nets that read `n_frames` square pictures of `size` pixels."""

    modality: ClassVar[Literal["audio", "video"]] = "video"
    colour: ClassVar[str] = "RGB"  # order of the colours in the net's input
    # True if the default of `n_frames` is the run's number of frames.
    follows_run: ClassVar[bool] = False

    input: cards.VideoInput

    @classmethod
    def input_of(cls, options: Any) -> cards.VideoInput:
        return cards.VideoInput(options.n_frames, options.size)

    @classmethod
    def shared_options(cls, shared: cards.SharedSettings) -> dict[str, Any]:
        return {"n_frames": shared.n_frames} if cls.follows_run else {}

    @abstractmethod
    def scaling(self) -> dict[str, Any]:
        """Return a record of how the values of pixels are scaled, as JSON values."""

    def preparation(self) -> dict[str, Any]:
        return {
            "frames": "uniform presentation times",
            "colour": self.colour,
            **self.scaling(),
            "crop": "short side scaled, middle",
        }


class FrameNet(BuiltNet):
    """Base of nets that embed each frame separately and then pool over the frames."""

    input: cards.VideoInput

    @abstractmethod
    def frame_features(self, x: Tensor) -> Tensor:
        """Embed single prepared frames: (n, 3, height, width) -> (n, dim)."""

    @abstractmethod
    def pool_frames(self, values: Tensor) -> Tensor:
        """Pool over the frames: (..., frames, dim) -> (..., embedding_dim)."""

    def embed(self, x: Tensor) -> Tensor:
        """Map float32 (batch, frames, 3, height, width) to (batch, embedding_dim)."""
        features = self.frame_features(x.flatten(0, 1))
        return self.pool_frames(features.reshape(*x.shape[:2], -1))

    def piece_input(self) -> cards.PieceInput:
        return cards.PieceInput(cards.VideoInput(1, self.input.size), count=self.input.n_frames)

    def embed_pieces(self, raw: Tensor) -> Tensor:
        """Map uint8 (frames, 1, size, size, 3) to (frames, dim)."""
        return self.frame_features(self.prepare(raw)[:, 0])

    def pool_pieces(self, values: Tensor) -> Tensor:
        return self.pool_frames(values)


class WaveformNet(BuiltNet):
    """Base of nets that read a waveform of `seconds`."""

    modality: ClassVar[Literal["audio", "video"]] = "audio"

    input: cards.AudioInput

    @classmethod
    def options_for(cls, seconds: float, shared: cards.SharedSettings) -> dict[str, Any]:
        return {"seconds": seconds}

    def preparation(self) -> dict[str, Any]:
        return {
            "sr": self.input.sr,
            "samples": self.input.samples,
            "range": [-1, 1],
            "shorter": "zero-padded at the end",
            "longer": "cut",
        }


def weights_digest(net: Net) -> str:
    """Return the SHA-256 of names, types, shapes and bytes of all tensors that `embed` uses."""
    state = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        if not name.startswith("classifier."):
            state.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            state.update(value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()

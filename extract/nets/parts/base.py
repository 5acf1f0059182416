"""Base class of all nets, and the digest of their weights."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mvemo.extract.nets.parts.inputs import NetInput, PieceInput, SharedSettings
from mvemo.extract.nets.parts.packages import PretrainedPackage
from mvemo.extract.settings import NetSettings


class Net(nn.Module, ABC):
    """Unimodal net: ``prepare`` -> ``embed`` -> ``classifier``.

    A subclass describes itself in its class variables and class methods. Its constructor is
    called as ``kind(n_outputs, width=…, options=…)``; `n_outputs` is the number of classes,
    tags or regression targets, and `width` multiplies the number of channels or hidden units.
    The constructor sets `embedding_dim` and `classifier`, an ``nn.Linear`` from the embedding
    to the outputs and the only part that depends on `n_outputs`. It may set
    `classifier_dropout`, which is applied before the classifier.

    Parameters
    ----------
    options
        Instance of the class's `Options`.

    Attributes
    ----------
    name
        Name of the module in `mvemo.extract.nets`.
    modality
        ``audio`` or ``video``.
    Options
        Frozen dataclass of bool, int, float and str fields with defaults. It checks its
        values, raises `BadSetting`, and is saved as JSON next to the weights.
    profiles
        Settings of the net by profile. A user's profile file starts from ``paper``; a demo
        uses ``demo``, or ``paper`` if there is no ``demo``.
    version
        Number that rises whenever the same weights would give other embeddings.
    known_files
        SHA-256 of published weight files that were tried with the net -> description.
    published
        Published weight files that `load_pretrained` maps, for ``mvemo nets``.
    package
        Public package from which ``mvemo weights get`` takes the weights; None if none is
        known.
    started_from
        Weights from which the net's paper starts its training; empty for random weights.
    random_options
        Options for training from random weights, unless the user sets them.
    fixed
        Prefixes of the names of buffers that training does not change, such as a front end.
        A weight file may lack them.
    pretrained_outputs
        Number of outputs of the net in the published files; 0 if they cannot be used.
    brings_weights
        True if the net is built with its pretrained weights and needs no weight file.
    windows_at_once
        Number of windows that a CPU embeds in one step. It is small for large nets, where
        more windows only take memory.
    """

    name: ClassVar[str]
    modality: ClassVar[Literal["audio", "video"]]
    Options: ClassVar[type[Any]]
    profiles: ClassVar[Mapping[str, NetSettings]]
    version: ClassVar[int] = 1
    known_files: ClassVar[Mapping[str, str]] = {}
    published: ClassVar[tuple[str, ...]] = ()
    started_from: ClassVar[str] = ""
    random_options: ClassVar[Mapping[str, Any]] = {}
    fixed: ClassVar[tuple[str, ...]] = ()
    pretrained_outputs: ClassVar[int] = 0
    package: ClassVar[PretrainedPackage | None] = None
    brings_weights: ClassVar[bool] = False
    windows_at_once: ClassVar[int] = 4

    options: Any
    input: NetInput
    embedding_dim: int
    classifier_dropout: nn.Module
    classifier: nn.Linear

    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options
        self.input = self.input_of(options)
        self.classifier_dropout = nn.Identity()

    @classmethod
    @abstractmethod
    def input_of(cls, options: Any) -> NetInput:
        """Return the input of a net with these options, without building the net."""

    @classmethod
    def shared_options(cls, shared: SharedSettings) -> dict[str, Any]:
        """Return the options that follow from the settings of a run, unless the user sets them."""
        return {}

    @classmethod
    def options_for(cls, seconds: float, shared: SharedSettings) -> dict[str, Any]:
        """Return the options for clips of this length, if the input has a length."""
        return {}

    @abstractmethod
    def prepare(self, raw: Tensor) -> Tensor:
        """Turn decoded media into the tensor that `embed` takes.

        Parameters
        ----------
        raw
            Decoded media. Audio: float32 (batch, samples) in [-1, 1], followed by zeros, or by
            NaN if the input marks the end of a clip. Video: uint8 (batch, frames, height,
            width, 3), RGB. Sequences: float32 (batch, n_frames, dim), followed by NaN rows.
        """

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Return the penultimate layer for a prepared batch, float32 (batch, embedding_dim)."""

    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """Return the record of `prepare` that belongs to the weights, as JSON values."""

    def features(self, x: Tensor) -> Tensor:
        """Return the embedding after `classifier_dropout`, float32 (batch, embedding_dim)."""
        features: Tensor = self.classifier_dropout(self.embed(x))
        return features

    def piece_input(self) -> PieceInput | None:
        """Return the input of one piece, if windows of a clip can share embedded pieces.

        A net that reads a clip as a whole returns None; its `embed_pieces` and `pool_pieces`
        are never called.
        """
        return None

    def embed_pieces(self, raw: Tensor) -> Tensor:
        """Embed raw media of pieces: (pieces, ...) as in `piece_input` -> (pieces, dim)."""
        raise NotImplementedError

    def pool_pieces(self, values: Tensor) -> Tensor:
        """Return the embedding of a clip from its pieces: (pieces, dim) -> (embedding_dim,)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of a prepared batch, float32 (batch, outputs)."""
        logits: Tensor = self.classifier(self.features(x))
        return logits

    def embedding_state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the parameters and buffers that `embed` uses: all except the classifier's."""
        for name, value in sorted(self.state_dict().items()):
            if not name.startswith("classifier."):
                yield name, value


def weights_digest(net: Net) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of all tensors that `embed` uses.

    Examples
    --------
    >>> import torch
    >>> from mvemo.extract.nets import build_net
    >>> net = build_net("music1d", 6, width=0.25)
    >>> before = weights_digest(net)
    >>> torch.nn.init.zeros_(net.classifier.weight).shape
    torch.Size([6, 64])
    >>> weights_digest(net) == before
    True
    """
    state = hashlib.sha256()
    for name, value in net.embedding_state():
        tensor = value.detach().cpu().contiguous()
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()

"""What every net has: its input, its embedding, its outputs, and a digest of its weights."""

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
    """A unimodal net: ``prepare`` -> ``embed`` -> ``classifier``.

    A subclass states all that mvemo knows of it in its class variables and class methods,
    and sets in its constructor, called as ``kind(n_outputs, width=…, options=…)``,
    `embedding_dim` and `classifier` (an ``nn.Linear`` from the embedding to the outputs,
    the only part that depends on the number of outputs).

    Parameters
    ----------
    options
        Of the class's `Options`.

    Attributes
    ----------
    name
        The module's name in `mvemo.extract.nets`.
    modality
        ``audio`` or ``video``.
    Options
        A frozen dataclass of bool, int, float and str fields, all with defaults, which
        checks its own values and raises `BadSetting`; saved as JSON beside the weights.
    profiles
        The net's settings by profile: ``paper``, which is also where a profile file of
        one's own starts from, and ``demo``, without which a demo takes the paper's.
    version
        Rises whenever the same weights would give other embeddings.
    known_files
        SHA-256 of published weight files that were tried with the net, and what they are.
    published
        The published weight files that `load_pretrained` maps, for ``mvemo nets``.
    package
        The public package that ``mvemo weights get`` takes its weights from; None where
        none is known.
    started_from
        What the paper that the net is from starts its training from, where that is not
        random; empty where it is.
    random_options
        Options that training from random weights needs, unless they are set.
    fixed
        How names of buffers begin that no training changes, as of a front end: a weight file
        need not have them.
    pretrained_outputs
        Outputs of the net in those files; 0 where they are of no use.
    brings_weights
        Whether it is made with its pretrained weights, and needs no file of them.
    windows_at_once
        Windows that a processor embeds in one step; of nets to which each is much work, few, as
        more only take memory.
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
    classifier: nn.Linear

    def __init__(self, options: Any) -> None:
        super().__init__()
        self.options = options
        self.input = self.input_of(options)

    @classmethod
    @abstractmethod
    def input_of(cls, options: Any) -> NetInput:
        """What a net of these options is given; no net is built to know it."""

    @classmethod
    def shared_options(cls, shared: SharedSettings) -> dict[str, Any]:
        """Options that follow from the settings of a run, unless they are set themselves."""
        return {}

    @classmethod
    def options_for(cls, seconds: float, shared: SharedSettings) -> dict[str, Any]:
        """Options by which clips of this length fill the input; none where any length does."""
        return {}

    @abstractmethod
    def prepare(self, raw: Tensor) -> Tensor:
        """Turn decoded media into the tensor that `embed` takes.

        Parameters
        ----------
        raw
            audio: float32 (batch, samples) in [-1, 1], after a clip's end zeros, or NaN
            where the input marks it; video: uint8 (batch, frames, height, width, 3), RGB;
            sequences: float32 (batch, n_frames, dim), NaN rows after a clip's end.
        """

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """Penultimate layer, float32 (batch, embedding_dim), of a prepared batch."""

    @abstractmethod
    def preprocessing(self) -> dict[str, Any]:
        """The record of `prepare` that is bound to the weights: JSON values only."""

    def features(self, x: Tensor) -> Tensor:
        """What enters the classifier, float32 (batch, embedding_dim), of a prepared batch.

        In training some nets have a dropout between their embedding and the classifier.
        """
        return self.embed(x)

    def piece_input(self) -> PieceInput | None:
        """What the net embeds of a clip piece by piece, so that windows can share pieces.

        None where it reads a clip as a whole; then nothing calls `embed_pieces` and
        `pool_pieces`.
        """
        return None

    def embed_pieces(self, raw: Tensor) -> Tensor:
        """(pieces, dim), of raw media (pieces, ...) as `piece_input` has them."""
        raise NotImplementedError

    def pool_pieces(self, values: Tensor) -> Tensor:
        """A clip's embedding, (embedding_dim,), of its pieces' (pieces, dim)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits, float32 (batch, outputs), of a prepared batch."""
        logits: Tensor = self.classifier(self.features(x))
        return logits

    def embedding_state(self) -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers that `embed` depends on: all but the classifier's."""
        for name, value in sorted(self.state_dict().items()):
            if not name.startswith("classifier."):
                yield name, value


def weights_digest(net: Net) -> str:
    """SHA-256 over names, types, shapes and bytes of all that `embed` depends on.

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

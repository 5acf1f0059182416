"""Inputs of encoders, as a ``preprocessor_config.json`` or the card of a file states them."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts import base, encoder_names, layers
from mvemo.extract.nets.parts.cards import AudioInput, NetCard, NetOptions, VideoInput
from mvemo.extract.settings import POOLINGS, NetSettings, TrainSettings, ViewSettings
from mvemo.manifests.declared import setting
from mvemo.manifests.errors import BadOption

# Constant that Wav2Vec2FeatureExtractor adds to a variance.
LEAST_VARIANCE = 1e-7
# Number of windows of sound to embed: one minute with windows of 10 s.
VIEWS = 6


@dataclass(frozen=True)
class SoundOptions(NetOptions):
    seconds: float = setting(10.0, "Length of a window in seconds.", ge=0.1)


@dataclass(frozen=True)
class PictureOptions(NetOptions):
    n_frames: int = setting(8, "Number of frames of a clip.", ge=1)
    pooling: str = setting("mean", "Pooling over the frames: `mean` or `mean+std`.", names=POOLINGS)


class StatedInput(base.BuiltNet):
    """Base of nets whose input a file states."""

    stated_in: ClassVar[Path | str]  # file or library that states the input, for messages
    preprocessor: ClassVar[Mapping[str, Any]]  # the statements

    def build(self, width: float) -> int:
        if width != 1.0:
            raise BadOption(f"{self.name}: width is {width}: it must be 1 for an encoder")
        self.encoder: Any = self.load_encoder()
        if getattr(self.options, "layer", encoder_names.OUTPUT) == encoder_names.ALL:
            self.layers: tuple[int, ...] = self.layer_numbers()
        dim = self.state_dim() * max(len(self.layers), 1)
        return dim * (2 if getattr(self.options, "pooling", "mean") == "mean+std" else 1)

    @abstractmethod
    def load_encoder(self) -> Any:
        """Return the encoder, with its weights if it brings them."""

    @abstractmethod
    def state_dim(self) -> int:
        """Return the size of the vectors of a layer before they are pooled."""

    def layer_numbers(self) -> tuple[int, ...]:
        """Return the numbers of all layers, for encoders whose layers can be chosen."""
        raise NotImplementedError


class SoundInput(StatedInput):
    """Base of encoders of waveforms; short clips are not padded."""

    modality: ClassVar[Literal["audio", "video"]] = "audio"
    Options: ClassVar[type[Any]] = SoundOptions
    input: AudioInput
    least_variance: ClassVar[float] = LEAST_VARIANCE

    @classmethod
    def input_of(cls, options: Any) -> AudioInput:
        rate = cls.preprocessor.get("sampling_rate")
        if not isinstance(rate, int) or rate < 1:
            raise BadWeights(
                f"{cls.stated_in}: sampling_rate is {rate!r}: it must be an integer above 0, in Hz"
            )
        return AudioInput(rate, options.seconds, mark_end=True)

    def preparation(self) -> dict[str, Any]:
        return {"sr": self.input.sr, "normalised": self.normalises}

    @property
    def normalises(self) -> bool:
        return self.preprocessor.get("do_normalize", True)

    def prepare(self, raw: Tensor) -> Tensor:
        """Normalise each clip by its own samples: float32 (batch, samples), NaN after its end."""
        if not self.normalises:
            return raw
        mean = raw.nanmean(dim=1, keepdim=True)
        variance = (raw - mean).square().nanmean(dim=1, keepdim=True)
        return (raw - mean) / (variance + self.least_variance).sqrt()

    def embed(self, x: Tensor) -> Tensor:
        """Map float32 (batch, samples), NaN after a clip's end, to (batch, embedding_dim)."""
        lengths = x.isfinite().sum(dim=1)
        rows = x.new_empty(len(x), self.embedding_dim)
        for length in sorted(set(lengths.tolist())):
            of_length = lengths == length
            missing = max(self.least_samples() - length, 0)
            waves = nn.functional.pad(x[of_length, :length], (0, missing))
            found = self.embed_waves(waves)
            if found.shape != (len(waves), self.embedding_dim):
                raise BadWeights(
                    f"{self.stated_in}: expected embeddings of shape "
                    f"{(len(waves), self.embedding_dim)}, got {tuple(found.shape)}"
                )
            rows[of_length] = found.to(rows.dtype)
        return rows

    def embed_waves(self, waves: Tensor) -> Tensor:
        """Map float32 (clips, samples) without gaps to (clips, embedding_dim)."""
        raise NotImplementedError

    def least_samples(self) -> int:
        """Return the minimum number of samples that the encoder can read."""
        return 1


class PictureInput(StatedInput):
    """Base of encoders of pictures: short side scaled, middle crop, normalised colours."""

    modality: ClassVar[Literal["audio", "video"]] = "video"
    Options: ClassVar[type[Any]] = PictureOptions
    input: VideoInput
    mean: Tensor
    deviation: Tensor

    def build(self, width: float) -> int:
        self.crop: int = picture_sizes(type(self))[1]
        normalises = self.preprocessor.get("do_normalize", True)
        self.normalisation: dict[str, list[float]] = {}
        for name, key, none in (("mean", "image_mean", 0.0), ("deviation", "image_std", 1.0)):
            values = self.preprocessor.get(key, [0.5] * 3) if normalises else [none] * 3
            is_list = isinstance(values, Sequence) and len(values) == 3
            if not (is_list and all(isinstance(value, int | float) for value in values)):
                raise BadWeights(f"{self.stated_in}: {key} is {values!r}: expected three numbers")
            buffer = torch.tensor(values, dtype=torch.float32, device="cpu")
            self.normalisation[name] = buffer.tolist()
            self.register_buffer(name, buffer, persistent=False)
        return super().build(width)

    @classmethod
    def input_of(cls, options: Any) -> VideoInput:
        return VideoInput(options.n_frames, picture_sizes(cls)[0])

    def preparation(self) -> dict[str, Any]:
        return {
            "frames": "uniform presentation times",
            "colour": "RGB",
            "scaled": self.input.size,
            "crop": self.crop,
            "factor": self.factor,
            **self.normalisation,
        }

    @property
    def factor(self) -> float:
        if not self.preprocessor.get("do_rescale", True):
            return 1.0
        return float(self.preprocessor.get("rescale_factor", 1 / 255))

    def prepare(self, raw: Tensor) -> Tensor:
        """Map RGB (batch, frames, size, size, 3) to float32 (batch, frames, 3, crop, crop)."""
        first = (self.input.size - self.crop) // 2
        middle = slice(first, first + self.crop)
        pixels = raw[:, :, middle, middle].float() * self.factor
        return ((pixels - self.mean) / self.deviation).permute(0, 1, 4, 2, 3)

    def pool_frames(self, values: Tensor) -> Tensor:
        """Pool each layer over the frames: (..., frames, layers * dim) -> (..., embedding_dim)."""
        # (..., layers, frames, dim)
        by_layer = values.reshape(*values.shape[:-1], max(len(self.layers), 1), -1).movedim(-2, -3)
        return pool(by_layer, self.options.pooling).flatten(-2)


def pool(values: Tensor, pooling: str) -> Tensor:
    """Pool over the frames: (..., frames, dim) -> (..., dim), or 2 * dim for ``mean+std``."""
    return values.mean(dim=-2) if pooling == "mean" else layers.mean_and_deviation(values)


def pool_layers(states: Sequence[Tensor], pooling: str) -> Tensor:
    """Pool each layer (batch, frames, dim) over its frames; return all in one row per clip."""
    return torch.cat([pool(state, pooling) for state in states], dim=-1)


def named_class(
    base: type[StatedInput], name: encoder_names.EncoderName, contents: Mapping[str, Any]
) -> type[StatedInput]:
    """Return the class of an encoder's net, with a card, after a check of the stated input."""
    kind: Any = type("NamedEncoder", (base,), {**contents, "__doc__": base.__doc__})
    settings = NetSettings(
        name,
        options={"layer": name.facts.layer} if hasattr(base.Options, "layer") else {},
        # A large model needs a small learning rate, like the other transformers.
        train=TrainSettings(optimizer="adamw", lr=1e-5, batch_size=8),
        view=ViewSettings(views=VIEWS) if base.modality == "audio" else ViewSettings(),
    )
    kind = NetCard(name, base.Options, {"paper": settings})(kind)
    kind.input_of(kind.Options())
    return kind


def picture_sizes(kind: type[PictureInput]) -> tuple[int, int]:
    """Return the side of scaled pictures and the side of their middle crop, in pixels."""
    record = kind.preprocessor
    scaled = crop = _side(kind, "size")
    if record.get("do_center_crop", "crop_size" in record):
        crop = _side(kind, "crop_size")
    return max(scaled, crop), crop


def _side(kind: type[PictureInput], name: str) -> int:
    value = sides = kind.preprocessor.get(name)
    if isinstance(value, dict):
        sides = value.get("shortest_edge") or value.get("height")
        if sides != value.get("width", sides):
            sides = None
    if not isinstance(sides, int) or sides < 1:
        raise BadWeights(
            f"{kind.stated_in}: {name} is {value!r}: expected the side of square pictures, in "
            "pixels"
        )
    return sides

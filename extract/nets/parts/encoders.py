"""Nets from local folders of encoders: HuBERT and similar models, CLAP, picture transformers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts import cards, hugging_face, layers
from mvemo.extract.nets.parts.base import BuiltNet, FrameNet
from mvemo.extract.nets.parts.registry import OUTPUT, EncoderFolder
from mvemo.extract.settings import POOLINGS, NetSettings, TrainSettings, ViewSettings
from mvemo.manifests.declared import setting
from mvemo.manifests.errors import BadOption

# Constant that Wav2Vec2FeatureExtractor adds to a variance.
LEAST_VARIANCE = 1e-7
# Number of windows of sound to embed: one minute with windows of 10 s.
VIEWS = 6
TOKENS = ("auto", "first", "mean")


LAYER_MEANING = "Number of the hidden state used as the embedding; -1 for the encoder's output."


@dataclass(frozen=True)
class SoundEncoderOptions(cards.NetOptions):
    seconds: float = setting(10.0, "Length of a window in seconds.", ge=0.1)
    layer: int = setting(OUTPUT, LAYER_MEANING)
    pooling: str = setting(
        "mean", "Pooling over the frames of a window: `mean` or `mean+std`.", names=POOLINGS
    )


@dataclass(frozen=True)
class PictureEncoderOptions(cards.NetOptions):
    n_frames: int = setting(8, "Number of frames of a clip.", ge=1)
    layer: int = setting(OUTPUT, LAYER_MEANING)
    pooling: str = setting("mean", "Pooling over the frames: `mean` or `mean+std`.", names=POOLINGS)
    tokens: str = setting(
        "auto",
        "Tokens that represent a picture: `first` (in some encoders a class token), `mean` (of all "
        "tokens), or `auto`: the first one if it is a class token, otherwise the mean.",
        names=TOKENS,
    )


class EncoderNet(BuiltNet):
    """Base of the nets made from a folder; `make_net_class` derives one for each folder."""

    brings_weights: ClassVar[bool] = True
    folder: ClassVar[Path]  # not recorded: the digest of the weights identifies the encoder
    config: ClassVar[Mapping[str, Any]]  # contents of config.json
    preprocessor: ClassVar[Mapping[str, Any]]  # contents of preprocessor_config.json
    family: ClassVar[hugging_face.Family]

    def build(self, width: float) -> int:
        if width != 1.0:
            raise BadOption(f"{self.name}: width is {width}: it must be 1 for an encoder")
        self.encoder = hugging_face.load_encoder(self.folder, self.family, self.options.layer)
        return self.state_dim() * (2 if self.options.pooling == "mean+std" else 1)

    def state_dim(self) -> int:
        """Return the size of a hidden state vector."""
        return self.encoder.config.hidden_size

    def states(self, **inputs: Tensor) -> Tensor:
        """Return the hidden states of the layer that the option `layer` names."""
        layer = self.options.layer
        outputs = self.encoder(**inputs, output_hidden_states=layer != OUTPUT)
        return outputs.last_hidden_state if layer == OUTPUT else outputs.hidden_states[layer]

    def preprocessing(self) -> dict[str, Any]:
        return {
            "model_type": self.config["model_type"],
            "config": hugging_face.config_digest(self.config),
            **super().preprocessing(),
        }


class SoundEncoder(EncoderNet):
    """Base of the encoders of sound."""

    modality = "audio"
    Options = SoundEncoderOptions
    options: SoundEncoderOptions
    input: cards.AudioInput

    @classmethod
    def input_of(cls, options: SoundEncoderOptions) -> cards.AudioInput:
        rate = cls.preprocessor.get("sampling_rate")
        if not isinstance(rate, int) or rate < 1:
            raise BadWeights(
                f"{cls.folder}: preprocessor_config.json: sampling_rate is {rate!r}: it must be an "
                "integer above 0, in Hz"
            )
        return cards.AudioInput(rate, options.seconds, mark_end=True)


class WaveformEncoder(SoundEncoder):
    """Transformer on waveforms: HuBERT, MERT, wav2vec 2.0, WavLM; short clips are not padded."""

    def preparation(self) -> dict[str, Any]:
        return {"sr": self.input.sr, "normalised": self.normalises}

    @property
    def normalises(self) -> bool:
        """Return True if windows are scaled to mean 0 and variance 1."""
        return self.preprocessor.get("do_normalize", True)

    def prepare(self, raw: Tensor) -> Tensor:
        """Normalise each clip by its own samples: float32 (batch, samples), NaN after its end."""
        if not self.normalises:
            return raw
        mean = raw.nanmean(dim=1, keepdim=True)
        variance = (raw - mean).square().nanmean(dim=1, keepdim=True)
        return (raw - mean) / (variance + LEAST_VARIANCE).sqrt()

    def embed(self, x: Tensor) -> Tensor:
        """Map float32 (batch, samples), NaN after a clip's end, to (batch, embedding_dim)."""
        lengths = x.isfinite().sum(dim=1)
        rows = x.new_empty(len(x), self.embedding_dim)
        for length in sorted(set(lengths.tolist())):
            of_length = lengths == length
            missing = max(self.least_samples() - length, 0)
            waves = nn.functional.pad(x[of_length, :length], (0, missing))
            # (clips, frames, dim)
            states = self.states(input_values=waves)
            rows[of_length] = pool(states, self.options.pooling).to(rows.dtype)
        return rows

    def least_samples(self) -> int:
        """Return the minimum number of samples that give one frame."""
        config, samples = self.encoder.config, 1
        for kernel, stride in zip(config.conv_kernel[::-1], config.conv_stride[::-1], strict=True):
            samples = (samples - 1) * stride + kernel
        return samples


class SpectrogramEncoder(SoundEncoder):
    """CLAP's audio encoder for 10 s; shorter windows are repeated, longer ones are refused."""

    def build(self, width: float) -> int:
        dim = super().build(width)
        library = hugging_face.transformers(self.folder)
        self.extractor = library.ClapFeatureExtractor(**self.preprocessor)
        if self.options.seconds > self.extractor.max_length_s:
            raise BadOption(
                f"{self.name}: seconds is {self.options.seconds}, but CLAP reads at most "
                f"{self.extractor.max_length_s} s: for longer clips, increase views instead"
            )
        return dim

    def state_dim(self) -> int:
        config = self.encoder.config
        n_stages = len(config.depths)
        stage = n_stages if self.options.layer == OUTPUT else self.options.layer
        # Each stage except the last halves the picture and doubles the channels.
        return config.patch_embeds_hidden_size * 2 ** min(stage, n_stages - 1)

    def preparation(self) -> dict[str, Any]:
        names = (
            *("feature_size", "sampling_rate", "hop_length", "fft_window_size", "padding"),
            *("frequency_min", "frequency_max", "max_length_s", "truncation"),
        )
        return {name: getattr(self.extractor, name) for name in names}

    def prepare(self, raw: Tensor) -> Tensor:
        """Map (batch, samples), NaN after a clip's end, to (batch, 1 or 4, frames, bands)."""
        waves = [wave[np.isfinite(wave)] for wave in raw.detach().cpu().numpy()]
        mels = self.extractor(waves, sampling_rate=self.input.sr)["input_features"]
        return torch.from_numpy(np.stack(mels).astype(np.float32)).to(raw.device)

    def embed(self, x: Tensor) -> Tensor:
        """Map float32 (batch, 1 or 4, frames, bands) to (batch, embedding_dim)."""
        # The constructor refuses windows that CLAP would not read as a whole.
        is_longer = torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)
        # (batch, dim, frequencies, times)
        states = self.states(input_features=x, is_longer=is_longer)
        return pool(states.flatten(2).transpose(1, 2), self.options.pooling)


class PictureEncoder(EncoderNet, FrameNet):
    """Transformer on single pictures: the encoders of CLIP and SigLIP, ViT, DINOv2."""

    modality = "video"
    Options = PictureEncoderOptions
    options: PictureEncoderOptions
    input: cards.VideoInput
    mean: Tensor
    deviation: Tensor

    def build(self, width: float) -> int:
        dim = super().build(width)
        self.crop = _picture_sizes(type(self))[1]
        image_size = self.encoder.config.image_size
        if not self.family.any_size and self.crop != image_size:
            raise BadWeights(
                f"{self.folder}: the preprocessor makes pictures of {self.crop} pixels per side, "
                f"but the encoder needs {image_size}"
            )
        normalises = self.preprocessor.get("do_normalize", True)
        self.normalisation: dict[str, list[float]] = {}
        for name, key, none in (("mean", "image_mean", 0.0), ("deviation", "image_std", 1.0)):
            values = self.preprocessor.get(key, [0.5] * 3) if normalises else [none] * 3
            buffer = torch.tensor(values, dtype=torch.float32, device="cpu")
            self.normalisation[name] = buffer.tolist()
            self.register_buffer(name, buffer, persistent=False)
        return dim

    @classmethod
    def input_of(cls, options: PictureEncoderOptions) -> cards.VideoInput:
        return cards.VideoInput(options.n_frames, _picture_sizes(cls)[0])

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
        """Return the factor by which pixels are multiplied."""
        if not self.preprocessor.get("do_rescale", True):
            return 1.0
        return float(self.preprocessor.get("rescale_factor", 1 / 255))

    def prepare(self, raw: Tensor) -> Tensor:
        """Map RGB (batch, frames, size, size, 3) to float32 (batch, frames, 3, crop, crop)."""
        first = (self.input.size - self.crop) // 2
        middle = slice(first, first + self.crop)
        pixels = raw[:, :, middle, middle].float() * self.factor
        return ((pixels - self.mean) / self.deviation).permute(0, 1, 4, 2, 3)

    def frame_features(self, x: Tensor) -> Tensor:
        """Map float32 (n, 3, crop, crop) to (n, dim)."""
        # (n, tokens, dim)
        states = self.states(pixel_values=x)
        first = self.family.class_token and self.options.tokens == "auto"
        if first or self.options.tokens == "first":
            return states[:, 0]
        return states.mean(dim=1)

    def pool_frames(self, values: Tensor) -> Tensor:
        return pool(values, self.options.pooling)


def make_net_class(folder: EncoderFolder) -> type[EncoderNet]:
    """Return the class of a folder's net, after reading all its files except the weights."""
    config = hugging_face.read_config(folder.path)
    family = hugging_face.FAMILIES[config["model_type"]]
    base: Any = {
        "waveform": WaveformEncoder,
        "spectrogram": SpectrogramEncoder,
        "picture": PictureEncoder,
    }[family.reads]
    record = hugging_face.read_preprocessor(folder.path)
    contents = {"folder": folder.path, "config": config, "preprocessor": record, "family": family}
    kind: Any = type("FolderNet", (base,), {**contents, "__doc__": base.__doc__})
    settings = NetSettings(
        folder,
        options={"layer": folder.layer},
        # A large model needs a small learning rate, like the other transformers.
        train=TrainSettings(optimizer="adamw", lr=1e-5, batch_size=8),
        view=ViewSettings(views=VIEWS) if base.modality == "audio" else ViewSettings(),
    )
    kind = cards.NetCard(folder, base.Options, {"paper": settings})(kind)
    kind.input_of(kind.Options())
    return kind


def pool(values: Tensor, pooling: str) -> Tensor:
    """Pool over the frames: (..., frames, dim) -> (..., dim), or 2 * dim for ``mean+std``."""
    return values.mean(dim=-2) if pooling == "mean" else layers.mean_and_deviation(values)


def _picture_sizes(kind: type[EncoderNet]) -> tuple[int, int]:
    """Return the side of scaled pictures and the side of their middle crop, in pixels."""
    record = kind.preprocessor
    scaled = crop = _side(kind, "size")
    if record.get("do_center_crop", "crop_size" in record):
        crop = _side(kind, "crop_size")
    return max(scaled, crop), crop


def _side(kind: type[EncoderNet], name: str) -> int:
    value = sides = kind.preprocessor.get(name)
    if isinstance(value, dict):
        sides = value.get("shortest_edge") or value.get("height")
        if sides != value.get("width", sides):
            sides = None
    if not isinstance(sides, int) or sides < 1:
        raise BadWeights(
            f"{kind.folder}: preprocessor_config.json: {name} is {value!r}: expected the side of "
            "square pictures, in pixels"
        )
    return sides

"""Nets from folders in the layout of Hugging Face: encoders of sound, pictures and video."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts import base, cards, encoder_inputs, hugging_face
from mvemo.extract.nets.parts.encoder_inputs import PictureInput, SoundInput, pool, pool_layers
from mvemo.extract.nets.parts.encoder_names import ALL, OUTPUT, EncoderName
from mvemo.extract.settings import POOLINGS
from mvemo.manifests.declared import setting
from mvemo.manifests.errors import BadOption

TOKENS = ("auto", "first", "mean")


def _layer() -> Any:
    return setting(OUTPUT, "Hidden state used as the embedding; -1: the output, -2: all of them.")


def _tokens(what: str) -> Any:
    return setting(
        "auto",
        f"Tokens that represent {what}: `first` (in some encoders class tokens), `mean` (of all "
        "tokens), or `auto`: class tokens if there are any, otherwise the mean.",
        names=TOKENS,
    )


@dataclass(frozen=True)
class LayerOptions(cards.NetOptions):
    layer: int = _layer()
    pooling: str = setting(
        "mean", "Pooling over the frames of a window: `mean` or `mean+std`.", names=POOLINGS
    )


@dataclass(frozen=True)
class SoundEncoderOptions(LayerOptions, encoder_inputs.SoundOptions):
    """Options of encoders of sound."""


@dataclass(frozen=True)
class SoundTokenOptions(SoundEncoderOptions):
    tokens: str = _tokens("a window")


@dataclass(frozen=True)
class PictureEncoderOptions(encoder_inputs.PictureOptions):
    layer: int = _layer()
    tokens: str = _tokens("a picture")


class EncoderNet(encoder_inputs.StatedInput):
    """Base of the nets made from a folder; `make_net_class` derives one for each folder."""

    brings_weights: ClassVar[bool] = True
    folder: ClassVar[Path]  # not recorded: the digest of the weights identifies the encoder
    config: ClassVar[dict[str, Any]]  # contents of config.json
    family: ClassVar[hugging_face.Family]
    values: ClassVar[str] = "pixel_values"  # the model's argument for what `prepare` returns

    def load_encoder(self) -> Any:
        return hugging_face.load_encoder(self.folder, self.family, self.options.layer)

    def layer_numbers(self) -> tuple[int, ...]:
        return tuple(range(len(hugging_face.layers_of(self.encoder)) + 1))

    def state_dim(self) -> int:
        return self.encoder.config.hidden_size

    def states(self, x: Tensor, **inputs: Tensor) -> Sequence[Tensor]:
        """Return the hidden states of the option `layer`, each (batch, ..., dim).

        With the option `tokens`, they have only the tokens that represent a window or picture.
        """
        layer, tokens = self.options.layer, getattr(self.options, "tokens", "mean")
        inputs[self.values] = x
        outputs = self.encoder(**inputs, output_hidden_states=layer != OUTPUT)
        if layer == ALL:
            states = outputs.hidden_states
        else:
            is_output = layer == OUTPUT
            states = [outputs.last_hidden_state if is_output else outputs.hidden_states[layer]]
        first = 0 if tokens == "mean" else self.family.class_tokens or int(tokens == "first")
        return [state[:, :first] for state in states] if first else states

    def embed(self, x: Tensor) -> Tensor:
        """Map the values that `prepare` returns to (batch, embedding_dim)."""
        return pool_layers(self.states(x), self.options.pooling)

    def preprocessing(self) -> dict[str, Any]:
        deciding = {k: v for k, v in self.config.items() if k not in hugging_face.NOTES}
        digest = hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()
        kind = self.config["model_type"]
        return {"model_type": kind, "config": digest, **super().preprocessing()}


class WaveformEncoder(SoundInput, EncoderNet):
    """Transformer on waveforms: HuBERT, MERT, wav2vec 2.0, WavLM; short clips are not padded."""

    Options = SoundEncoderOptions
    values: ClassVar[str] = "input_values"

    def embed_waves(self, waves: Tensor) -> Tensor:
        return EncoderNet.embed(self, waves)

    def least_samples(self) -> int:
        config, samples = self.encoder.config, 1
        for kernel, stride in zip(config.conv_kernel[::-1], config.conv_stride[::-1], strict=True):
            samples = (samples - 1) * stride + kernel
        return samples


class SpectrogramEncoder(EncoderNet, SoundInput):
    """Base of encoders of spectrograms of one length, which transformers computes."""

    Options = SoundEncoderOptions
    extractor_name: ClassVar[str]  # class of transformers
    recorded: ClassVar[tuple[str, ...]]  # attributes of the extractor to record

    def build(self, width: float) -> int:
        dim = super().build(width)
        library = hugging_face.transformers(self.folder)
        self.extractor: Any = getattr(library, self.extractor_name)(**self.preprocessor)
        if self.options.seconds > self.most_seconds():
            raise BadOption(
                f"{self.name}: seconds is {self.options.seconds}, but this encoder reads at most "
                f"{self.most_seconds():g} s: for longer clips, increase views instead"
            )
        return dim

    @abstractmethod
    def most_seconds(self) -> float:
        """Return the length of the spectrograms."""

    def preparation(self) -> dict[str, Any]:
        return {name: getattr(self.extractor, name) for name in self.recorded}

    def prepare(self, raw: Tensor) -> Tensor:
        """Map (batch, samples), NaN after a clip's end, to float32 spectrograms (batch, ...)."""
        waves = [wave[np.isfinite(wave)] for wave in raw.detach().cpu().numpy()]
        values = self.extractor(waves, sampling_rate=self.input.sr)[self.values]
        return torch.from_numpy(np.stack(values).astype(np.float32)).to(raw.device)


class ClapEncoder(SpectrogramEncoder):
    """CLAP's audio encoder for 10 s; shorter windows are repeated, longer ones are refused."""

    extractor_name: ClassVar[str] = "ClapFeatureExtractor"
    values: ClassVar[str] = "input_features"
    recorded: ClassVar[tuple[str, ...]] = (
        *("feature_size", "sampling_rate", "hop_length", "fft_window_size", "padding"),
        *("frequency_min", "frequency_max", "max_length_s", "truncation"),
    )

    def state_dim(self) -> int:
        if self.options.layer == ALL:
            raise BadOption(f"{self.name}: CLAP's layers have several sizes: name them, as in @1+2")
        config = self.encoder.config
        n_stages = len(config.depths)
        stage = n_stages if self.options.layer == OUTPUT else self.options.layer
        # Each stage except the last halves the picture and doubles the channels.
        return config.patch_embeds_hidden_size * 2 ** min(stage, n_stages - 1)

    def most_seconds(self) -> float:
        return self.extractor.max_length_s

    def embed(self, x: Tensor) -> Tensor:
        # The constructor refuses windows that CLAP would not read as a whole.
        is_longer = torch.zeros(len(x), 1, dtype=torch.bool, device=x.device)
        # (batch, dim, frequencies, times)
        (states,) = self.states(x, is_longer=is_longer)
        return pool(states.flatten(2).transpose(1, 2), self.options.pooling)


class AstEncoder(SpectrogramEncoder):
    """Audio Spectrogram Transformer; shorter windows are padded, as in its training."""

    Options: ClassVar[type[Any]] = SoundTokenOptions
    extractor_name: ClassVar[str] = "ASTFeatureExtractor"
    values: ClassVar[str] = "input_values"
    recorded: ClassVar[tuple[str, ...]] = (
        *("sampling_rate", "num_mel_bins", "max_length", "do_normalize", "mean", "std"),
    )

    def most_seconds(self) -> float:
        return self.extractor.max_length / 100  # frames of 10 ms

    def preparation(self) -> dict[str, Any]:
        # transformers computes the mel bands with torchaudio only if that is installed.
        by = "numpy" if hasattr(self.extractor, "mel_filters") else "torchaudio"
        return {**super().preparation(), "bands_by": by}


class WhisperEncoder(SpectrogramEncoder):
    """Whisper's encoder; windows are padded to 30 s, and only frames of sound are pooled."""

    extractor_name: ClassVar[str] = "WhisperFeatureExtractor"
    values: ClassVar[str] = "input_features"
    recorded: ClassVar[tuple[str, ...]] = (
        *("feature_size", "sampling_rate", "hop_length", "n_fft", "chunk_length", "dither"),
    )

    def most_seconds(self) -> float:
        return self.extractor.chunk_length

    def prepare(self, raw: Tensor) -> Tensor:
        """Map (batch, samples) to (batch, bands + 1, frames); the last band marks the sound."""
        mels = super().prepare(raw)
        times = torch.arange(mels.shape[2], device=mels.device) * self.extractor.hop_length
        is_sound = times < raw.isfinite().sum(dim=1, keepdim=True)
        return torch.cat([mels, is_sound[:, None].to(mels.dtype)], dim=1)

    def embed(self, x: Tensor) -> Tensor:
        all_states = self.states(x[:, :-1])
        # A state stands for two frames of the spectrogram.
        counts = x[:, -1, ::2].sum(dim=1).long().clamp(min=1).tolist()
        clips = [
            pool_layers([states[i, :n] for states in all_states], self.options.pooling)
            for i, n in enumerate(counts)
        ]
        return torch.stack(clips)


class PictureEncoder(PictureInput, base.FrameNet, EncoderNet):
    """Transformer on single pictures: the encoders of CLIP and SigLIP, ViT, DINOv2."""

    Options = PictureEncoderOptions
    options: PictureEncoderOptions

    def build(self, width: float) -> int:
        dim = super().build(width)
        image_size = self.encoder.config.image_size
        if not self.family.any_size and self.crop != image_size:
            raise BadWeights(
                f"{self.folder}: the preprocessor makes pictures of {self.crop} pixels per side, "
                f"but the encoder needs {image_size}"
            )
        return dim

    def frame_features(self, x: Tensor) -> Tensor:
        """Map float32 (n, 3, crop, crop) to (n, layers * dim)."""
        return pool_layers(self.states(x), "mean")


class VideoEncoder(PictureInput, EncoderNet):
    """Transformer on the frames of a clip together: VideoMAE."""

    Options = LayerOptions
    options: LayerOptions

    @classmethod
    def input_of(cls, options: Any) -> cards.VideoInput:
        n_frames = cls.config.get("num_frames", 16)
        return cards.VideoInput(n_frames, encoder_inputs.picture_sizes(cls)[0])


BASES: dict[str, type[encoder_inputs.StatedInput]] = {
    "waveform": WaveformEncoder,
    "clap": ClapEncoder,
    "ast": AstEncoder,
    "whisper": WhisperEncoder,
    "picture": PictureEncoder,
    "video": VideoEncoder,
}


def make_net_class(folder: EncoderName) -> type[encoder_inputs.StatedInput]:
    """Return the class of a folder's net, after reading all its files except the weights."""
    config = hugging_face.read_config(folder.path)
    family = hugging_face.FAMILIES[config["model_type"]]
    contents = {
        "folder": folder.path,
        "config": config,
        "family": family,
        "stated_in": f"{folder.path}: preprocessor_config.json",
        "preprocessor": hugging_face.read_preprocessor(folder.path),
    }
    return encoder_inputs.named_class(BASES[family.reads], folder, contents)

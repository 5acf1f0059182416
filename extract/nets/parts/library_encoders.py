"""Nets of encoders in other libraries and files: HEAR modules, timm, torchaudio and ONNX.

None of them is fetched: weights come from a local file. A module of HEAR is code, which is run only
because the user names it on the command line.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mvemo.cache.spec import content_digest
from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts import base, encoder_inputs, encoders
from mvemo.extract.nets.parts.encoder_names import ALL, OUTPUT, EncoderName
from mvemo.manifests import plugins, text_files
from mvemo.manifests.errors import BadOption, MissingFile

# Suffixes of the card of an ONNX file, and its keys; the others are those of a
# preprocessor_config.json.
CARDS: Mapping[str, Any] = {".toml": text_files.read_toml, ".json": text_files.read_json}
KEYS = (
    *("sampling_rate", "do_normalize", "size", "crop_size", "do_center_crop", "image_mean"),
    *("image_std", "do_rescale", "rescale_factor", "input", "output"),
)


class LibraryNet(encoder_inputs.StatedInput):
    """Base of the nets of other libraries; `make_net_class` derives one for each encoder."""

    encoder_name: ClassVar[EncoderName]

    @property
    def facts(self) -> dict[str, Any]:
        """Return what identifies an encoder whose tensors the net does not have."""
        return {}

    def preprocessing(self) -> dict[str, Any]:
        source, place = self.encoder_name.facts[:2]
        # The path of a file is not recorded, because the same file elsewhere is the same net.
        record = (source, "" if source == "onnx" else place)
        return {"encoder": list(record), **self.facts, **super().preprocessing()}

    def from_published(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        state = self.state_dict()
        places = {name: (f"encoder.{name}", value) for name, value in tensors.items()}
        return {name: place for name, place in places.items() if place[0] in state}


class HearEncoder(encoder_inputs.SoundInput, LibraryNet):
    """Module with the functions of HEAR 2021 (Turian et al. 2022, "HEAR: Holistic Evaluation").

    https://hearbenchmark.com/hear-api.html: `load_model` and `get_scene_embeddings`.
    """

    brings_weights = True
    module: ClassVar[Any]

    def load_encoder(self) -> Any:
        return load_hear(self.module, self.encoder_name)

    def state_dim(self) -> int:
        return int(self.encoder.scene_embedding_size)

    @property
    def facts(self) -> dict[str, Any]:
        file = self.encoder_name.facts.file
        opened = {"file": content_digest(Path(file))} if file else {}
        return {"module": plugins.code_digest(self.module.__name__), **opened}

    def embed_waves(self, waves: Tensor) -> Tensor:
        return self.module.get_scene_embeddings(waves, self.encoder)


class TimmEncoder(encoder_inputs.PictureInput, LibraryNet, base.FrameNet):
    """Model of timm without its classifier."""

    def load_encoder(self) -> Any:
        import timm

        return timm.create_model(self.encoder_name.facts.place, pretrained=False, num_classes=0)

    def state_dim(self) -> int:
        return self.encoder.num_features

    def frame_features(self, x: Tensor) -> Tensor:
        return self.encoder(x)


class TorchaudioEncoder(encoder_inputs.SoundInput, LibraryNet):
    """Bundle of torchaudio: wav2vec 2.0, HuBERT or WavLM; short clips are not padded."""

    Options = encoders.SoundEncoderOptions
    # Epsilon of torch.nn.functional.layer_norm, with which torchaudio normalises waveforms.
    least_variance: ClassVar[float] = 1e-5
    bundle: ClassVar[Any]

    def load_encoder(self) -> Any:
        import torchaudio

        # Only a bundle knows the sizes of its model, and its public functions download weights.
        sizes = {**self.bundle._params, "aux_num_out": None}
        is_wavlm = getattr(self.bundle, "_model_type", "") == "WavLM"
        make = torchaudio.models.wavlm_model if is_wavlm else torchaudio.models.wav2vec2_model
        return make(**sizes)

    def layer_numbers(self) -> tuple[int, ...]:
        return tuple(range(1, len(self.encoder.encoder.transformer.layers) + 1))

    def state_dim(self) -> int:
        known, layer = self.layer_numbers(), self.options.layer
        if layer not in (*known, OUTPUT, ALL):
            last = len(known)
            raise BadOption(
                f"{self.name}: layer is {layer}: it must be 1 to {last}, -1 (output) or -2 (all)"
            )
        return self.bundle._params["encoder_embed_dim"]

    def embed_waves(self, waves: Tensor) -> Tensor:
        layer = self.options.layer
        if layer == OUTPUT:
            states = [self.encoder(waves)[0]]
        else:
            states = self.encoder.extract_features(waves, num_layers=max(layer, 0) or None)[0]
        return encoder_inputs.pool_layers(
            states if layer == ALL else states[-1:], self.options.pooling
        )

    def least_samples(self) -> int:
        samples = 1
        for _, kernel, stride in self.bundle._params["extractor_conv_layer_config"][::-1]:
            samples = (samples - 1) * stride + kernel
        return samples


class OnnxNet(LibraryNet):
    """Base of encoders in ONNX files; they run on the CPU."""

    brings_weights = True

    def load_encoder(self) -> Any:
        runtime, path = _library("onnxruntime", self.encoder_name), self.encoder_name.path
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        try:
            # Read from bytes, a model cannot refer to other files.
            session = runtime.InferenceSession(path.read_bytes(), options, ["CPUExecutionProvider"])
        except Exception as error:
            # onnxruntime raises classes of its own, which differ between releases.
            raise BadWeights(f"{path}: cannot be loaded: {_line(error)}") from error
        self.ends: dict[str, str] = {}
        for end, known in (("input", session.get_inputs()), ("output", session.get_outputs())):
            names = [each.name for each in known]
            self.ends[end] = name = self.preprocessor.get(end, names[0])
            if name not in names:
                expected = ", ".join(names)
                raise BadWeights(f"{self.stated_in}: {end} is {name!r}: expected one of {expected}")
        return session

    @property
    def facts(self) -> dict[str, Any]:
        return {"file": content_digest(self.encoder_name.path), **self.ends}

    def run(self, x: Tensor) -> Tensor:
        """Return the output (batch, dim) for an input; frames (batch, frames, dim) are averaged."""
        fed, path = (
            np.ascontiguousarray(x.detach().cpu().numpy(), np.float32),
            self.encoder_name.path,
        )
        try:
            (values,) = self.encoder.run([self.ends["output"]], {self.ends["input"]: fed})
        except Exception as error:
            raise BadWeights(f"{path}: cannot read shape {fed.shape}: {_line(error)}") from error
        if values.ndim not in (2, 3) or len(values) != len(x):
            raise BadWeights(
                f"{path}: output {self.ends['output']}: expected the shape ({len(x)}, dim) or "
                f"({len(x)}, frames, dim), got {values.shape}"
            )
        found = torch.from_numpy(values.astype(np.float32)).to(x.device)
        return found.mean(dim=1) if values.ndim == 3 else found


class OnnxSound(encoder_inputs.SoundInput, OnnxNet):
    def state_dim(self) -> int:
        return self.run(torch.zeros(1, self.input.samples)).shape[-1]

    def embed_waves(self, waves: Tensor) -> Tensor:
        return self.run(waves)


class OnnxPictures(encoder_inputs.PictureInput, OnnxNet, base.FrameNet):
    def state_dim(self) -> int:
        return self.run(torch.zeros(1, 3, self.crop, self.crop)).shape[-1]

    def frame_features(self, x: Tensor) -> Tensor:
        return self.run(x)


def make_net_class(name: EncoderName) -> type[encoder_inputs.StatedInput]:
    makers = {"hear": _hear, "timm": _timm, "torchaudio": _torchaudio, "onnx": _onnx}
    base, contents = makers[name.facts.source](name)
    return encoder_inputs.named_class(
        base, name, {"encoder_name": name, "stated_in": name.entry, **contents}
    )


Made = tuple[type[encoder_inputs.StatedInput], dict[str, Any]]


def _hear(name: EncoderName) -> Made:
    try:
        module = importlib.import_module(name.facts.place)
    except Exception as error:
        raise BadOption(f"{name.entry}: cannot be imported: {_line(error)}") from error
    for function in ("load_model", "get_scene_embeddings"):
        if not callable(getattr(module, function, None)):
            raise BadOption(f"{name.entry}: expected the function {function} of HEAR 2021")
    rate = getattr(load_hear(module, name), "sample_rate", None)
    stated = {"sampling_rate": rate, "do_normalize": False}
    return HearEncoder, {"module": module, "preprocessor": stated}


def load_hear(module: Any, name: EncoderName) -> Any:
    """Return the model of a HEAR 2021 module; raise `BadOption` if it cannot be used."""
    file = name.facts.file
    if file and not Path(file).is_file():
        raise MissingFile(f"{file}: no such weight file")
    try:
        # The model gets its weights even if the caller builds nets on the meta device.
        with torch.device("cpu"):
            model = module.load_model(file) if file else module.load_model()
    except Exception as error:
        raise BadOption(f"{name.entry}: load_model fails: {_line(error)}") from error
    size = getattr(model, "scene_embedding_size", None)
    if not isinstance(size, int) or size < 1:
        raise BadOption(
            f"{name.entry}: its model has scene_embedding_size {size!r}: expected an integer "
            "above 0"
        )
    return model


def _timm(name: EncoderName) -> Made:
    timm = _library("timm", name)
    if not timm.is_model(name.facts.place):
        raise BadOption(
            f"{name.entry}: timm {timm.__version__} has no model of this name: expected one of "
            "timm.list_models()"
        )
    try:
        known = timm.models.get_pretrained_cfg(name.facts.place, allow_unregistered=False)
    except RuntimeError as error:  # for an unknown tag after the dot
        raise BadOption(f"{name.entry}: {_line(error)}") from error
    facts = timm.data.resolve_data_config(pretrained_cfg=known.to_dict())
    channels, height, width = facts["input_size"]
    if channels != 3 or height != width:
        raise BadOption(f"{name.entry}: reads {facts['input_size']}: expected square RGB pictures")
    stated = {
        "size": round(height / facts["crop_pct"]),
        "crop_size": height,
        "image_mean": list(facts["mean"]),
        "image_std": list(facts["std"]),
    }
    return TimmEncoder, {"preprocessor": stated}


def _torchaudio(name: EncoderName) -> Made:
    pipelines = _library("torchaudio", name).pipelines
    bundle = getattr(pipelines, name.facts.place, None)
    if not isinstance(bundle, pipelines.Wav2Vec2Bundle):
        raise BadOption(
            f"{name.entry}: unknown bundle; expected one of wav2vec 2.0, HuBERT or WavLM of "
            "torchaudio.pipelines, such as HUBERT_BASE"
        )
    stated = {
        "sampling_rate": round(bundle.sample_rate),
        "do_normalize": bool(bundle._normalize_waveform),
    }
    return TorchaudioEncoder, {"bundle": bundle, "preprocessor": stated}


def _onnx(name: EncoderName) -> Made:
    path = name.path
    if not path.is_file():
        raise MissingFile(f"{path}: no such ONNX file")
    found = [path.with_suffix(suffix) for suffix in CARDS if path.with_suffix(suffix).is_file()]
    if not found:
        raise MissingFile(
            f"{path}: has no card {path.stem}.toml or {path.stem}.json next to it, which states "
            "sampling_rate for sound, or size for pictures"
        )
    card = CARDS[found[0].suffix](found[0])
    for key in sorted(set(card) - {*KEYS}):
        raise BadOption(f"{found[0]}: unknown key {key!r}; expected some of {', '.join(KEYS)}")
    if ("sampling_rate" in card) == ("size" in card):
        raise BadOption(f"{found[0]}: expected sampling_rate for sound, or size for pictures")
    base = OnnxSound if "sampling_rate" in card else OnnxPictures
    # Encoders of sound that users export rarely read normalised samples.
    return base, {"preprocessor": {"do_normalize": "size" in card, **card}, "stated_in": found[0]}


def _library(module: str, name: EncoderName) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = {"onnxruntime": "onnx"}.get(module, module)
        raise BadOption(
            f"{name.entry}: needs the package {module}: run pip install '.[{extra}]' in mvemo's "
            "folder"
        ) from error


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]

"""Folders of encoders in the layout of Hugging Face, read without network access.

The ``config.json`` of a folder names a kind of model. For the kinds in `FAMILIES`, the class
of the transformers library is used. Code in a folder is never run. Weights are read from
safetensors only, which hold numbers and no code. The classes are named here because
transformers' ``AutoModel`` would load both towers of CLIP.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets.parts.encoder_names import ALL
from mvemo.manifests.errors import BadOption, MissingFile
from mvemo.manifests.text_files import read_json

# Keys of a config that do not affect the computation.
NOTES = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "architectures")
# Parameters that are used only during training with masked input.
_MASKS = ("masked_spec_embed", "mask_token")


@dataclass(frozen=True)
class Family:
    """Family of encoders that the same class of transformers loads."""

    model: str  # name of the model's class in transformers
    reads: Literal["waveform", "clap", "ast", "whisper", "picture", "video"]
    tower: str = ""  # attribute of the model that is the encoder; empty for the model itself
    # Arguments of the model's constructor.
    arguments: Mapping[str, Any] = field(default_factory=dict)
    # Values that replace those of the folder's config. They remove everything random except
    # dropout, and layers that no hidden state needs.
    settings: Mapping[str, Any] = field(default_factory=dict)
    class_tokens: int = 0  # number of first tokens that represent the whole picture or window
    any_size: bool = False  # True if pictures of any size can be read


_SPEECH = {"layerdrop": 0.0, "apply_spec_augment": False, "add_adapter": False}
_HUBERT = Family("HubertModel", "waveform", settings=_SPEECH)
_CLIP = Family("CLIPVisionModel", "picture", class_tokens=1)
_SIGLIP = Family("SiglipVisionModel", "picture", settings={"vision_use_head": False})
_NO_POOLER = {"add_pooling_layer": False}
# Key: model_type of a config.json.
FAMILIES: Mapping[str, Family] = {
    "hubert": _HUBERT,
    # MERT is HuBERT except for options that `read_config` rejects.
    "mert_model": _HUBERT,
    "wav2vec2": Family("Wav2Vec2Model", "waveform", settings=_SPEECH),
    "wavlm": Family("WavLMModel", "waveform", settings=_SPEECH),
    "clap": Family("ClapModel", "clap", tower="audio_model"),
    "clap_audio_model": Family("ClapAudioModel", "clap"),
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "vit": Family("ViTModel", "picture", arguments=_NO_POOLER, class_tokens=1),
    "audio-spectrogram-transformer": Family("ASTModel", "ast", class_tokens=2),
    "whisper": Family("WhisperModel", "whisper", tower="encoder"),
    "videomae": Family("VideoMAEModel", "video"),
    "dinov2": Family("Dinov2Model", "picture", class_tokens=1, any_size=True),
}
# Options by which a MERT differs from HuBERT. attention_relax does not change the softmax.
_FOREIGN = ("feature_extractor_cqt", "deepnorm")


def read_config(folder: Path) -> dict[str, Any]:
    """Return a folder's ``config.json``, after a check of its kind and its weight files."""
    if not folder.is_dir():
        raise MissingFile(f"{folder}: the folder of the encoder does not exist")
    config = _read_json(folder, "config.json")
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise BadWeights(
            f"{folder}: config.json: unknown model_type {kind!r}; expected one of "
            f"{', '.join(FAMILIES)}"
        )
    for name in _FOREIGN if kind == "mert_model" else ():
        if config.get(name):
            raise BadWeights(
                f"{folder}: config.json: the option {name} needs code from the folder, but mvemo "
                "never runs such code"
            )
    weights = ("model.safetensors", "model.safetensors.index.json")
    if not any((folder / name).is_file() for name in weights):
        others = sorted(path.name for path in folder.glob("*.bin"))
        rest = f" ({others[0]} is a pickle, which could run code)" if others else ""
        raise MissingFile(
            f"{folder}: has no model.safetensors{rest}: save the model in the safetensors format"
        )
    return config


def read_preprocessor(folder: Path) -> dict[str, Any]:
    """Return a folder's ``preprocessor_config.json``, which describes the encoder's input."""
    for name, key in (
        ("preprocessor_config.json", ""),
        ("processor_config.json", "feature_extractor"),
        ("processor_config.json", "image_processor"),
    ):
        if (folder / name).is_file():
            found = _read_json(folder, name)
            record = found.get(key) if key else found
            if isinstance(record, dict):
                return record
    raise MissingFile(
        f"{folder}: has no preprocessor_config.json: add this file, which describes the input"
    )


def load_encoder(folder: Path, family: Family, layer: int) -> Any:
    """Return the encoder of a folder in float32, without layers that do not affect `layer`."""
    library = transformers(folder)
    try:
        # The encoder gets its weights even if the caller builds nets on the meta device.
        with _quiet(library), torch.device("cpu"):
            kind = getattr(library, family.model)
            config = kind.config_class.from_pretrained(folder, local_files_only=True)
            for name, value in family.settings.items():
                setattr(config, name, value)
            model, report = kind.from_pretrained(
                folder,
                config=config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **family.arguments,
            )
    except Exception as error:
        # transformers raises many types of error for a damaged or unsuitable folder.
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BadWeights(f"{folder}: cannot be loaded: {lines[0][:200]}") from error
    encoder = getattr(model, family.tower) if family.tower else model
    _refuse_incomplete(folder, encoder, f"{family.tower}." * bool(family.tower), report)
    layers = layers_of(encoder)
    n_layers = len(layers)
    if not ALL <= layer <= n_layers:
        raise BadWeights(
            f"{folder}: layer is {layer}: it must be 0 to {n_layers}, -1 (output) or -2 (all)"
        )
    if 0 <= layer < n_layers and family.reads != "clap":
        # One more layer than needed stays, because some models normalise the output of their last
        # layer, but no model normalises the input of that layer.
        del layers[layer + 1 :]
    return encoder


def transformers(folder: Path) -> Any:
    """Import the transformers library, or raise an error that says how to install it."""
    try:
        import safetensors  # noqa: F401
        import transformers
    except ImportError as error:
        raise BadOption(
            f"hf:{folder}: needs the packages transformers and safetensors: run pip install "
            "'.[hf]' in mvemo's folder"
        ) from error
    return transformers


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    try:
        record: dict[str, Any] = read_json(folder / name)
    except MissingFile:
        raise MissingFile(f"{folder}: has no {name}; expected an encoder's folder") from None
    return record


def _refuse_incomplete(
    folder: Path, encoder: nn.Module, prefix: str, report: Mapping[str, Any]
) -> None:
    """Raise `BadWeights` for tensors that are still random and do not only mask the input."""
    state = encoder.state_dict()
    names = {name.removeprefix(prefix) for name in report["missing_keys"]} & set(state)
    masks = {name for name in names if name.endswith(_MASKS)}
    for name in masks:
        state[name].zero_()
    if names - masks:
        raise BadWeights(
            f"{folder}: model.safetensors does not contain the whole encoder ({len(names - masks)} "
            f"tensors are missing, for example {min(names - masks)})"
        )


def layers_of(encoder: nn.Module) -> nn.ModuleList:
    """Return the encoder's layers or stages."""
    for name, module in encoder.named_modules():
        if isinstance(module, nn.ModuleList) and name.split(".")[-1] in ("layer", "layers"):
            return module
    raise BadWeights(f"{type(encoder).__name__}: this version of mvemo cannot find its layers")


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Suppress the library's tables and progress bars; errors are reported here, in one line."""
    logging = library.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()

"""Folders of small encoders with random weights, as Hugging Face's libraries save them."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mvemo.extract.nets import NETS, add_encoders, default_settings
from mvemo.extract.settings import RunSettings
from mvemo.extract.training.protocols import make_net

transformers = pytest.importorskip(
    "transformers", reason="the extra hf, transformers and safetensors, is not installed"
)
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

SR = 8000
SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
SPEECH = {
    **SMALL,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
PICTURE = {**SMALL, "image_size": 32, "patch_size": 16}
TEXT = {
    **SMALL,
    "vocab_size": 9,
    "max_position_embeddings": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SWIN = {
    "spec_size": 32,
    "num_mel_bins": 8,
    "patch_size": 2,
    "patch_stride": [2, 2],
    "patch_embeds_hidden_size": 4,
    "hidden_size": 8,
    "depths": [1, 1],
    "num_attention_heads": [1, 1],
    "window_size": 4,
    "num_hidden_layers": 2,
}
WAVES = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": SR}
MELS = {
    "feature_extractor_type": "ClapFeatureExtractor",
    "sampling_rate": SR,
    "feature_size": 8,
    "hop_length": 64,
    "fft_window_size": 128,
    "max_length_s": 1,
    "frequency_max": 4000,
    "truncation": "rand_trunc",
    "padding": "repeatpad",
}
AST = {
    **SMALL,
    "num_mel_bins": 16,
    "max_length": 104,
    "patch_size": 8,
    "frequency_stride": 8,
    "time_stride": 8,
}
WHISPER = {
    "d_model": 8,
    "encoder_layers": 3,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_mel_bins": 8,
    "max_source_positions": 50,
    "max_target_positions": 8,
    "vocab_size": 9,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 1),
    "decoder_start_token_id": 2,
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens")),
}
VIDEO = {**PICTURE, "num_frames": 4, "tubelet_size": 2}
AST_MELS = {
    "feature_extractor_type": "ASTFeatureExtractor",
    "sampling_rate": 16000,
    "num_mel_bins": 16,
    "max_length": 104,
}
WHISPER_MELS = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "sampling_rate": 16000,
    "feature_size": 8,
    "chunk_length": 1,
}
PIXELS = {
    "size": {"shortest_edge": 40},
    "crop_size": {"height": 32, "width": 32},
    "do_center_crop": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.25],
}
# model_type to transformers' model, its config, and how its input is prepared.
KINDS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "hubert": ("HubertModel", "HubertConfig", SPEECH, WAVES),
    "wav2vec2": ("Wav2Vec2Model", "Wav2Vec2Config", SPEECH, WAVES),
    "wavlm": ("WavLMModel", "WavLMConfig", SPEECH, WAVES),
    "clap": ("ClapModel", "ClapConfig", {"text_config": TEXT, "audio_config": SWIN}, MELS),
    "clip": ("CLIPModel", "CLIPConfig", {"text_config": TEXT, "vision_config": PICTURE}, PIXELS),
    "siglip": (
        "SiglipModel",
        "SiglipConfig",
        {"text_config": TEXT, "vision_config": PICTURE},
        PIXELS,
    ),
    "vit": ("ViTForImageClassification", "ViTConfig", PICTURE, PIXELS),
    "audio-spectrogram-transformer": ("ASTModel", "ASTConfig", AST, AST_MELS),
    "whisper": ("WhisperForConditionalGeneration", "WhisperConfig", WHISPER, WHISPER_MELS),
    "videomae": ("VideoMAEForVideoClassification", "VideoMAEConfig", VIDEO, PIXELS),
    "dinov2": ("Dinov2Model", "Dinov2Config", {**PICTURE, "image_size": 64}, PIXELS),
}


def save_encoder(folder, kind, seed=0):
    """Save a model of a kind with random weights; returns it."""
    model_name, config_name, config, preprocessor = KINDS[kind]
    torch.manual_seed(seed)
    model = getattr(transformers, model_name)(getattr(transformers, config_name)(**config))
    model.eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return model


def edit_json(path, **values):
    """Change values of a JSON file; those that are None are left out."""
    record = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({k: v for k, v in record.items() if v is not None}))


def net_of(entry, weights="", **options):
    """The net of an entry as a run makes it, whose one window is a second or two frames long."""
    (name,) = add_encoders([entry])
    plan, kind = default_settings(name), NETS[name]
    length = {"n_frames": 2} if hasattr(kind.Options, "n_frames") else {}
    length |= {"seconds": 1.0} if kind.modality == "audio" else {}
    plan = replace(plan, weights=str(weights), options={**plan.options, **length, **options})
    return make_net(plan, 3, RunSettings(protocol="frozen"))[0].eval()


def waves(sr=SR):
    """Two sounds of a second, the second half as long."""
    raw = 0.1 * torch.randn(2, sr, generator=torch.Generator().manual_seed(1))
    raw[1, sr // 2 :] = torch.nan
    return raw


@torch.inference_mode()
def embed(net, raw):
    return net.embed(net.prepare(raw)).numpy()


def assert_embeds(net, raw, expected):
    np.testing.assert_allclose(embed(net, raw), expected, rtol=1e-5, atol=1e-5)

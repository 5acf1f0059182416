"""Encoders of local folders: transformers' own hidden states, and one line for a bad folder."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from encoder_samples import (
    KINDS,
    SR,
    assert_embeds,
    edit_json,
    embed,
    net_of,
    save_encoder,
    transformers,
    waves,
)

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets import AudioInput, VideoInput, add_encoders, weights_digest
from mvemo.extract.nets.parts.encoder_names import parse_entry
from mvemo.manifests.errors import BadFile, BadOption, MissingFile

TOWERS = {"clap": "audio_model", "clip": "vision_model", "siglip": "vision_model", "vit": "vit"}


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Folder and model of each kind."""
    folder = tmp_path_factory.mktemp("encoders")
    return {kind: (folder / kind, save_encoder(folder / kind, kind)) for kind in KINDS}


def at(folder, layer):
    return f"hf:{folder}" + f"@{layer}" * (layer >= 0)


@torch.inference_mode()
def hidden(model, layer, *inputs):
    """The library's outputs, and the states of a layer."""
    outputs = model(*inputs, output_hidden_states=True)
    return outputs, outputs.last_hidden_state if layer < 0 else outputs.hidden_states[layer]


def extracted(kind, folder, sounds, sr=SR):
    """What the library's extractor of this kind makes of sounds."""
    extractor = getattr(transformers, f"{kind}FeatureExtractor").from_pretrained(folder)
    sounds = [wave[wave.isfinite()].numpy() for wave in sounds]
    values = extractor(sounds, sampling_rate=sr, return_tensors="pt")
    return values[extractor.model_input_names[0]].float()


@pytest.mark.parametrize("kind", ["hubert", "wav2vec2", "wavlm"])
@pytest.mark.parametrize("layer", [-1, 0, 2, 3])
def test_sound_gives_the_hidden_states_of_each_clip_by_itself(kind, layer, encoders):
    folder, model = encoders[kind]
    net, expected = net_of(at(folder, layer), pooling="mean+std"), []
    assert net.input == AudioInput(SR, 1.0, mark_end=True)
    for wave in waves():
        _, states = hidden(model, layer, extracted("Wav2Vec2", folder, [wave]))
        expected.append(torch.cat([states[0].mean(0), states[0].std(0, correction=0)]).numpy())
    assert_embeds(net, waves(), expected)


@pytest.mark.parametrize("kind", ["clip", "siglip", "vit", "dinov2"])
@pytest.mark.parametrize("layer", [-1, 1])
def test_pictures_give_the_tokens_of_each_frame(kind, layer, encoders):
    folder, model = encoders[kind]
    tower = getattr(model, TOWERS[kind]) if kind in TOWERS else model
    net = net_of(at(folder, layer))
    assert net.input == VideoInput(2, 40)
    raw = torch.randint(0, 256, (2, 2, 40, 40, 3), dtype=torch.uint8)
    pixels = raw[:, :, 4:36, 4:36].numpy() / 255
    pixels = (pixels - [0.5, 0.4, 0.3]) / [0.2, 0.3, 0.25]
    frames = torch.from_numpy(pixels.reshape(4, 32, 32, 3)).permute(0, 3, 1, 2).float()
    _, states = hidden(tower, layer, frames)
    of_frames = states.mean(1) if kind == "siglip" else states[:, 0]
    expected = of_frames.reshape(2, 2, -1).mean(1).numpy()
    assert_embeds(net, raw, expected)
    with torch.inference_mode():
        pieces = net.pool_pieces(net.embed_pieces(raw[0][:, None])).numpy()
    np.testing.assert_allclose(pieces, expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", [-1, 0, 2])
def test_claps_tower_reads_its_own_spectrogram(layer, encoders):
    folder, model = encoders["clap"]
    outputs, states = hidden(model.audio_model, layer, extracted("Clap", folder, waves()))
    expected = outputs.pooler_output if layer < 0 else states.mean((2, 3))
    assert_embeds(net_of(at(folder, layer)), waves(), expected)


@pytest.mark.parametrize("layer", [-1, 0, 2, 3])
def test_the_spectrogram_transformer_gives_its_class_tokens(layer, encoders):
    folder, model = encoders["audio-spectrogram-transformer"]
    values = extracted("AST", folder, waves(16000), 16000)
    outputs, states = hidden(model, layer, values)
    expected = outputs.pooler_output if layer < 0 else states[:, :2].mean(1)
    assert_embeds(net_of(at(folder, layer)), waves(16000), expected)
    assert_embeds(net_of(at(folder, layer), tokens="mean"), waves(16000), states.mean(1))


@pytest.mark.parametrize("layer", [-1, 0, 2, 3])
def test_whisper_gives_the_frames_of_the_sound(layer, encoders):
    folder, model = encoders["whisper"]
    values = extracted("Whisper", folder, waves(16000), 16000)
    _, states = hidden(model.get_encoder(), layer, values)
    # A frame of the encoder stands for 20 ms.
    expected = torch.stack([states[0].mean(0), states[1, :25].mean(0)])
    net = net_of(at(folder, layer))
    assert not any("decoder" in name for name in net.state_dict())
    assert_embeds(net, waves(16000), expected)
    with pytest.raises(BadOption, match=r"this encoder reads at most 1 s"):
        net_of(f"hf:{folder}", seconds=2.0)


@pytest.mark.parametrize("layer", [-1, 1])
def test_videomae_reads_the_frames_together(layer, encoders):
    folder, model = encoders["videomae"]
    net = net_of(at(folder, layer))
    assert net.input == VideoInput(4, 40)
    raw = torch.randint(0, 256, (2, 4, 40, 40, 3), dtype=torch.uint8)
    processor = transformers.VideoMAEImageProcessor.from_pretrained(folder)
    clips = [list(clip.permute(0, 3, 1, 2)) for clip in raw]
    inputs = processor(clips, return_tensors="pt")
    _, states = hidden(model.videomae, layer, inputs.pixel_values)
    assert_embeds(net, raw, states.mean(1))


@pytest.mark.parametrize(
    "kind", ["hubert", "vit", "videomae", "whisper", "audio-spectrogram-transformer"]
)
@pytest.mark.parametrize("pooling", ["mean", "mean+std"])
def test_all_layers_are_the_layers_one_after_the_other(kind, pooling, encoders):
    folder, _ = encoders[kind]
    net = net_of(f"hf:{folder}@all", pooling=pooling)
    single = [net_of(f"hf:{folder}@{layer}", pooling=pooling) for layer in range(4)]
    assert (net.name, net.layers) == (f"{folder.name}-layers", (0, 1, 2, 3))
    size = (*net.input.__dict__.values(),) if net.modality == "video" else ()
    raw = waves(getattr(net.input, "sr", SR))
    if size:
        raw = torch.randint(0, 256, (2, size[0], size[1], size[1], 3), dtype=torch.uint8)
    assert_embeds(net, raw, np.concatenate([embed(one, raw) for one in single], axis=1))


def test_mert_is_hubert_and_needs_no_code_of_its_folder(encoders, tmp_path):
    source, _ = encoders["hubert"]
    folder = shutil.copytree(source, tmp_path / "MERT-v1")
    code = {"AutoModel": "modeling_MERT.MERTModel", "AutoConfig": "modeling_MERT.MERTConfig"}
    edit_json(
        folder / "config.json",
        model_type="mert_model",
        auto_map=code,
        attention_relax=32.0,
        feature_extractor_cqt=False,
    )
    (folder / "modeling_MERT.py").write_text("raise SystemExit('code of a folder was run')\n")
    np.testing.assert_array_equal(
        embed(net_of(f"hf:{folder}"), waves()), embed(net_of(f"hf:{source}"), waves())
    )
    edit_json(folder / "config.json", feature_extractor_cqt=True)
    with pytest.raises(BadWeights, match=r"feature_extractor_cqt needs code from the folder"):
        net_of(f"hf:{folder}")


def test_the_record_has_the_weights_and_not_the_path(encoders, tmp_path):
    source, _ = encoders["vit"]
    folder = shutil.copytree(source, tmp_path / "vit")
    net, copy = net_of(f"hf:{source}"), net_of(f"hf:{folder}")
    assert weights_digest(net) == weights_digest(copy)
    assert net.preprocessing() == copy.preprocessing()
    assert str(source) not in str(net.preprocessing())
    save_encoder(folder, "vit", seed=1)
    assert weights_digest(net_of(f"hf:{folder}")) != weights_digest(net)
    edit_json(folder / "config.json", num_attention_heads=1)
    assert net_of(f"hf:{folder}").preprocessing() != net.preprocessing()


def test_an_encoder_can_be_trained(encoders):
    net = net_of(f"hf:{encoders['hubert'][0]}@1").train()
    net(net.prepare(waves())).square().sum().backward()
    gradients = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    assert "encoder.feature_projection.projection.weight" in gradients
    assert "encoder.encoder.layers.0.attention.q_proj.weight" in gradients


# File of the folder, what becomes of it (deleted, replaced, or some values changed), and the error.
BAD = [
    ("config.json", None, MissingFile, "has no config.json"),
    ("config.json", "{", BadFile, "config.json: not JSON"),
    ("config.json", {"model_type": "bert"}, BadWeights, "unknown model_type 'bert'; expected one"),
    ("config.json", {"num_hidden_layers": 4}, BadWeights, r"not contain the whole encoder \(\d+ "),
    ("model.safetensors", None, MissingFile, r"has no model.safetensors \(old.bin is a pickle"),
    ("model.safetensors", "-", BadWeights, "cannot be loaded: "),
    ("preprocessor_config.json", None, MissingFile, "has no preprocessor_config.json"),
    ("preprocessor_config.json", {"sampling_rate": None}, BadWeights, "sampling_rate is None: it"),
]


@pytest.mark.parametrize(("file", "change", "kind", "message"), BAD)
def test_a_bad_folder_is_told_in_one_line(file, change, kind, message, encoders, tmp_path):
    folder = shutil.copytree(encoders["hubert"][0], tmp_path / "encoder")
    (folder / "old.bin").touch()
    if change is None:
        (folder / file).unlink()
    elif isinstance(change, str):
        (folder / file).write_text(change)
    else:
        edit_json(folder / file, **change)
    with pytest.raises(kind, match=message) as caught:
        net_of(f"hf:{folder}")
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_bad_options_and_sizes_are_told(encoders, tmp_path):
    with pytest.raises(BadOption, match="clap-layers: CLAP's layers have several sizes"):
        net_of(f"hf:{encoders['clap'][0]}@all")
    with pytest.raises(BadWeights, match="layer is 4: it must be 0 to 3, -1 "):
        net_of(f"hf:{encoders['hubert'][0]}@4")
    with pytest.raises(BadOption, match="pooling: expected one of mean, mean"):
        net_of(f"hf:{encoders['hubert'][0]}", pooling="max")
    with pytest.raises(BadOption, match="reads at most 1 s"):
        net_of(f"hf:{encoders['clap'][0]}", seconds=2.0)
    folder = shutil.copytree(encoders["clip"][0], tmp_path / "clip")
    edit_json(folder / "preprocessor_config.json", crop_size={"height": 24, "width": 24})
    with pytest.raises(
        BadWeights, match=r"makes pictures of 24 pixels per side, but the encoder needs 32"
    ):
        net_of(f"hf:{folder}")
    edit_json(folder / "preprocessor_config.json", crop_size={"height": 24, "width": 32})
    with pytest.raises(BadWeights, match="expected the side of square pictures, in pixels"):
        net_of(f"hf:{folder}")


def test_names_of_folders_are_nobody_elses():
    with pytest.raises(BadOption, match="i3d is the name of an existing net: rename it"):
        add_encoders(["hf:models/i3d"])
    with pytest.raises(BadOption, match="hf:a/m and hf:b/m would have the same net name 'm'"):
        add_encoders(["hf:a/m", "hf:b/m"])
    with pytest.raises(BadOption, match=r"'hf:m@4\+4': duplicate layer"):
        add_encoders(["hf:m@4+4"])
    with pytest.raises(BadOption, match="write it as hf:FOLDER"):
        add_encoders(["hf:"])


def test_the_name_of_a_folder_keeps_the_folder_between_processes():
    (name,) = add_encoders(["hf:models/MERT@4"])
    other = pickle.loads(pickle.dumps({name: name}))["MERT-layer4"]
    assert (other, other.path, other.facts.layer) == (name, Path("models/MERT"), 4)
    assert other != add_encoders(["hf:others/MERT@4"])[0]


def test_the_files_of_an_encoder_are_known(tmp_path):
    (tmp_path / "mert").mkdir()
    for name in ("mert/b.json", "mert/a.bin", "my.net.toml", "my.net.onnx", "my.onnx", "w.pt"):
        (tmp_path / name).touch()
    for entry, names in (
        (f"hf:{tmp_path}/mert@all", ["a.bin", "b.json"]),
        (f"onnx:{tmp_path}/my.net.onnx", ["my.net.onnx", "my.net.toml"]),
        (f"hear:module@{tmp_path}/w.pt", ["w.pt"]),
        ("hear:module", []),
        ("timm:resnet18", []),
    ):
        (encoder,) = parse_entry(entry)
        assert [path.name for path in encoder.files()] == names

"""Encoders of HEAR modules, timm, torchaudio and ONNX files: the library's own outputs."""

import importlib
import json
import shutil

import numpy as np
import pytest
import torch
from encoder_samples import SR, assert_embeds, embed, net_of, waves
from torch import nn

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets import AudioInput, VideoInput, weights_digest
from mvemo.manifests.errors import BadOption, MissingFile

# --- HEAR

HEAR = """
import torch


class Model(torch.nn.Module):
    sample_rate = 8000
    scene_embedding_size = 3
    timestamp_embedding_size = 3

    def __init__(self, path):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(float(open(path).read()) if path else 1.0))


def load_model(model_file_path=""):
    return Model(model_file_path)


def get_scene_embeddings(audio, model):
    parts = [audio.mean(dim=1), audio.std(dim=1), audio.abs().amax(dim=1)]
    return model.scale * torch.stack(parts, dim=1)
"""


@pytest.fixture
def hear(tmp_path, monkeypatch):
    """A function that writes a module of HEAR and returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, text=HEAR):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_hear_gives_the_scene_embeddings_of_each_clip_by_itself(hear, tmp_path):
    net = net_of(f"hear:{hear('hear_plain')}")
    module = importlib.import_module("hear_plain")
    model = module.load_model()
    assert (net.input, net.embedding_dim) == (AudioInput(SR, 1.0, mark_end=True), 3)
    expected = [module.get_scene_embeddings(w[w.isfinite()][None], model)[0] for w in waves()]
    assert_embeds(net, waves(), torch.stack(expected).detach())
    (tmp_path / "two.txt").write_text("2.0")
    twice = net_of(f"hear:hear_plain@{tmp_path / 'two.txt'}")
    assert_embeds(twice, waves(), 2 * embed(net, waves()))
    assert weights_digest(twice) != weights_digest(net)
    assert twice.preprocessing()["file"] != net.preprocessing().get("file")
    assert str(tmp_path) not in json.dumps(twice.preprocessing())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("def load_model", "def load"), "expected the function load_model of HEAR 2021"),
        (("sample_rate = 8000", "sample_rate = None"), "sampling_rate is None"),
        (("size = 3", "size = 0"), "scene_embedding_size 0: expected an integer above 0"),
        (("return Model", "raise OSError('no file')\n    return Model"), "load_model fails: OSE"),
        (
            ("return model.scale", "return audio[:, :2] * model.scale"),
            r"embeddings of shape \(1, 3\), got \(1, 2\)",
        ),
        (("model.scale * ", "torch.nan * "), r"got \(1, 3\) with 3 that are not"),
        (("import torch", "import nothing_here"), "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_wrong_module_of_hear_is_told_in_one_line(change, message, hear):
    name = f"hear_wrong{abs(hash(change))}"
    text = HEAR.replace(*change, 1)
    assert text != HEAR
    if "audio[:, :2]" in text:
        text = text.replace("* torch.stack(parts, dim=1)", "")
    with pytest.raises((BadOption, BadWeights), match=message) as caught:
        net_of(f"hear:{hear(name, text)}")
    assert str(caught.value).startswith(f"hear:{name}")
    assert "\n" not in str(caught.value)


# --- timm


def test_timm_gives_the_features_of_each_frame(tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("test_vit", pretrained=False).eval()
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    torch.save(model.state_dict(), tmp_path / "vit.pt")
    net = net_of("timm:test_vit", tmp_path / "vit.safetensors")
    same = net_of("timm:test_vit", tmp_path / "vit.pt")
    assert weights_digest(net) == weights_digest(same)
    config = timm.data.resolve_data_config(model=model)
    crop = config["input_size"][1]
    side = round(crop / config["crop_pct"])
    assert net.input == VideoInput(2, side)
    raw = torch.randint(0, 256, (2, 2, side, side, 3), dtype=torch.uint8)
    first = (side - crop) // 2
    pixels = raw[:, :, first : first + crop, first : first + crop].flatten(0, 1).numpy() / 255
    pixels = (pixels - np.array(config["mean"])) / np.array(config["std"])
    with torch.inference_mode():
        frames = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()
        features = model.forward_head(model.forward_features(frames), pre_logits=True)
    expected = features.reshape(2, 2, -1).mean(dim=1)
    assert_embeds(net, raw, expected)
    torch.save(dict([*model.state_dict().items()][:9]), tmp_path / "part.pt")
    with pytest.raises(BadWeights, match="does not contain all of test_vit"):
        net_of("timm:test_vit", tmp_path / "part.pt")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("timm:hf-hub:timm/vit", "has no model of this name"),
        ("timm:resnet999", "has no model of this name"),
        ("timm:resnet18.nothing", "nothing"),
        ("timm:", "write it as timm:NAME"),
    ],
)
def test_an_unknown_model_of_timm_is_told(entry, message):
    pytest.importorskip("timm")
    with pytest.raises(BadOption, match=message):
        net_of(entry)


# --- torchaudio


@pytest.fixture
def bundle(monkeypatch):
    """A small bundle, under the name of one of torchaudio's."""
    torchaudio = pytest.importorskip("torchaudio")
    whole = torchaudio.pipelines.HUBERT_BASE
    sizes = {
        **whole._params,
        "extractor_conv_layer_config": [(8, 10, 5), (8, 3, 2)],
        "encoder_embed_dim": 8,
        "encoder_pos_conv_kernel": 4,
        "encoder_pos_conv_groups": 2,
        "encoder_num_layers": 3,
        "encoder_num_heads": 2,
        "encoder_ff_interm_features": 16,
    }
    small = whole.__class__(
        whole._path, sizes, whole._sample_rate, _normalize_waveform=True, _model_type="Wav2Vec2"
    )
    monkeypatch.setattr(torchaudio.pipelines, "HUBERT_BASE", small)
    return torchaudio.models.wav2vec2_model(**sizes).eval()


@pytest.mark.parametrize("layer", [-1, 1, 3])
def test_torchaudio_gives_its_layers(layer, bundle, tmp_path):
    torch.save(bundle.state_dict(), tmp_path / "hubert.pth")
    entry = "torchaudio:HUBERT_BASE" + f"@{layer}" * (layer > 0)
    net = net_of(entry, tmp_path / "hubert.pth")
    assert net.input == AudioInput(16000, 1.0, mark_end=True)
    expected = []
    for wave in waves():
        wave = wave[wave.isfinite()][None]
        wave = nn.functional.layer_norm(wave, wave.shape)
        with torch.inference_mode():
            found = bundle(wave)[0] if layer < 0 else bundle.extract_features(wave)[0][layer - 1]
        expected.append(found[0].mean(dim=0).numpy())
    assert_embeds(net, waves(), expected)


def test_an_unknown_bundle_or_layer_is_told(bundle):
    with pytest.raises(BadOption, match="layer is 4: it must be 1 to 3, -1"):
        net_of("torchaudio:HUBERT_BASE@4")
    with pytest.raises(BadOption, match="unknown bundle; expected one of wav2vec"):
        net_of("torchaudio:TACOTRON2_WAVERNN_CHAR_LJSPEECH")


# --- ONNX


def save_onnx(path, shape, axes):
    """A file of one encoder: the mean over the axes of its input, times 1 to 4."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    factors = numpy_helper.from_array(np.arange(1, 5, dtype=np.float32)[None], "factors")
    over = numpy_helper.from_array(np.array(axes), "axes")
    rows = numpy_helper.from_array(np.array([-1, 1]), "rows")
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=1),
        helper.make_node("Reshape", ["mean", "rows"], ["flat"]),
        helper.make_node("Mul", ["flat", "factors"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 4])],
        [factors, over, rows],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 10
    onnx.save(model, path)


def test_an_onnx_file_reads_sound_as_its_card_states(tmp_path):
    save_onnx(tmp_path / "my.net.onnx", ["n", "samples"], [1])
    (tmp_path / "my.net.toml").write_text("sampling_rate = 8000\ninput = 'x'\n")
    net = net_of(f"onnx:{tmp_path / 'my.net.onnx'}")
    assert (net.name, net.input) == ("my_net", AudioInput(SR, 1.0, mark_end=True))
    means = [wave[wave.isfinite()].mean().item() for wave in waves()]
    np.testing.assert_allclose(embed(net, waves()), np.outer(means, range(1, 5)), atol=1e-5)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tmp_path.glob("my.net.*"):
        shutil.copy(path, copy)
    assert net_of(f"onnx:{copy / 'my.net.onnx'}").preprocessing() == net.preprocessing()


def test_an_onnx_file_reads_pictures_as_its_card_states(tmp_path):
    save_onnx(tmp_path / "net.onnx", ["n", 3, 24, 24], [1, 2, 3])
    card = {"size": 28, "crop_size": 24, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]}
    (tmp_path / "net.json").write_text(json.dumps(card))
    net = net_of(f"onnx:{tmp_path / 'net.onnx'}", pooling="mean+std")
    raw = torch.randint(0, 256, (2, 2, 28, 28, 3), dtype=torch.uint8)
    means = raw[:, :, 2:26, 2:26].double().mean(dim=(2, 3, 4)).numpy() / 255
    pooled = np.stack([means.mean(axis=1), means.std(axis=1)], axis=1)
    expected = np.einsum("cp,k->cpk", pooled, np.arange(1, 5)).reshape(2, 8)
    np.testing.assert_allclose(embed(net, raw), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("card", "kind", "message"),
    [
        (None, MissingFile, "has no card net.toml or net.json next to it"),
        ("sample_rate = 8000", BadOption, "net.toml: unknown key 'sample_rate'; expected some"),
        ("do_normalize = true", BadOption, "expected sampling_rate for sound, or size for pict"),
        ("sampling_rate = 0", BadWeights, "net.toml: sampling_rate is 0: it must be"),
        ("sampling_rate = 8000\ninput = 'y'", BadWeights, "input is 'y': expected one of x"),
        ("size = 24\nimage_std = [1.0]", BadWeights, r"image_std is \[1.0\]: expected three num"),
        ("size = 24", BadWeights, "net.onnx: cannot read shape"),
    ],
)
def test_a_wrong_card_is_told_in_one_line(card, kind, message, tmp_path):
    save_onnx(tmp_path / "net.onnx", ["n", "samples"], [1])
    if card is not None:
        (tmp_path / "net.toml").write_text(card)
    with pytest.raises(kind, match=message) as caught:
        net_of(f"onnx:{tmp_path / 'net.onnx'}")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_onnx_is_told(tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "net.onnx").write_text("text")
    (tmp_path / "net.toml").write_text("sampling_rate = 8000")
    with pytest.raises(BadWeights, match=r"net.onnx: cannot be loaded: "):
        net_of(f"onnx:{tmp_path / 'net.onnx'}")

"""torchvision's video nets: its own forward pass, its files, its input."""

import pytest
import torch
import torchvision

from mvemo.extract.nets import VideoInput, build_net, default_settings, input_of
from mvemo.extract.nets.parts.weights import load_tensors

# Net to frames and pixels that are quick, and the name of its last layer's weights.
NETS = {
    "r2plus1d_18": (4, 32, "fc.weight", 512),
    "s3d": (16, 224, "classifier.1.weight", 1024),
    "swin3d_t": (4, 32, "head.weight", 768),
    "mvit_v2_s": (16, 224, "head.1.weight", 768),
}


@pytest.mark.parametrize("name", NETS)
def test_a_file_of_torchvision_gives_its_outputs(name):
    n_frames, size, last, dim = NETS[name]
    torch.manual_seed(0)
    # The one size of MViT takes seconds; its module is torchvision's, whole, less the head.
    with torch.device("meta" if name == "mvit_v2_s" else "cpu"):
        theirs = getattr(torchvision.models.video, name)(weights=None).eval()
        net = build_net(name, 400, n_frames=n_frames, size=size).eval()
    report = load_tensors(net, theirs.state_dict())
    assert report.complete
    assert report.unexpected == (last, last.replace("weight", "bias"))
    if name == "mvit_v2_s":
        return
    raw = torch.randint(0, 256, (1, n_frames, size, size, 3), dtype=torch.uint8)
    kind = {"r2plus1d_18": "R2Plus1D_18", "s3d": "S3D", "swin3d_t": "Swin3D_T"}[name]
    preset = getattr(torchvision.models.video, f"{kind}_Weights").KINETICS400_V1.transforms()
    # Their presets scale and crop first; these pictures have their size already.
    x = raw.permute(0, 4, 1, 2, 3).float() / 255
    shape = (1, 3, 1, 1, 1)
    x = (x - torch.tensor(preset.mean).view(shape)) / torch.tensor(preset.std).view(shape)
    prepared = net.prepare(raw)
    torch.testing.assert_close(prepared, x, rtol=1e-5, atol=1e-6)
    state = theirs.state_dict()
    with torch.inference_mode():
        weight = state[last].reshape(400, dim)
        net.classifier.weight.copy_(weight)
        net.classifier.bias.copy_(state[last.replace("weight", "bias")])
        torch.testing.assert_close(net(prepared), theirs(x), rtol=1e-4, atol=1e-5)
    assert net.embedding_dim == dim


@pytest.mark.parametrize("name", NETS)
def test_inputs_are_those_of_the_published_weights(name):
    size = 112 if name == "r2plus1d_18" else 224
    assert input_of(default_settings(name)) == VideoInput(n_frames=16, size=size)

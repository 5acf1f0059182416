"""No net starts far from chance: its inputs have the scale that random weights need."""

import math
from dataclasses import replace

import pytest
import torch
from stage_samples import tiny_demo
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from mvemo.extract.nets import net_names
from mvemo.extract.settings import RunSettings
from mvemo.extract.training.protocols import make_net
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.settings_files import load_settings

# Fewer frames, pixels and seconds than the papers' are quicker and change no scale.
SMALL = {
    **dict.fromkeys(("r2plus1d_18", "s3d", "swin3d_t", "i3d"), "n_frames=8, size=64"),
    **{"c3d": "n_frames=8, size=56", "effnet": "n_frames=2, size=96"},
    **{"music1d": "seconds=4.0", "music2d": "seconds=4.0, front_end='pl20', activation='relu'"},
}
QUICK = ("extract.workers=1", *(f"nets.{net}.options={{{SMALL[net]}}}" for net in SMALL))
N_CLASSES = 6


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two clips with sound and pictures, as every net reads them."""
    folder = tmp_path_factory.mktemp("clips")
    manifest = tiny_demo(folder / "demo")
    manifest = replace(manifest, clips=manifest.clips[:2])
    settings = load_settings("paper", QUICK)
    plans = [settings.nets[name] for name in net_names()]
    return settings, ClipMedia(manifest, settings, folder / "work", plans=plans)


@pytest.mark.parametrize("name", net_names())
def test_the_first_loss_of_a_net_is_within_a_fifth_of_chance(name, clips):
    settings, media = clips
    net, _ = make_net(settings.nets[name], N_CLASSES, RunSettings())
    # Batch normalisation needs two clips.
    normed = any(isinstance(module, _BatchNorm) for module in net.modules())
    rows = [0, 1] if normed else [0]
    raw = media.batches(net, settings.nets[name].view).load(rows)
    with torch.no_grad():
        features = net.train().features(net.prepare(raw))
    losses = []
    # One random classifier is a matter of luck.
    for _ in range(50):
        net.classifier.reset_parameters()
        logits = net.classifier(features).detach()
        losses.append(functional.cross_entropy(logits, torch.tensor(rows)).item())
    assert sum(losses) / len(losses) == pytest.approx(math.log(N_CLASSES), rel=0.2)


def test_the_scale_of_c3d_follows_from_its_weights():
    weights = "nets.c3d.weights=sports1m.npz"
    random, loaded = (load_settings("paper", [*more]).nets["c3d"] for more in ((), (weights,)))
    assert (random.options["scale"], "scale" in loaded.options) == ("unit", False)
    asked = load_settings("paper", ["nets.c3d.options={scale='sports1m'}"]).nets["c3d"]
    assert asked.options["scale"] == "sports1m"

"""No net starts far from chance: its inputs have the scale that random weights need."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from stage_samples import tiny_demo
from torch.nn import functional

from mvemo.extract.nets import net_names
from mvemo.extract.settings import RunSettings
from mvemo.extract.training.protocols import embedding_spec, make_net
from mvemo.manifests import Manifest
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.settings_files import load_settings

# Of the papers' width; fewer frames and pixels are quicker and change no scale.
QUICK = (
    "extract.n_frames=8",
    "extract.workers=1",
    *(f"nets.{net}.options={{n_frames=8, size=112}}" for net in ("r2plus1d_18", "s3d", "swin3d_t")),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Settings, ClipMedia]:
    """One clip of each of six classes, with sound and pictures, as every net reads it."""
    folder = tmp_path_factory.mktemp("clips")
    manifest = tiny_demo(folder / "demo")
    of_class = {clip.label: clip for clip in manifest.clips}
    manifest = replace(manifest, clips=tuple(of_class.values()))
    settings = load_settings("paper", QUICK)
    plans = [settings.nets[name] for name in net_names()]
    return manifest, settings, ClipMedia(manifest, settings, folder / "work", plans=plans)


@pytest.mark.parametrize("name", net_names())
def test_the_first_loss_of_a_net_is_within_a_fifth_of_chance(
    name: str, clips: tuple[Manifest, Settings, ClipMedia]
) -> None:
    manifest, settings, media = clips
    plan, n = settings.nets[name], len(manifest)
    net, _ = make_net(plan, n, RunSettings())
    with torch.no_grad():
        features = net.train().features(
            net.prepare(media.batches(net, plan.view).load(list(range(n))))
        )
    losses = []
    # One random classifier is a matter of luck.
    for _ in range(50):
        net.classifier.reset_parameters()
        logits = net.classifier(features).detach()
        losses.append(functional.cross_entropy(logits, torch.arange(n)).item())
    assert sum(losses) / len(losses) == pytest.approx(math.log(n), rel=0.2)


def test_the_two_scales_of_c3d_have_keys_of_their_own() -> None:
    weights = "nets.c3d.weights=sports1m.npz"
    random, loaded = (load_settings("paper", [*more]).nets["c3d"] for more in ((), (weights,)))
    assert (random.options["scale"], "scale" in loaded.options) == ("unit", False)
    asked = load_settings("paper", ["nets.c3d.options={scale='sports1m'}"]).nets["c3d"]
    assert asked.options["scale"] == "sports1m"
    digests = set()
    for plan in (random, asked):
        small = replace(plan, width=0.02, options={**plan.options, "size": 16, "n_frames": 2})
        net, _ = make_net(small, 2, RunSettings())
        digests.add(embedding_spec(small, net, RunSettings()).digest)
    assert len(digests) == 2

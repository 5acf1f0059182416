"""What fine-tuning of today adds to the papers': each part does what it says, and no more."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from toy_net import Toy, same, tuned

from mvemo.extract.settings import RecipeSettings, TrainSettings
from mvemo.extract.training import losses, recipe, trainer
from mvemo.manifests.errors import BadOption

EVERYTHING = RecipeSettings(True, 0.1, True, 1.0, 0.8, True, 0.3, True, 0.2)


def settings(parts, epochs=8):
    return TrainSettings(
        optimizer="adamw", lr=0.02, epochs=epochs, patience=0, batch_size=11, recipe=parts
    )


def test_a_run_of_all_parts_resumes_as_if_it_had_not_been_cut_off(tmp_path, monkeypatch):
    whole, curve = tuned(tmp_path, "whole", settings(EVERYTHING))
    monkeypatch.setattr(trainer, "STATE_INTERVAL", -1.0)

    def kill(label, epoch, n_epochs, loss):
        if epoch == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path, "cut", settings(EVERYTHING), on_epoch=kill)
    resumed, again = tuned(tmp_path, "cut", settings(EVERYTHING))
    assert again["train_loss"] == curve["train_loss"]
    assert same(whole, resumed)


def test_the_average_is_of_the_last_epochs(tmp_path):
    plans = [settings(RecipeSettings(), epochs) for epochs in (6, 7, 8)]
    states = [tuned(tmp_path, f"{plan.epochs}", plan)[0].state_dict() for plan in plans]
    averaged, _ = tuned(tmp_path, "average", settings(RecipeSettings(average=3 / 8)))
    for name, value in averaged.state_dict().items():
        mean = torch.stack([state[name] for state in states]).mean(0)
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-6)


def test_parts_that_exclude_each_other_are_refused():
    with pytest.raises(BadOption, match="set patience = 0"):
        TrainSettings(patience=3, recipe=RecipeSettings(average=0.5))
    with pytest.raises(BadOption, match="it needs loss = 'softmax'"):
        TrainSettings(loss="centre", recipe=RecipeSettings(mixup=0.2))


def test_the_probe_is_a_penalised_logistic_regression():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    x = rng.normal(size=(90, 8)) * np.geomspace(1e-2, 1e2, 8) + 5
    x[:, 0] += 0.01 * y
    x[:, 7] = 3.0  # a unit that is dead
    net = Toy(3)
    loss = losses.make_loss("softmax", "multiclass", 3, 8, 0.01)
    recipe.fit_probe(net, loss, torch.tensor(x, dtype=torch.float32), torch.tensor(y))
    z = (x[:, :7] - x[:, :7].mean(0)) / x[:, :7].std(0)
    # scikit-learn: C sum of losses + |w|^2 / 2
    other = LogisticRegression(C=recipe.PROBE_C, tol=1e-8, max_iter=1000).fit(z, y)
    with torch.no_grad():
        proba = net.classifier(torch.tensor(x, dtype=torch.float32)).softmax(1).numpy()
    np.testing.assert_allclose(proba, other.predict_proba(z), atol=2e-3)


def test_rates_rise_and_fall_and_layers_near_the_input_change_less():
    net = Toy(3)
    parts = RecipeSettings(warmup=0.25, cosine=True, layer_decay=0.5)
    groups = recipe.parameter_groups(net, settings(parts))
    assert [group["lr"] for group in groups] == [0.01, 0.02]
    assert groups[-1]["params"][0] is net.classifier.weight
    seen = [recipe.rate_factor(parts, step, 8) for step in range(8)]
    assert seen[:3] == [0.5, 1.0, 1.0]
    assert seen[2:] == sorted(seen[2:], reverse=True)
    assert 0 < seen[-1] < 0.1


def test_frozen_statistics_stay():
    net = Toy(3)
    net.norm = nn.BatchNorm1d(8)
    recipe.freeze_norms(net.train())
    net.norm(torch.randn(5, 8))
    assert net.training
    assert torch.equal(net.norm.running_mean, torch.zeros(8))


def test_sound_keeps_its_end_and_its_scale():
    torch.manual_seed(0)
    time = torch.arange(4000) / 4000
    raw = torch.stack([torch.sin(2 * np.pi * f * time) for f in (40, 90, 200, 310)]) * 0.5
    raw[:, 3000:] = torch.nan
    raw[3, 3000:] = 0.0
    changed = recipe.augment(raw)
    assert changed.shape == raw.shape
    assert torch.equal(torch.isnan(changed).any(1), torch.tensor([True, True, True, False]))
    # Nothing is heard after the end, which comes earlier by what was skipped.
    assert torch.isnan(changed[:3, 3000:]).all()
    assert (changed[3, 3000:] == 0).all()
    loudness = changed[:, :2500].nan_to_num().square().mean(1).sqrt()
    assert (loudness < 0.36 * 10 ** (recipe.GAIN / 20) + 1e-3).all()
    gains = changed.nan_to_num().abs().amax(1)
    assert len({round(float(gain), 3) for gain in gains}) == 4


def test_pictures_of_one_colour_stay_and_frames_keep_their_order():
    torch.manual_seed(0)
    raw = torch.zeros(3, 16, 12, 10, 3, dtype=torch.uint8)
    raw += (torch.arange(16, dtype=torch.uint8) * 10)[None, :, None, None, None]
    changed = recipe.augment(raw)
    assert changed.dtype == torch.float32
    assert changed.shape == raw.shape
    # One colour a frame, whatever was cropped; the frames are those of a stretch, in order.
    assert torch.allclose(changed.amax((2, 3, 4)), changed.amin((2, 3, 4)))
    times = changed[:, :, 0, 0, 0] / 10
    assert torch.allclose(times, times.round(), atol=1e-4)
    assert (times.diff(dim=1) >= 0).all()
    assert ((times[:, -1] - times[:, 0]) >= 0.75 * 16 - 2).all()


def test_crops_are_mirrored_half_of_the_time_and_alike_in_all_frames():
    torch.manual_seed(0)
    ramp = torch.arange(40, dtype=torch.uint8) * 6
    raw = ramp[None, None, None, :, None].expand(64, 2, 8, 40, 3).contiguous()
    changed = recipe.augment(raw)
    assert torch.allclose(changed[:, 0], changed[:, 1], atol=1e-3)
    rising = changed[:, 0, 4, -1, 0] > changed[:, 0, 4, 0, 0]
    assert 20 <= int(rising.sum()) <= 44
    assert 0 <= changed.min() <= changed.max() <= 234
    sequences = torch.randn(2, 5, 4)
    assert recipe.augment(sequences) is sequences

"""Fine-tuning on a net small enough to see through, and its files."""

import json
import math

import numpy as np
import pytest
import torch
from toy_net import Toy, problem, same, tuned

from mvemo.extract.errors import TrainingDiverged
from mvemo.extract.settings import LOSSES, RecipeSettings, TrainSettings
from mvemo.extract.training import trainer as finetune
from mvemo.extract.training.data import RawBatches
from mvemo.extract.training.steps import TrainingJob
from mvemo.extract.training.trainer import JobFolder
from mvemo.manifests.errors import BadOption

VAL = range(45, 60)


def settings(**values):
    return TrainSettings(**{"lr": 0.02, "batch_size": 11, "tau": 0.05, "patience": 50, **values})


def trainer_of(net, settings):
    waves, labels = problem()
    job = TrainingJob("toy@all", labels, "multiclass", [], [0], settings, seed=0)
    return finetune.Trainer(net, RawBatches(lambda row: waves[row], net.input), job)


def test_steps_use_the_learning_rates_of_the_recipe():
    recipe = RecipeSettings(warmup=0.5, layer_decay=0.5)
    trainer = trainer_of(Toy(3), settings(recipe=recipe, epochs=8))
    trainer.train_batches([[0, 1], [2, 3]], 0)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [0.005, 0.01]


@pytest.mark.parametrize(
    ("length", "lengths", "loss"),
    [*(("epochs", (3, 8), loss) for loss in LOSSES), ("iterations", (8, 14), "softmax")],
)
def test_a_run_cut_off_and_resumed_ends_as_one_that_was_not(
    tmp_path, monkeypatch, length, lengths, loss
):
    monkeypatch.setattr(finetune, "STATE_INTERVAL", -1.0)
    short, long = (settings(loss=loss, **{length: count}) for count in lengths)
    whole, curve = tuned(tmp_path, "whole", long, val_rows=VAL)
    tuned(tmp_path, "cut", short, val_rows=VAL)
    resumed, curve_resumed = tuned(tmp_path, "cut", long, val_rows=VAL)
    assert curve_resumed == curve
    assert same(resumed, whole)


def test_stops_when_patience_is_spent(tmp_path):
    fast = settings(lr=30.0, epochs=200, patience=3, batch_size=16)
    _, curve = tuned(tmp_path, "stop", fast, val_rows=VAL, seed=0)
    best = int(np.argmin(curve["val_loss"]))
    assert len(curve["epoch"]) == best + 1 + 3


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_every_optimizer_lowers_the_loss(tmp_path, optimizer):
    plan = TrainSettings(optimizer=optimizer, lr=0.01, momentum=0.5, epochs=6)
    _, curve = tuned(tmp_path, optimizer, plan, n=60, val_rows=range(60), seed=0)
    assert curve["val_loss"][-1] < curve["val_loss"][0]


def test_without_patience_the_last_weights_are_kept(tmp_path):
    # So fast a rate that the loss goes up and down: the last weights are not the best.
    fast = settings(lr=0.5, epochs=9, patience=0)
    last, curve = tuned(tmp_path, "last", fast, val_rows=VAL)
    assert curve["epoch"] == [float(e) for e in range(1, 10)]
    assert np.argmin(curve["val_loss"]) < 8
    best, _ = tuned(tmp_path, "best", settings(lr=0.5, epochs=9), val_rows=VAL)
    assert not same(last, best)
    # Validation clips decide nothing: the net without any is the same.
    alone, curve = tuned(tmp_path, "alone", fast)
    assert same(last, alone)
    assert np.isnan(curve["val_loss"]).all()
    assert len(curve["epoch"]) == 9
    with pytest.raises(BadOption, match="needs validation clips"):
        tuned(tmp_path, "none", settings(patience=3))


def test_training_stops_at_exactly_that_iteration(tmp_path):
    # 45 clips in batches of 11: four steps and one of a single clip, which joins the fourth.
    whole, curve = tuned(tmp_path, "a", settings(iterations=8, patience=0))
    two_epochs, plain = tuned(tmp_path, "b", settings(epochs=2, patience=0))
    assert same(whole, two_epochs)
    assert curve["train_loss"] == plain["train_loss"]
    assert "iteration" not in plain
    cut_off, shorter = tuned(tmp_path, "c", settings(iterations=6, patience=0))
    assert not same(cut_off, whole)
    assert shorter["iteration"] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert shorter["iteration_loss"] == curve["iteration_loss"][:6]
    sizes = [11, 11, 11, 12]
    mean = np.dot(sizes, curve["iteration_loss"][:4]) / 45
    assert curve["train_loss"][0] == pytest.approx(mean)
    assert TrainSettings(iterations=9, batch_size=11).max_epochs(45) == 3
    assert TrainSettings(epochs=7).max_epochs(45) == 7


def test_a_long_run_keeps_a_point_every_so_many_iterations(tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "MAX_POINTS", 4)
    _, curve = tuned(tmp_path, "a", settings(iterations=10, patience=0))
    assert curve["iteration"] == [3.0, 6.0, 9.0]


@pytest.mark.parametrize("patience", [0, 4])
def test_training_that_diverges_fails_by_name(tmp_path, patience):
    fast = settings(lr=1e30, optimizer="sgd", epochs=5, patience=patience)
    message = r"toy@all: training diverged: .* epoch \d .*: .*nets\.toy\.lr=1e\+29 \(it is 1e\+30\)"
    with pytest.raises(TrainingDiverged, match=message):
        tuned(tmp_path, "diverging", fast, val_rows=VAL if patience else ())


def test_no_finite_validation_loss_is_divergence_though_weights_are_finite(tmp_path, monkeypatch):
    monkeypatch.setattr(finetune.Trainer, "score", lambda self, rows: (float("nan"), 0.0))
    with pytest.raises(TrainingDiverged, match="no finite loss by epoch 2"):
        tuned(tmp_path, "nan", settings(epochs=4, patience=2), val_rows=VAL)


def test_training_that_diverges_late_keeps_its_best_weights(tmp_path, monkeypatch):
    score, seen = finetune.Trainer.score, []

    def lose_weights(self, rows):
        if len(seen) == 2:
            torch.nn.init.constant_(self.net.hidden.weight, float("nan"))
        seen.append(score(self, rows))
        return seen[-1]

    monkeypatch.setattr(finetune.Trainer, "score", lose_weights)
    net, curve = tuned(tmp_path, "late", settings(epochs=9, patience=3), val_rows=VAL)
    assert len(curve["epoch"]) == int(np.nanargmin(curve["val_loss"])) + 1 + 3
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())


def folder(tmp_path, digest="a" * 64):
    job = JobFolder(tmp_path, "net-fold0", digest)
    job.begin({"lr": 0.1})
    return job


def test_state_comes_back_and_goes_when_the_job_is_done(tmp_path):
    job = folder(tmp_path)
    assert '"lr": 0.1' in (job.path / "settings.json").read_text()
    assert job.load("state.pt") is None
    assert job.result() is None
    job.save("state.pt", {"epoch": 3, "weights": {"w": torch.arange(4.0)}})
    state = job.load("state.pt")
    assert (state["epoch"], state["weights"]["w"].tolist()) == (3, [0.0, 1.0, 2.0, 3.0])
    job.finish({"w": torch.ones(2)}, {"train_loss": [0.5, 0.25], "val_loss": [math.nan] * 2})
    assert job.load("state.pt") is None
    # Strict JSON.
    assert json.loads((job.path / "curve.json").read_text())["val_loss"] == [None, None]
    weights, curve = job.result()
    assert weights["w"].tolist() == [1.0, 1.0]
    assert curve["train_loss"] == [0.5, 0.25]
    assert all(map(math.isnan, curve["val_loss"]))
    # Another digest is another job.
    assert folder(tmp_path, "b" * 64).result() is None


def test_a_damaged_state_is_a_miss_with_a_warning(tmp_path):
    job = folder(tmp_path)
    job.save("state.pt", {"epoch": 3})
    whole = (job.path / "state.pt").read_bytes()
    (job.path / "state.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="damaged"):
        assert job.load("state.pt") is None


def test_learns_a_separable_problem_and_keeps_the_best_weights(tmp_path):
    net, curve = tuned(tmp_path, "job", settings(epochs=25), val_rows=VAL)
    assert curve["train_loss"][-1] < 0.4 * curve["train_loss"][0]
    loss, accuracy = trainer_of(net, settings()).score(VAL)
    assert loss == pytest.approx(min(curve["val_loss"]), rel=1e-5)
    assert accuracy > 0.8

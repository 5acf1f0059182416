"""Fine-tuning on a net small enough to see through."""

from pathlib import Path

import numpy as np
import pytest
import torch
from toy_net import Toy, problem, same, tuned

from mvemo.extract.errors import BadMedia, BadSetting, TrainingDiverged
from mvemo.extract.nets import AudioInput, VideoInput
from mvemo.extract.settings import LOSSES, TrainSettings
from mvemo.extract.training import steps as jobs
from mvemo.extract.training import trainer as finetune
from mvemo.extract.training.data import RawBatches, split_rows
from mvemo.extract.training.embedding import embed_rows
from mvemo.extract.training.trainer import JobFolder

CPU = torch.device("cpu")


def train(tmp_path: Path, *, epochs: int = 8, seed: int = 1, label: str = "job", loss="softmax"):
    waves, labels = problem()
    torch.manual_seed(0)
    net = Toy(3)
    folder = JobFolder(tmp_path, label, "d" * 64)
    folder.begin({})
    curve = finetune.fine_tune(
        net,
        RawBatches(lambda row: waves[row], net.input),
        jobs.TrainingJob(
            "toy@all",
            labels,
            task="multiclass",
            train_rows=list(range(45)),
            val_rows=list(range(45, 60)),
            settings=TrainSettings(
                lr=0.02, epochs=epochs, patience=50, batch_size=11, loss=loss, tau=0.05
            ),
            seed=seed,
        ),
        folder,
    )
    return net, curve


def test_learns_a_separable_problem_and_keeps_the_best_weights(tmp_path):
    net, curve = train(tmp_path, epochs=25)
    assert curve["train_loss"][-1] < 0.4 * curve["train_loss"][0]
    waves, labels = problem()
    settings = TrainSettings(batch_size=8)
    job = jobs.TrainingJob("toy@all", labels, "multiclass", [], [0], settings, seed=0)
    trainer = finetune.Trainer(net, RawBatches(lambda row: waves[row], net.input), job)
    loss, accuracy = trainer.score(range(45, 60))
    assert loss == pytest.approx(min(curve["val_loss"]), rel=1e-5)
    assert accuracy > 0.8


@pytest.mark.parametrize("loss", LOSSES)
def test_a_run_cut_off_and_resumed_ends_as_one_that_was_not(tmp_path, monkeypatch, loss):
    monkeypatch.setattr(finetune, "STATE_INTERVAL", -1.0)
    whole, curve = train(tmp_path, label="whole", loss=loss)
    train(tmp_path, epochs=3, label="cut", loss=loss)
    resumed, curve_resumed = train(tmp_path, label="cut", loss=loss)
    assert curve_resumed == curve
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_stops_when_patience_is_spent(tmp_path):
    waves, labels = problem()
    net = Toy(3)
    folder = JobFolder(tmp_path, "stop", "d" * 64)
    folder.begin({})
    curve = finetune.fine_tune(
        net,
        RawBatches(lambda row: waves[row], net.input),
        jobs.TrainingJob(
            "toy@all",
            labels,
            task="multiclass",
            train_rows=list(range(45)),
            val_rows=list(range(45, 60)),
            settings=TrainSettings(lr=30.0, epochs=200, patience=3, batch_size=16),
            seed=0,
        ),
        folder,
    )
    best = int(np.argmin(curve["val_loss"]))
    assert len(curve["epoch"]) == best + 1 + 3


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_every_optimizer_lowers_the_loss(tmp_path, optimizer):
    waves, labels = problem()
    torch.manual_seed(0)
    net = Toy(3)
    folder = JobFolder(tmp_path, optimizer, "d" * 64)
    folder.begin({})
    curve = finetune.fine_tune(
        net,
        RawBatches(lambda row: waves[row], net.input),
        jobs.TrainingJob(
            "toy@all",
            labels,
            task="multiclass",
            train_rows=list(range(60)),
            val_rows=list(range(60)),
            settings=TrainSettings(optimizer=optimizer, lr=0.01, momentum=0.5, epochs=6),
            seed=0,
        ),
        folder,
    )
    assert curve["val_loss"][-1] < curve["val_loss"][0]


def test_embeddings_do_not_depend_on_the_batch_size():
    waves, _ = problem()
    torch.manual_seed(0)
    net = Toy(3)
    reader = RawBatches(lambda row: waves[row], net.input)
    rows = list(range(23))
    found = []
    for size in (1, 7, 64):
        parts = [v for _, v in embed_rows(net, reader, rows, batch_size=size, device=CPU)]
        found.append(np.concatenate(parts))
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[0], found[2], rtol=1e-5, atol=1e-6)


def test_short_waveforms_are_padded_and_long_ones_cut():
    clips = [np.ones(5, np.float32), np.full(40, 2, np.float32)]
    batch = RawBatches(lambda row: clips[row], AudioInput(sr=10, seconds=1.0)).load([0, 1])
    assert batch.shape == (2, 10)
    assert batch[0].tolist() == [1.0] * 5 + [0.0] * 5
    assert batch[1].tolist() == [2.0] * 10


def test_frames_of_another_size_are_refused():
    frames = np.zeros((4, 8, 8, 3), np.uint8)
    reader = RawBatches(lambda row: frames, VideoInput(n_frames=4, size=16))
    with pytest.raises(BadMedia, match=r"\(4, 8, 8, 3\)"):
        reader.load([0])


def test_batches_come_in_order():
    clips = {i: np.full(2, i, np.float32) for i in range(7)}
    reader = RawBatches(lambda row: clips[row], AudioInput(sr=2, seconds=1.0))
    seen = [
        (list(rows), raw[:, 0].tolist())
        for rows, raw in reader.ahead(split_rows(list(range(7)), 3))
    ]
    assert seen == [([0, 1, 2], [0, 1, 2]), ([3, 4, 5], [3, 4, 5]), ([6], [6])]


@pytest.mark.parametrize(
    "bad",
    [
        {"optimizer": "adagrad"},
        {"lr": 0.0},
        {"epochs": 0},
        {"batch_size": -1},
        {"val_fraction": 1.0},
        {"momentum": -0.1},
        {"loss": "hinge"},
        {"tau": -1.0},
        {"tau": float("nan")},
    ],
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(BadSetting, match=next(iter(bad))):
        TrainSettings(**bad)


def test_without_patience_the_last_weights_are_kept(tmp_path):
    # So fast a rate that the loss goes up and down: the last weights are not the best.
    def settings(patience, epochs=9):
        return TrainSettings(lr=0.5, epochs=epochs, patience=patience, batch_size=11)

    val = range(45, 60)
    last, curve = tuned(tmp_path, "last", settings(0), val_rows=val)
    assert curve["epoch"] == [float(e) for e in range(1, 10)]
    assert np.argmin(curve["val_loss"]) < 8
    best, _ = tuned(tmp_path, "best", settings(50), val_rows=val)
    assert not same(last, best)
    # Validation clips decide nothing: the net without any is the same.
    alone, curve = tuned(tmp_path, "alone", settings(0))
    assert same(last, alone)
    assert np.isnan(curve["val_loss"]).all()
    assert len(curve["epoch"]) == 9
    with pytest.raises(BadSetting, match="needs validation clips"):
        tuned(tmp_path, "none", settings(3))


def test_training_stops_at_exactly_that_iteration(tmp_path):
    # 45 clips in batches of 11: four steps and one of a single clip, which joins the fourth.
    whole, curve = tuned(
        tmp_path, "a", TrainSettings(lr=0.02, iterations=8, patience=0, batch_size=11)
    )
    two_epochs, plain = tuned(
        tmp_path, "b", TrainSettings(lr=0.02, epochs=2, patience=0, batch_size=11)
    )
    assert same(whole, two_epochs)
    assert curve["train_loss"] == plain["train_loss"]
    assert "iteration" not in plain
    cut_off, shorter = tuned(
        tmp_path, "c", TrainSettings(lr=0.02, iterations=6, patience=0, batch_size=11)
    )
    assert not same(cut_off, whole)
    assert shorter["iteration"] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert shorter["iteration_loss"] == curve["iteration_loss"][:6]
    sizes = [11, 11, 11, 12]
    mean = np.dot(sizes, curve["iteration_loss"][:4]) / 45
    assert curve["train_loss"][0] == pytest.approx(mean)
    assert jobs.n_epochs(TrainSettings(iterations=9, batch_size=11), 45) == 3
    assert jobs.n_epochs(TrainSettings(epochs=7), 45) == 7


def test_a_long_run_keeps_a_point_every_so_many_iterations(tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "MAX_POINTS", 4)
    _, curve = tuned(tmp_path, "a", TrainSettings(iterations=10, patience=0, batch_size=11))
    assert curve["iteration"] == [3.0, 6.0, 9.0]


def test_iterations_cut_off_and_resumed_end_as_ones_that_were_not(tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "STATE_INTERVAL", -1.0)

    def settings(iterations):
        return TrainSettings(lr=0.02, iterations=iterations, patience=0, batch_size=11)

    whole, curve = tuned(tmp_path, "whole", settings(14))
    tuned(tmp_path, "cut", settings(8))
    resumed, again = tuned(tmp_path, "cut", settings(14))
    assert again["iteration"] == curve["iteration"]
    assert again["iteration_loss"] == curve["iteration_loss"]
    assert same(whole, resumed)


@pytest.mark.parametrize("patience", [0, 4])
def test_training_that_diverges_fails_by_name(tmp_path, patience):
    settings = TrainSettings(lr=1e30, optimizer="sgd", epochs=5, patience=patience, batch_size=11)
    val_rows = range(45, 60) if patience else ()
    message = (
        r"toy@all: training diverged: no finite loss by epoch \d .*: lower the learning rate, "
        r"--set nets\.toy\.lr=1e\+29 \(it is 1e\+30\)"
    )
    with pytest.raises(TrainingDiverged, match=message):
        tuned(tmp_path, "diverging", settings, val_rows=val_rows)


def test_no_finite_validation_loss_is_divergence_though_weights_are_finite(tmp_path, monkeypatch):
    monkeypatch.setattr(finetune.Trainer, "score", lambda self, rows: (float("nan"), 0.0))
    settings = TrainSettings(epochs=4, patience=2)
    with pytest.raises(TrainingDiverged, match="no finite loss by epoch 2"):
        tuned(tmp_path, "nan", settings, val_rows=range(45, 60))


def test_training_that_diverges_late_keeps_its_best_weights(tmp_path, monkeypatch):
    score = finetune.Trainer.score
    seen = []

    def lose_weights(self, rows):
        if len(seen) == 2:
            torch.nn.init.constant_(self.net.hidden.weight, float("nan"))
        seen.append(score(self, rows))
        return seen[-1]

    monkeypatch.setattr(finetune.Trainer, "score", lose_weights)
    settings = TrainSettings(lr=0.02, epochs=9, patience=3, batch_size=11)
    net, curve = tuned(tmp_path, "late", settings, val_rows=range(45, 60))
    assert len(curve["epoch"]) == int(np.nanargmin(curve["val_loss"])) + 1 + 3
    assert np.isnan(curve["val_loss"][2:]).all()
    assert all(bool(torch.isfinite(value).all()) for value in net.state_dict().values())

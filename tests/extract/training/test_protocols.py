"""Which clips each protocol's nets see, and which ones they stop by."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mvemo.extract.nets import build_net
from mvemo.extract.settings import NetSettings, RunSettings, TrainSettings
from mvemo.extract.training import protocols
from mvemo.extract.training.data import RawBatches, TrainingClips
from mvemo.extract.training.protocols import train_nets
from mvemo.manifests import Clip, Manifest
from mvemo.manifests.errors import BadOption

N = 24
# Groups of two clips, three folds; 16 clips train, 4 validate, 4 are tested.
FOLDS = np.arange(N) // 2 % 3
SPLITS = np.repeat([0, 1, 2], [16, 4, 4])
OPTIONS = {"seconds": 0.1}
CLIPS = tuple(
    Clip(f"c{i}", f"{i}.wav", ("abc"[i % 3],), f"g{i // 2}", start=float(i)) for i in range(N)
)
MANIFEST = Manifest("made", "multiclass", ("a", "b", "c"), CLIPS, Path())
WAVES = np.random.default_rng(0).normal(size=(N, 1600)).astype(np.float32)


def run(jobs, protocol, *, usable=None, splits=SPLITS, weights="", **train):
    settings = {"epochs": 2, "batch_size": 4, **train}
    net = NetSettings("music1d", 0.1, weights, OPTIONS, TrainSettings(**settings))
    clips = TrainingClips(
        MANIFEST,
        content=dict.fromkeys(MANIFEST.clip_ids, "content"),
        usable=np.ones(N, dtype=np.bool_) if usable is None else usable,
        folds=FOLDS,
        splits=splits,
    )
    run = RunSettings(protocol, device="cpu")
    batches = lambda net: RawBatches(WAVES.__getitem__, net.input)  # noqa: E731
    return list(train_nets(net, clips, run, batches=batches, jobs=jobs))


@pytest.fixture
def seen(monkeypatch):
    """Rows for gradients and for early stopping that `fine_tune` was given, by training."""
    seen = SimpleNamespace(train=[], val=[])

    def fine_tune(net, batches, job, *_, **__):
        seen.train.append(list(job.train_rows))
        seen.val.append(list(job.val_rows))
        return {"epoch": [1.0]}

    monkeypatch.setattr(protocols.trainer, "fine_tune", fine_tune)
    return seen


def ids(rows):
    return {f"c{i}" for i in rows}


@pytest.mark.parametrize(("protocol", "folds"), [("crossfit", [0, 1, 2]), ("shared", [None])])
def test_nets_never_see_their_fold(tmp_path, seen, protocol, folds):
    nets = run(tmp_path, protocol)
    assert [(t.spec.protocol, t.spec.fold) for t in nets] == [(protocol, fold) for fold in folds]
    for trained, train, val in zip(nets, seen.train, seen.val, strict=True):
        outside = [row for row in range(N) if FOLDS[row] != trained.spec.fold]
        assert set(trained.spec.trained_on) == ids(outside)
        assert sorted(train + val) == outside
        assert val
        assert {row // 2 for row in train}.isdisjoint(row // 2 for row in val)


def test_frozen_nets_see_nothing(tmp_path, seen):
    net = build_net("music1d", 3, width=0.1, **OPTIONS)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    (trained,) = run(tmp_path, "frozen", weights=str(tmp_path / "w.pt"))
    assert trained.spec.trained_on == ()
    assert trained.curve == {}
    assert seen.train == []
    with pytest.raises(BadOption, match="pretrained weights"):
        run(tmp_path, "frozen")


def test_a_holdout_net_trains_and_stops_by_its_own_split(tmp_path, seen):
    usable = np.ones(N, dtype=np.bool_)
    usable[[3, 17, 21]] = False
    (trained,) = run(tmp_path, "holdout", usable=usable)
    train = [i for i in range(16) if i != 3]
    assert seen.train == [train]
    assert seen.val == [[16, 18, 19]]
    assert (trained.spec.protocol, trained.spec.fold) == ("holdout", None)
    assert set(trained.spec.trained_on) == ids([*train, 16, 18, 19])
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("music1d-holdout-")
    record = json.loads((folder / "settings.json").read_text())
    assert [record["trained_on"][i] for i in record["held_out"]] == ["c16", "c18", "c19"]


@pytest.mark.parametrize(("protocol", "rows"), [("shared", N), ("crossfit", 16), ("holdout", 16)])
def test_without_patience_only_a_split_has_validation_clips(tmp_path, seen, protocol, rows):
    run(tmp_path, protocol, patience=0)
    assert {len(train) for train in seen.train} == {rows}
    assert sum(map(len, seen.val)) == (4 if protocol == "holdout" else 0)


def test_another_split_is_another_job(tmp_path):
    (a,) = run(tmp_path, "holdout")
    (again,) = run(tmp_path, "holdout")
    assert again.spec.digest == a.spec.digest
    assert again.curve == a.curve
    # The same clips are seen, but others of them decide when to stop.
    turned = SPLITS.copy()
    turned[:4], turned[16:20] = 1, 0
    (b,) = run(tmp_path, "holdout", splits=turned)
    assert set(b.spec.trained_on) == set(a.spec.trained_on)
    assert b.spec.weights != a.spec.weights
    assert len(list(tmp_path.glob("*/weights.pt"))) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"splits": None}, "needs a split"),
        ({"usable": SPLITS != 1}, "needs at least one usable validation clip"),
        ({"usable": SPLITS != 0}, "at least 2 usable training clips, got 0"),
    ],
)
def test_what_a_holdout_net_needs(tmp_path, given, message):
    with pytest.raises(BadOption, match=message):
        run(tmp_path, "holdout", **given)


def test_all_protocols_train_really(tmp_path):
    for protocol, count in (("crossfit", 3), ("shared", 1), ("holdout", 1)):
        nets = run(tmp_path, protocol)
        assert len({t.spec.weights for t in nets}) == count
        for trained in nets:
            assert trained.curve["epoch"] == [1.0, 2.0]
            assert np.isfinite(trained.curve["val_loss"]).all()

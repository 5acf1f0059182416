"""Which clips each protocol's nets see, and which ones they stop by."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mvemo.extract.errors import BadSetting, MissingFile
from mvemo.extract.nets import Net, build_net
from mvemo.extract.settings import NetSettings, RunSettings, TrainSettings
from mvemo.extract.training import protocols
from mvemo.extract.training.data import RawBatches, TrainingClips
from mvemo.extract.training.protocols import FrozenNets, TrainedNet, frozen_net, train_nets
from mvemo.extract.training.steps import TrainingJob
from mvemo.manifests import Clip, Manifest

N = 24
LABELS = np.arange(N) % 3
# Groups of two clips, three folds; 16 clips train, 4 validate, 4 are tested.
FOLDS = np.arange(N) // 2 % 3
SPLITS = np.repeat([0, 1, 2], [16, 4, 4])
OPTIONS = {"seconds": 0.1}


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    clips = tuple(
        Clip(f"c{i}", f"{i}.wav", ("abc"[LABELS[i]],), f"g{i // 2}", start=float(i))
        for i in range(N)
    )
    return Manifest("made", "multiclass", ("a", "b", "c"), clips, Path())


@pytest.fixture(scope="module")
def waves() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N, 1600)).astype(np.float32)


def run(
    manifest: Manifest,
    waves: np.ndarray,
    jobs: Path,
    protocol: str,
    *,
    usable: np.ndarray | None = None,
    splits: np.ndarray | None = SPLITS,
    weights: str = "",
    **train,
) -> list[TrainedNet]:
    settings = {"epochs": 2, "batch_size": 4, **train}
    net = NetSettings("music1d", 0.1, weights, OPTIONS, TrainSettings(**settings))
    clips = TrainingClips(
        manifest,
        content=dict.fromkeys(manifest.clip_ids, "content"),
        usable=np.ones(N, dtype=np.bool_) if usable is None else usable,
        folds=FOLDS,
        splits=splits,
    )
    return list(
        train_nets(
            net,
            clips,
            RunSettings(protocol, device="cpu"),
            batches=lambda net: RawBatches(lambda row: waves[row], net.input),
            jobs=jobs,
        )
    )


class Seen:
    """Stands in for `fine_tune`, and keeps which rows it was given."""

    def __init__(self) -> None:
        self.train: list[list[int]] = []
        self.val: list[list[int]] = []

    def __call__(self, net: Net, batches: RawBatches, job: TrainingJob, *_: object, **__: object):
        self.train.append(list(job.train_rows))
        self.val.append(list(job.val_rows))
        return {"epoch": [1.0]}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    spy = Seen()
    monkeypatch.setattr(protocols, "fine_tune", spy)
    return spy


def ids(rows) -> set[str]:
    return {f"c{i}" for i in rows}


def groups(rows) -> set[int]:
    return {i // 2 for i in rows}


def test_crossfit_nets_never_see_their_fold(manifest, waves, tmp_path, seen) -> None:
    nets = run(manifest, waves, tmp_path, "crossfit")
    assert [t.spec.fold for t in nets] == [0, 1, 2]
    for fold, trained in enumerate(nets):
        outside = np.flatnonzero(fold != FOLDS)
        assert set(trained.spec.trained_on) == ids(outside)
        assert sorted(seen.train[fold] + seen.val[fold]) == outside.tolist()
        assert seen.val[fold]
        assert not groups(seen.train[fold]) & groups(seen.val[fold])


def test_one_shared_net_sees_all(manifest, waves, tmp_path, seen) -> None:
    (trained,) = run(manifest, waves, tmp_path, "shared")
    assert (trained.spec.protocol, trained.spec.fold) == ("shared", None)
    assert set(trained.spec.trained_on) == ids(range(N))
    assert sorted(seen.train[0] + seen.val[0]) == list(range(N))
    assert seen.val[0]


def test_frozen_nets_see_nothing(manifest, waves, tmp_path, seen) -> None:
    net = build_net("music1d", 3, width=0.1, **OPTIONS)
    torch.save(net.state_dict(), tmp_path / "w.pt")
    (trained,) = run(manifest, waves, tmp_path, "frozen", weights=str(tmp_path / "w.pt"))
    assert trained.spec.trained_on == ()
    assert trained.curve == {}
    assert seen.train == []
    with pytest.raises(BadSetting, match="pretrained weights"):
        run(manifest, waves, tmp_path, "frozen")


def test_a_holdout_net_trains_and_stops_by_its_own_split(manifest, waves, tmp_path, seen) -> None:
    usable = np.ones(N, dtype=np.bool_)
    usable[[3, 17, 21]] = False
    (trained,) = run(manifest, waves, tmp_path, "holdout", usable=usable)
    train = [i for i in range(16) if i != 3]
    assert seen.train == [train]
    assert seen.val == [[16, 18, 19]]
    assert (trained.spec.protocol, trained.spec.fold) == ("holdout", None)
    assert set(trained.spec.trained_on) == ids([*train, 16, 18, 19])
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("music1d-holdout-")
    record = json.loads((folder / "settings.json").read_text())
    assert [record["trained_on"][i] for i in record["held_out"]] == ["c16", "c18", "c19"]


@pytest.mark.parametrize(("protocol", "rows"), [("shared", N), ("crossfit", 16)])
def test_without_patience_nothing_is_held_out(
    manifest, waves, tmp_path, seen, protocol, rows
) -> None:
    run(manifest, waves, tmp_path, protocol, patience=0)
    assert {len(train) for train in seen.train} == {rows}
    assert not any(seen.val)


def test_without_patience_a_split_still_has_its_validation_clips(
    manifest, waves, tmp_path, seen
) -> None:
    run(manifest, waves, tmp_path, "holdout", patience=0)
    assert seen.train == [list(range(16))]
    assert seen.val == [list(range(16, 20))]


def test_another_split_is_another_job(manifest, waves, tmp_path) -> None:
    (a,) = run(manifest, waves, tmp_path, "holdout")
    (again,) = run(manifest, waves, tmp_path, "holdout")
    assert again.spec.digest == a.spec.digest
    assert again.curve == a.curve
    # The same clips are seen, but others of them decide when to stop.
    turned = SPLITS.copy()
    turned[:4], turned[16:20] = 1, 0
    (b,) = run(manifest, waves, tmp_path, "holdout", splits=turned)
    assert set(b.spec.trained_on) == set(a.spec.trained_on)
    assert b.spec.weights != a.spec.weights
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_holdout_net_needs(manifest, waves, tmp_path) -> None:
    with pytest.raises(BadSetting, match="needs a split"):
        run(manifest, waves, tmp_path, "holdout", splits=None)
    with pytest.raises(BadSetting, match="no usable validation clip"):
        run(manifest, waves, tmp_path, "holdout", usable=SPLITS != 1)
    with pytest.raises(BadSetting, match="0 usable training clips"):
        run(manifest, waves, tmp_path, "holdout", usable=SPLITS != 0)
    with pytest.raises(BadSetting, match="one of crossfit, frozen, shared, holdout"):
        RunSettings("split")


def test_all_protocols_train_really(manifest, waves, tmp_path) -> None:
    for protocol, count in (("crossfit", 3), ("shared", 1), ("holdout", 1)):
        nets = run(manifest, waves, tmp_path, protocol)
        assert len({t.spec.weights for t in nets}) == count
        for trained in nets:
            assert trained.curve["epoch"] == [1.0, 2.0]
            assert np.isfinite(trained.curve["val_loss"]).all()
    nets = run(manifest, waves, tmp_path, "crossfit", patience=0, iterations=5)
    for trained in nets:
        # Four steps an epoch: the second one is cut off after the first step.
        assert trained.curve["epoch"] == [1.0, 2.0]
        assert trained.curve["iteration"] == [1.0, 2.0, 3.0, 4.0, 5.0]
        assert np.isnan(trained.curve["val_loss"]).all()


FROZEN_RUN = RunSettings("frozen", device="cpu")
FROZEN_OPTIONS = {"n_frames": 8, "size": 32}


@pytest.fixture
def settings(tmp_path: Path) -> NetSettings:
    save_net(tmp_path / "own.pt", seed=0)
    return NetSettings("i3d", 0.25, str(tmp_path / "own.pt"), FROZEN_OPTIONS)


def save_net(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    torch.save(build_net("i3d", 2, width=0.25, **FROZEN_OPTIONS).state_dict(), path)


def test_a_net_is_made_once(settings: NetSettings) -> None:
    nets = FrozenNets(FROZEN_RUN, 2)
    assert nets.get(settings) is nets.get(settings)


@torch.inference_mode()
def test_it_embeds_as_the_net_that_it_is_made_of(settings: NetSettings) -> None:
    plain, fast = frozen_net(settings, 2, FROZEN_RUN), FrozenNets(FROZEN_RUN, 2).get(settings)
    assert fast.spec == plain.spec
    raw = torch.randint(0, 256, (2, 8, 32, 32, 3), dtype=torch.uint8)
    expected, found = (each.net.embed(each.net.prepare(raw)) for each in (plain, fast))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_a_changed_file_or_setting_is_another_net(settings: NetSettings) -> None:
    nets = FrozenNets(FROZEN_RUN, 2)
    first = nets.get(settings).spec
    slower = replace(settings, options={**FROZEN_OPTIONS, "n_frames": 16})
    assert nets.get(slower).spec.params != first.params
    file = Path(settings.weights)
    save_net(file, seed=1)
    assert nets.get(settings).spec.weights != first.weights
    file.unlink()
    with pytest.raises(MissingFile, match=r"own\.pt"):
        nets.get(settings)


def test_a_net_without_weights_is_refused(settings: NetSettings) -> None:
    with pytest.raises(BadSetting, match="i3d: the frozen protocol embeds with pretrained weights"):
        FrozenNets(FROZEN_RUN, 2).get(replace(settings, weights=""))

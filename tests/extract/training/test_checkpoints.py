import json
import math
from pathlib import Path

import pytest
import torch

from mvemo.extract.training.trainer import JobFolder


def folder(tmp_path: Path, digest: str = "a" * 64) -> JobFolder:
    job = JobFolder(tmp_path, "net-fold0", digest)
    job.begin({"lr": 0.1})
    return job


def test_state_comes_back_and_goes_when_the_job_is_done(tmp_path):
    job = folder(tmp_path)
    assert job.load_state() is None
    assert job.result() is None
    job.save_state({"epoch": 3, "weights": {"w": torch.arange(4.0)}})
    state = job.load_state()
    assert state is not None
    assert state["epoch"] == 3
    torch.testing.assert_close(state["weights"]["w"], torch.arange(4.0))
    job.finish({"w": torch.ones(2)}, {"epoch": [1.0]})
    assert job.load_state() is None
    result = job.result()
    assert result is not None
    torch.testing.assert_close(result[0]["w"], torch.ones(2))
    assert result[1] == {"epoch": [1.0]}


def test_another_digest_is_another_job(tmp_path):
    folder(tmp_path).finish({"w": torch.ones(2)}, {})
    assert folder(tmp_path, "b" * 64).result() is None


def test_a_damaged_state_is_a_miss_with_a_warning(tmp_path):
    job = folder(tmp_path)
    job.save_state({"epoch": 3})
    whole = (job.path / "state.pt").read_bytes()
    (job.path / "state.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match="damaged"):
        assert job.load_state() is None


def test_settings_lie_beside_the_weights(tmp_path):
    assert '"lr": 0.1' in (folder(tmp_path).path / "settings.json").read_text()


def test_a_curve_without_validation_is_strict_json_and_comes_back(tmp_path):
    job = folder(tmp_path)
    job.finish({"w": torch.ones(2)}, {"train_loss": [0.5, 0.25], "val_loss": [math.nan] * 2})

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    text = (job.path / "curve.json").read_text()
    assert json.loads(text, parse_constant=refuse)["val_loss"] == [None, None]
    result = job.result()
    assert result is not None
    assert result[1]["train_loss"] == [0.5, 0.25]
    assert all(math.isnan(value) for value in result[1]["val_loss"])

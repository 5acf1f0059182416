"""Runs in MLflow, read back with its client, and the other files of `mvemo fuse`."""

import sys
from importlib.util import find_spec

import pytest
from feature_samples import crossfit_cache, make_table
from stage_samples import run

# Every worker imports this module, one of them runs it, and mlflow's import takes two seconds.
pytestmark = pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed")


@pytest.fixture
def features(tmp_path):
    return crossfit_cache(tmp_path / "features.h5", make_table(24, 2))


def fuse(features, *options):
    return run("mvemo-cv", features, "--set", "fuse.n_resamples=0", *options)


def test_a_run_has_settings_scores_and_files(features, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    out, store = tmp_path / "out", tmp_path / "runs"
    figures = tmp_path / "figures"
    options = ["--out", out, "--mlflow", store, "--figures", figures, "--seed", 3]
    assert fuse(features, *options) == 0
    client = mlflow.MlflowClient(store.as_uri())
    (experiment,) = (e for e in client.search_experiments() if e.name != "Default")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.data.params["n_resamples"] == "0"
    assert 0 <= logged.data.metrics["integrated/mcc"] <= 1
    names = {one.path for one in client.list_artifacts(logged.info.run_id)}
    assert names == {"report.html", "metrics.json", "predictions.csv"}
    assert {file.suffix for file in figures.iterdir()} == {".svg", ".pdf"}


def test_a_missing_package_and_a_wrong_store_are_one_line(features, tmp_path, monkeypatch, capsys):
    assert fuse(features, "--out", tmp_path / "a", "--mlflow", "odd://store") == 2
    assert "mvemo-cv: --mlflow odd://store: " in capsys.readouterr().err
    # The report is there all the same.
    assert (tmp_path / "a" / "report.html").is_file()
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert fuse(features, "--out", tmp_path / "b", "--mlflow", tmp_path / "runs") == 2
    assert "needs the package mlflow: pip install mlflow" in capsys.readouterr().err

"""Stage two end to end: what `mvemo-cv` and `mvemo fuse` write, from the cache alone."""

import contextlib
import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from feature_samples import crossfit_cache, make_table
from stage_samples import lines_of, run

from mvemo.cache import open_cache
from mvemo.fuse import load_heads
from mvemo.manifests import Folds, folds_of, read_manifest, write_folds
from mvemo.manifests.errors import MvemoError

NAMES = ["music1d", "c3d", "c3d+music1d", "integrated", "integrated-stacked", "integrated-late"]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    return crossfit_cache(tmp_path_factory.mktemp("stage2") / "features.h5", make_table(24, 2))


@pytest.fixture(scope="module")
def fused(features, tmp_path_factory):
    """Folder of a run of `mvemo fuse` over all features, and what it printed."""
    out, printed = tmp_path_factory.mktemp("fused") / "out", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert run("mvemo", "fuse", features, "--out", out) == 0
    return out, printed.getvalue()


def test_fuse_writes_the_report_and_the_heads(fused):
    out, shown = fused
    assert "synthetic" in shown.lower()
    metrics = json.loads((out / "metrics.json").read_text())
    facts = [metrics[key] for key in ("synthetic", "task", "protocol", "folds", "clips")]
    assert facts == [True, "multiclass", "crossfit", 2, 24]
    assert list(metrics["models"]) == [*NAMES, "kernel"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "http://" not in page.replace("http://www.w3.org", "")
    heads = load_heads(out / "heads.npz")
    # The pair of all features shares the head of `integrated`.
    assert {h.model for h in heads.heads} >= set(NAMES) - {"c3d+music1d"}
    assert len(heads.select("integrated", 0)) == 1
    (stack,) = heads.select("integrated-stacked")
    assert (stack.inputs, stack.features) == ("log-probabilities", ("music1d", "c3d"))
    assert len(heads.select("integrated")) == 2


def test_the_two_commands_agree(features, fused, tmp_path):
    assert run("mvemo-cv", features, "--folds", "2", "--out", tmp_path) == 0
    texts = [(folder / "metrics.json").read_text() for folder in (fused[0], tmp_path)]
    assert json.loads(texts[0])["models"] == json.loads(texts[1])["models"]
    assert not (tmp_path / "heads.npz").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--folds", "5"], "trained for 2 folds, not 5: give --folds 2"),
        (["--models", "c3d,resnet"], "unknown model 'resnet'"),
        (["--protocol", "frozen"], "expected features of protocol frozen, got crossfit"),
    ],
)
def test_wrong_options_are_one_line(features, tmp_path, capsys, options, said):
    assert run("mvemo-cv", features, "--out", tmp_path, *options) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert said in error


def test_folds_of_a_file(features, tmp_path, capsys):
    with open_cache(features) as cache:
        table = cache.table
    own = Folds(table.folds, table.k, table.fold_seed, table.clip_ids)
    write_folds(own, tmp_path / "own.csv")
    options = ["--out", tmp_path / "o", "--models", "c3d", "--set", "fuse.n_resamples=0"]
    assert run("mvemo-cv", features, "--folds", tmp_path / "own.csv", *options) == 0
    # Nets that were trained without a fold bind the evaluation to it.
    write_folds(replace(own, assignment=1 - own.assignment), tmp_path / "other.csv")
    assert run("mvemo-cv", features, "--folds", tmp_path / "other.csv", *options) == 2
    assert "c3d were trained for other folds than those of the file" in capsys.readouterr().err

    # Features that all folds share are evaluated on any: here on folds of another order.
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(len(table), 4)))
    manifest, rows = tmp_path / "manifest.csv", ["path,clip_id,label,group"]
    for clip, label, group in zip(table.clip_ids, table.labels, table.groups, strict=True):
        rows.append(f"{clip}.wav,{clip},{table.classes[label]},{group}")
    manifest.write_text("\n".join(rows))
    imported = ["--feature", "theirs", "--modality", "audio", "--manifest", manifest]
    assert run("mvemo", "cache", "import", tmp_path / "i.h5", tmp_path / "v.npy", *imported) == 0
    folds = folds_of(read_manifest(manifest, media=False), 3, 7)
    order = np.random.default_rng(1).permutation(len(table))
    ids = tuple(folds.clip_ids[i] for i in order)
    shuffled = replace(folds, assignment=folds.assignment[order], clip_ids=ids)
    write_folds(shuffled, tmp_path / "f.csv")
    options = ["--out", tmp_path / "p", "--set", "fuse.n_resamples=0"]
    arguments = [tmp_path / "i.h5", "--folds", tmp_path / "f.csv", *options]
    assert run("mvemo-cv", *arguments) == 0
    with (tmp_path / "p" / "predictions.csv").open(encoding="utf-8") as file:
        tested = {row["clip_id"]: int(row["fold"]) for row in csv.DictReader(file)}
    assert tested == dict(zip(folds.clip_ids, folds.assignment.tolist(), strict=True))
    metrics = json.loads((tmp_path / "p" / "metrics.json").read_text())
    assert metrics["folds"] == 3
    assert run("mvemo-cv", *arguments, "--repeats", "2") == 2
    assert "--repeats 2 needs other folds" in capsys.readouterr().err
    # No model can be made of them, and the report is written all the same.
    assert run("mvemo", "fuse", tmp_path / "i.h5", "--final", "--out", tmp_path / "final") == 2
    shown = capsys.readouterr()
    assert "every model needs imported features (theirs)" in shown.err
    assert "report: " in shown.out
    assert (tmp_path / "final" / "report.html").is_file()


@pytest.mark.parametrize("command", ["cv", "report"])
def test_the_table_is_printed_also_if_the_report_cannot_be_written(
    command, features, fused, tmp_path, monkeypatch, capsys
):
    def fail(*_, **__):
        raise MvemoError("report.html: cannot be written: no space left on the disk")

    place = "pipeline.stage_two" if command == "cv" else "fuse"
    monkeypatch.setattr(f"mvemo.{place}.write_report", fail)
    out, _ = fused
    given = [features, "--models", "music1d", "--set", "fuse.choose_C=false"]
    if command == "report":
        given = ["--predictions", out / "predictions.csv"]
    assert run("mvemo", command, *given, "--out", tmp_path / "out") == 2
    shown = capsys.readouterr()
    assert "accuracy" in shown.out
    assert "no space left on the disk" in shown.err


def test_help_and_stage_two_load_none_of_stage_one(features, tmp_path):
    words = [str(features), "--out", str(tmp_path / "o"), "--models", "c3d"]
    call = (0, "main_cv", *words, "--set", "fuse.n_resamples=0")
    lines_of([call], ("torch", "torchvision", "av", "cv2", "librosa"))

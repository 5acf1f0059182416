"""Predictions by shards, by processes and on Dask are those of one process."""

import csv

import numpy as np
import pytest
import soundfile
from stage_samples import run

from mvemo.fuse.final.model_files import load_model
from mvemo.pipeline.prediction import spread
from mvemo.pipeline.prediction.feature_maker import FeatureMaker
from mvemo.pipeline.prediction.new_clips import NewClip, PredictSettings
from mvemo.pipeline.stage_one.division import Shard


@pytest.fixture(scope="module")
def folder(tiny_run, tmp_path_factory):
    """A folder with a model, and five songs, one of them unreadable, in two folders."""
    folder = tmp_path_factory.mktemp("spread")
    (folder / "out").symlink_to(tiny_run / "out")
    for i in range(4):
        song = folder / "songs" / f"{i % 2}" / f"{i}.wav"
        song.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).uniform(-0.5, 0.5, 16000)
        soundfile.write(song, noise, 8000)
    (folder / "songs" / "0" / "text.mp3").write_text("no sound at all")
    return folder


def predicted(folder, *options, to):
    model = folder / "out" / "model"
    arguments = [folder / "songs", "--model", model, "--csv", folder / to, *options]
    # A shard may have only the file that cannot be read.
    assert run("mvemo", "predict", *arguments) in ((0, 2) if "--shard" in options else (0,))
    with open(folder / to, newline="") as file:
        rows = [*csv.DictReader(file)]
    return [{k: v for k, v in row.items() if k not in ("date", "seconds")} for row in rows]


@pytest.fixture(scope="module")
def expected(folder):
    return predicted(folder, to="one.csv")


def test_processes_give_the_same_table(folder, expected):
    assert predicted(folder, "--jobs", 2, to="jobs.csv") == expected


def test_processes_fill_a_catalogue_that_the_next_run_reads(folder, capsys):
    expected = predicted(folder, "--cache", folder / "one.h5", to="one-kept.csv")
    capsys.readouterr()
    kept = ["--cache", folder / "songs.h5"]
    assert predicted(folder, "--jobs", 2, *kept, to="first.csv") == expected
    assert "5 new, 0 kept" in capsys.readouterr().err
    (folder / "songs" / "1" / "new.wav").write_bytes((folder / "songs/1/1.wav").read_bytes()[:-800])
    try:
        again = predicted(folder, "--jobs", 2, *kept, to="second.csv")
    finally:
        (folder / "songs" / "1" / "new.wav").unlink()
    assert "1 new, 5 kept" in capsys.readouterr().err
    assert [row for row in again if not row["path"].endswith("new.wav")] == expected
    assert predicted(folder, *kept, to="third.csv") == expected


def test_nothing_new_needs_no_process(folder):
    maker = FeatureMaker(folder / "out" / "model", PredictSettings(("audio",)))
    assert list(spread.SpreadReader(maker, 2, "").read({})) == []
    # Not even a scheduler is asked.
    assert list(spread.SpreadReader(maker, 1, "tcp://127.0.0.1:1").read({})) == []


def test_dask_gives_the_same_table_and_fills_a_catalogue(folder, expected, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"dashboard_address": None, "processes": False, "threads_per_worker": 1}
    with distributed.LocalCluster(n_workers=1, **options, protocol="tcp") as cluster:
        words = ["--backend", "dask", "--scheduler", cluster.scheduler_address]
        assert predicted(folder, *words, to="dask.csv") == expected
        words += ["--cache", tmp_path / "kept.h5"]
        first = predicted(folder, *words, to="dask-kept.csv")
    assert predicted(folder, "--cache", tmp_path / "kept.h5", to="then.csv") == first


def test_shards_together_give_the_same_rows(folder, expected):
    rows = []
    for i in (1, 2):
        rows += predicted(folder, "--shard", f"{i}/2", to=f"{i}.csv")
    assert sorted(rows, key=lambda row: row["path"]) == expected
    assert len(rows) == 5


def test_a_shard_has_whole_folders_if_the_model_compares_their_clips(folder, monkeypatch):
    model = load_model(folder / "out" / "model")
    model.facts["within_groups"] = True
    monkeypatch.setattr(spread, "load_model", lambda folder: model)
    clips = [NewClip(f"{i}", folder / f"{i % 3}" / f"{i}.wav") for i in range(12)]
    shards = [spread.of_shard(clips, Shard(i, 2), folder) for i in (1, 2)]
    assert sorted(clip.file for shard in shards for clip in shard) == sorted(c.file for c in clips)
    folders = [{clip.path.parent for clip in shard} for shard in shards]
    assert not folders[0] & folders[1]

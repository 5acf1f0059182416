"""`mvemo embed`: vectors of files and of windows, and what its tables hold."""

import csv
import json

import numpy as np
import pandas
import pytest
import torch
from pyarrow.parquet import read_schema
from server_samples import write_songs
from stage_samples import refusal, run

from mvemo.cache import open_cache
from mvemo.extract.nets import build_net
from mvemo.manifests.errors import BadFile
from mvemo.pipeline.desk.vectors import BLOCK, read_vectors, write_vectors

SECONDS = 3


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Return a folder with two songs of noise, and a file that is none."""
    return write_songs(tmp_path_factory.mktemp("songs") / "songs", 2, SECONDS)


def test_vectors_are_the_features_that_predict(songs, model, tmp_path, program):
    out = tmp_path / "x.parquet"
    found = program("mvemo", "embed", songs, "--model", model, "--out", out)
    assert found.out.startswith(f"{out}: 2 clips, ")
    assert f"error: {songs / 'broken.mp3'}: " in found.err
    program("mvemo", "embed", songs, "--model", model, "--out", out, "--strict", ends=1)
    table = pandas.read_parquet(out)
    assert [*table.columns] == ["id", "start", "end", "vector"]
    assert [*table.id] == [str(songs / f"song{i}.wav") for i in range(2)]
    assert table.start.tolist() == [0, 0]
    assert table.end.tolist() == pytest.approx([SECONDS, SECONDS])

    catalogue = tmp_path / "x.h5"
    program("mvemo", "predict", songs, "--model", model, "--cache", catalogue)
    facts = json.loads(read_schema(out).metadata[b"mvemo"])
    with open_cache(catalogue) as cache:
        values = [cache.vectors(name)[0] for name in facts["features"]]
        order = [cache.table.groups.index(clip_id) for clip_id in table.id]
    expected = np.concatenate(values, axis=1)[order]
    np.testing.assert_array_equal(np.stack(table.vector), expected.astype(np.float32))


def test_every_hop_has_a_vector_of_a_chosen_net(songs, tmp_path, program):
    torch.manual_seed(0)
    net = build_net("music1d", 6, seconds=1.0).eval()
    weights = tmp_path / "own.npz"
    np.savez(weights, **{name: value.numpy() for name, value in net.state_dict().items()})
    tables = [tmp_path / "x.csv", tmp_path / "x.parquet"]
    how = ["--nets", "music1d", "--weights", f"music1d={weights}", "--hop", 0.5, "--window", 1]
    for out in tables:
        program("mvemo", "embed", songs / "song0.wav", *how, "--out", out)
    rows = [*csv.DictReader(tables[0].open(newline=""))]
    assert [float(row["start"]) for row in rows] == [0, 0.5, 1, 1.5, 2]
    assert [float(row["end"]) for row in rows] == [1, 1.5, 2, 2.5, 3]
    values = np.array([json.loads(row["vector"]) for row in rows], np.float32)
    np.testing.assert_array_equal(values, np.stack(pandas.read_parquet(tables[1]).vector))
    assert len({x.tobytes() for x in values}) == 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--window", 2], "--window 2: expected at least the seconds of --hop"),
        (["--hop", 2, "--window", 1], "--window 1: expected at least the seconds of --hop"),
        (["--hop", 0], "--hop"),
        (["--nets", "musicnn", "--model", "songs"], "--nets, --model: expected one"),
        (["--nets", "nonet"], "nonet"),
        (["--nets", "music2d"], "music2d: the frozen protocol needs pretrained weights"),
    ],
)
def test_wrong_options_are_one_line(options, words, songs, tmp_path, capsys):
    out = tmp_path / "x.csv"
    assert run("mvemo", "embed", songs / "song0.wav", "--out", out, *options) == 2
    assert words in refusal(capsys)
    assert not out.exists()


def test_without_a_readable_file_the_exit_code_is_2(songs, tmp_path, capsys):
    out = tmp_path / "x.csv"
    assert run("mvemo", "embed", songs / "none.wav", "--out", out) == 2
    assert refusal(capsys) == f"error: {songs / 'none.wav'}: no such file"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_are_read_in_blocks_as_they_were_written(suffix, tmp_path):
    values = np.random.default_rng(0).normal(size=(BLOCK + 5, 3)).astype(np.float32)
    ids = [f"=song {i}" for i in range(len(values))]
    path = tmp_path / f"x.{suffix}"
    rows = ((i, 0.0, 1.0, x) for i, x in zip(ids, values, strict=True))
    write_vectors(path, rows, 3, {})
    found, read = read_vectors(path)
    assert found == ids
    blocks = [*read.blocks()]
    assert [len(block) for _, block in blocks] == [BLOCK, 5]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), values)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,start,end,vector\n", "got no row with a number"),
        ("path,label\na.mp3,sad\n", "expected the columns id and vector of mvemo embed: 'vector'"),
        ('id,vector\na,"[1, 2]"\nb,"[1]"\n', "inhomogeneous"),
        ('id,vector\na,"[1, nan]"\n', "a: expected a vector of 2 finite numbers"),
        ('id,vector\na,"[1, 2]"\na,"[1, 2]"\n', "a has 2 rows, expected 1: leave out --hop"),
    ],
)
def test_other_tables_are_refused(text, words, tmp_path):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(BadFile, match=r"x\.csv: ") as error:
        read_vectors(tmp_path / "x.csv")
    assert words in str(error.value)
    (tmp_path / "x.parquet").write_text(text)
    with pytest.raises(BadFile, match=r"x\.parquet: expected the columns id and vector"):
        read_vectors(tmp_path / "x.parquet")

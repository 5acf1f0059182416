"""Clips to label next: known answers, and the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
from feature_samples import make_table

from mvemo.cache import import_feature, open_cache
from mvemo.fuse import BadFeatures
from mvemo.fuse.next_labels import next_labels


def write(path, values, table, name="timbre"):
    import_feature(path, name, "audio", values.astype(np.float32), table=table)
    return path


@pytest.fixture
def files(tmp_path):
    """Two labelled clusters; new clips near one of them, between them, and far from both."""
    rng = np.random.default_rng(0)
    table = make_table(n=80, classes=("calm", "tense"))
    kinds = np.asarray(table.labels)
    centres = np.array([[4.0, 0, 0, 0], [-4.0, 0, 0, 0]])
    known = write(tmp_path / "a.h5", centres[kinds] + rng.normal(size=(80, 4)), table)
    places = np.repeat([[4.0, 0, 0, 0], [0, 0, 0, 0], [0, 40.0, 0, 0]], (20, 3, 3), axis=0)
    ids = tuple(f"n{i}" for i in range(26))
    new = replace(
        table, name="new", clip_ids=ids, groups=ids, labels=kinds[:26], folds=np.full(26, -1), k=0
    )
    return known, write(tmp_path / "b.h5", places + 0.1 * rng.normal(size=(26, 4)), new), new


def test_uncertain_and_unlike_clips_come_first(files):
    known, unlabelled, _ = files
    with open_cache(known) as a, open_cache(unlabelled) as b:
        found = next_labels(a, b)
        assert next_labels(a, b, 4) == found[:4]
    order = [int(one.clip_id[1:]) for one in found]
    assert sorted(order) == list(range(26))
    # One of the far clips, and one between the clusters; then the clusters' own.
    assert {(i - 20) // 3 for i in order[:2]} == {0, 1}
    assert all(0 <= one.uncertainty <= 1 for one in found)


def test_files_without_a_shared_feature(files, tmp_path):
    known, _, new = files
    other = write(tmp_path / "c.h5", np.random.default_rng(1).normal(size=(26, 4)), new, "mood")
    with (
        open_cache(known) as a,
        open_cache(other) as b,
        pytest.raises(BadFeatures, match=r"a\.h5 \(timbre\) and .*c\.h5 \(mood\) share no feature"),
    ):
        next_labels(a, b)


def test_the_command_writes_a_list(files, tmp_path, monkeypatch, capsys):
    from mvemo.pipeline import cli

    known, unlabelled, _ = files
    words = ["mvemo", "labels", str(known), "--next", str(unlabelled), "--most", "3"]
    out = tmp_path / "next.csv"
    monkeypatch.setattr("sys.argv", [*words, "--json", "--out", str(out)])
    with pytest.raises(SystemExit):
        cli.main()
    assert len(json.loads(capsys.readouterr().out)["next"]) == 3
    lines = out.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "clip_id,path,label,uncertainty,corrected"
    assert len(lines) == 4

"""The functions of `import mvemo`: they do what the commands do."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from stage_samples import TINY, run, tiny_demo

import mvemo
from mvemo.manifests import folds_of, write_manifest
from mvemo.pipeline.errors import BadOption

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"


def test_the_page_s_first_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest = tiny_demo(tmp_path / "media")
    write_manifest(manifest, tmp_path / "clips.csv")
    (tmp_path / "clips").symlink_to(manifest.media_path(manifest.clips[0]).parent)
    rng = np.random.default_rng(0)
    soundfile.write("song.wav", rng.uniform(-0.5, 0.5, 22050), 22050)
    (block,) = re.findall(r"```python\n(import mvemo.*?)```", PAGE.read_text(), re.DOTALL)
    block = block.replace('"pretrained"', f'"paper", settings={list(TINY)}')
    before, last = block[: block.index("records")], block[block.index("records") :]
    names: dict = {}
    exec(before, names)
    summary, results = names["summary"], names["results"]
    assert summary.path == Path("work/features.h5")
    assert set(summary.features) >= {"music1d", "c3d"}
    assert results.k == 2
    # The command evaluates them alike.
    assert run("mvemo", "fuse", summary.path, "--final") == 0
    models = json.loads(Path("out/metrics.json").read_text())["models"]
    scores = {m.name: m.scores["accuracy"] for m in results.models}
    assert scores == {name: models[name]["accuracy"]["pooled"] for name in models}
    exec(last.replace("])", '], model="out/model")'), names)
    song, *videos = names["records"]
    assert song["path"] == "song.wav"
    assert {video["label"] for video in videos} <= set(manifest.classes)
    (first, *_), features = mvemo.predict(summary.path, "out/model"), names["records"][1]
    asked = mvemo.predict(summary.path, "out/model", coverage=0.9)
    assert json.loads(json.dumps(asked))[0]["coverage"] == 0.9
    assert "<td>" in asked._repr_html_()
    assert first["proba"] == pytest.approx(features["proba"], abs=1e-5)


def test_packages_are_there_after_import_mvemo_alone():
    # In this order: each imports those before it, if any.
    code = "import mvemo; print(mvemo.manifests, mvemo.cache, mvemo.fuse, mvemo.extract)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_clip_table_has_the_folds_that_are_asked_for(tmp_path):
    manifest = tiny_demo(tmp_path)
    assert mvemo.load(manifest.root / "manifest.csv").digest == manifest.digest
    assert len(mvemo.load(manifest.root / "media")) == len(manifest)
    assert mvemo.clip_table(manifest).k == 0
    assert mvemo.clip_table(manifest.root / "manifest.csv").clip_ids == manifest.clip_ids
    folds = folds_of(manifest, 2)
    for table in (mvemo.clip_table(manifest, 2), mvemo.clip_table(manifest, folds)):
        assert table.clip_ids == manifest.clip_ids
        np.testing.assert_array_equal(table.folds, folds.assignment)


def test_names_and_options_that_are_not_there_name_those_that_are():
    with pytest.raises(AttributeError, match=r"no attribute 'foo'.*predict"):
        mvemo.foo  # noqa: B018
    assert set(mvemo.__all__) <= set(dir(mvemo))
    with pytest.raises(BadOption, match="modality 'smell': expected 'audio', 'video' or 'both'"):
        mvemo.predict(["song.mp3"], modality="smell")
    with pytest.raises(BadOption, match=r"extract\.fold: unknown setting"):
        mvemo.extract("clips.csv", settings="extract.fold=4")

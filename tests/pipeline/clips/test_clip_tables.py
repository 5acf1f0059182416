"""Splits that a manifest prescribes, in the clips of caches, and links to their files."""

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from stage_samples import run

from mvemo.cache import open_cache, verify_cache
from mvemo.extract.settings import RunSettings
from mvemo.manifests import Clip, Manifest, write_manifest
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.clips import clip_tables
from mvemo.pipeline.clips.clip_tables import (
    extracted_clips,
    links_of_folder,
    links_of_manifest,
)
from mvemo.pipeline.settings import ExtractSettings


def split_manifest(*names, **changes):
    clips = tuple(
        Clip(f"c{i:02d}", f"{i}.wav", ("ab"[i % 2],), f"g{i:02d}", split=name)
        for i, name in enumerate(names)
    )
    return replace(Manifest("split", "multiclass", ("a", "b"), clips, Path()), **changes)


def evaluated(features, out, *options):
    assert run("mvemo-cv", features, "--out", out, *options) == 0
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def test_imported_features_are_scored_on_the_test_clips(tmp_path, capsys):
    manifest = split_manifest(*["Train"] * 20, *["val"] * 4, *["TEST"] * 6)
    write_manifest(manifest, tmp_path / "m.csv")
    labels = np.asarray(manifest.labels)
    np.save(tmp_path / "x.npy", labels[:, None] + np.arange(30)[:, None] / 100)
    features = tmp_path / "features.h5"
    assert run("mvemo", "cache", "import", features, tmp_path / "x.npy", "--manifest",
               tmp_path / "m.csv", "--feature", "x", "--modality", "audio") == 0  # fmt: skip
    assert verify_cache(features) == []
    with open_cache(features) as cache:
        assert np.bincount(cache.table.splits).tolist() == [20, 4, 6]
        assert cache.table.k == 0
    assert run("mvemo", "cache", "info", features) == 0
    assert "20 training, 4 validation, 6 test clips" in capsys.readouterr().out
    metrics = evaluated(features, tmp_path / "out")
    assert metrics["folds"] == 1
    assert np.sum(metrics["models"]["x"]["confusion"]) == 6
    # Folds that are asked for are made of all clips.
    metrics = evaluated(features, tmp_path / "folds", "--folds", 3)
    assert metrics["folds"] == 3
    assert np.sum(metrics["models"]["x"]["confusion"]) == 30


def test_each_protocol_keeps_or_names_the_split():
    manifest = split_manifest(*["train"] * 20, *["test"] * 6)
    frozen = extracted_clips(manifest, ExtractSettings(RunSettings(protocol="frozen")))
    assert frozen.table.splits.tolist() == [0] * 20 + [2] * 6
    assert (frozen.folds, frozen.notes) == (None, ())
    trained = extracted_clips(manifest, ExtractSettings(RunSettings(protocol="holdout")))
    assert set(trained.table.splits.tolist()) == {0, 1, 2}
    folds = extracted_clips(manifest, ExtractSettings(RunSettings(protocol="crossfit")))
    assert folds.table.splits is None
    assert folds.table.k == 6
    assert "give --protocol holdout to train and test on the split" in folds.notes[0]


def test_clips_of_a_cache_keep_their_folds():
    manifest = split_manifest(*[None] * 30)
    table = extracted_clips(manifest, ExtractSettings()).table
    fewer = replace(manifest, clips=manifest.clips[4:])
    earlier = clip_tables.folds_of_table(table)
    after = extracted_clips(fewer, ExtractSettings(), earlier=earlier)
    assert np.array_equal(after.table.folds, table.folds[4:])
    assert "26 of 26 groups keep their earlier folds" in after.notes[0]
    assert extracted_clips(fewer, ExtractSettings(folds=3), earlier=earlier).table.k == 3
    assert clip_tables.folds_of_table(replace(table, k=0)) is None


NAMES = ("a b.mp3", "javascript:alert(1).mp3", "<b>'\"&amp;.mp3", "100%#?.mp3", "音.mp3")


@pytest.fixture
def features(tmp_path):
    (tmp_path / "media").mkdir()
    clips = []
    for i in range(20):
        name = f"{i} {NAMES[i % len(NAMES)]}"
        (tmp_path / "media" / name).touch()
        clips.append(Clip(f"c{i}", name, ("ab"[i % 2],), f"g{i}"))
    manifest = Manifest("odd", "multiclass", ("a", "b"), tuple(clips), tmp_path / "media")
    write_manifest(manifest, tmp_path / "media" / "clips.csv")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 3)))
    path = tmp_path / "features.h5"
    listed = ("--manifest", tmp_path / "media" / "clips.csv")
    feature = ("--feature", "x", "--modality", "audio")
    assert run("mvemo", "cache", "import", path, tmp_path / "x.npy", *feature, *listed) == 0
    return path


def links(features, out):
    assert run("mvemo-cv", features, "--out", out, "--folds", 2, "--set", "fuse.n_resamples=0") == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    found = re.findall(r'<a href="([^"#][^"]*)">c\d+</a>', page)
    return [unescape(link) for link in found]


def test_hard_clips_lead_to_their_files(features, tmp_path):
    out = tmp_path / "deep" / "out"
    found = links(features, out)
    assert len(found) > 3
    for link in found:
        assert link.startswith("../../media/")
        assert (out / unquote(link)).is_file()
    # On another machine nothing is known of them.
    (tmp_path / "media").rename(tmp_path / "moved")
    assert links(features, tmp_path / "other") == []


def test_another_manifest_of_that_name_gives_no_links(features, tmp_path):
    path = tmp_path / "media" / "clips.csv"
    with open_cache(features) as cache:
        assert len(clip_tables.links_of_cache(cache, tmp_path)) == 20
        lines = path.read_text().splitlines()
        path.write_text("\n".join(lines[:-1]) + "\n")
        assert clip_tables.links_of_cache(cache, tmp_path) == {}
        path.write_text("no manifest")
        assert clip_tables.links_of_cache(cache, tmp_path) == {}


def test_a_link_is_no_address_of_its_own(tmp_path):
    clip = Clip("c", "javascript:alert(1)", ("a",), "g")
    manifest = Manifest("m", "multiclass", ("a",), (clip,), tmp_path)
    # A file that does not exist has no link.
    assert links_of_manifest(manifest, tmp_path) == {}
    for name in (clip.path, "s.mp3"):
        (tmp_path / name).touch()
    assert links_of_manifest(manifest, tmp_path) == {"c": "javascript%3Aalert%281%29"}
    whole = replace(clip, path="s.mp3", start=1.5)
    assert links_of_manifest(replace(manifest, clips=(whole,)), tmp_path) == {"c": "s.mp3#t=1.5"}


def test_links_to_files_named_like_clips(tmp_path):
    (tmp_path / "media" / "sad").mkdir(parents=True)
    for name in ("a.mp3", "sad/b c.mp4"):
        (tmp_path / "media" / name).touch()
    links = links_of_folder(["a", "sad/b c", "a@30", "d"], tmp_path / "media", tmp_path / "out")
    assert links == {
        "a": "../media/a.mp3",
        "sad/b c": "../media/sad/b%20c.mp4",
        "a@30": "../media/a.mp3#t=30",
    }
    with pytest.raises(BadOption, match="has no file for any clip, such as d"):
        links_of_folder(["d"], tmp_path / "media", tmp_path)


def test_splits_that_cannot_be_honoured_are_named():
    manifest = split_manifest(*["train"] * 20, *["test"] * 6)
    clips = [replace(clip, group=f"g{i // 3}") for i, clip in enumerate(manifest.clips)]
    leaking = replace(manifest, clips=tuple(clips))
    for evaluation in (
        extracted_clips(leaking, ExtractSettings(RunSettings(protocol="frozen"))),
        clip_tables.imported_clips(leaking),
    ):
        assert evaluation.table.splits is None
        assert evaluation.notes[0] == (
            "the manifest's split is not used because group 'g6' is in the splits train and "
            "test: the clips are cross-validated instead"
        )
    both = [replace(clip, fold=i % 2) for i, clip in enumerate(manifest.clips)]
    evaluation = clip_tables.imported_clips(replace(manifest, clips=tuple(both)))
    assert (evaluation.table.k, evaluation.table.splits) == (2, None)
    assert "folds and a split: the folds are used" in evaluation.notes[0]

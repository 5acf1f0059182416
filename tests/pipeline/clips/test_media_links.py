"""Links from a report's hard clips to their files."""

import re
from dataclasses import replace
from html import unescape
from urllib.parse import unquote

import numpy as np
import pytest
from stage_samples import run

from mvemo.cache import open_cache
from mvemo.manifests import Clip, Manifest, write_manifest
from mvemo.pipeline.clips.clip_tables import links_of_cache, links_of_manifest

NAMES = ("a b.mp3", "javascript:alert(1).mp3", "<b>'\"&amp;.mp3", "100%#?.mp3", "音.mp3")


@pytest.fixture
def features(tmp_path):
    """Noise as a feature of twenty clips of odd names."""
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
    """Links of the clips of a report, as a browser reads them."""
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
        assert len(links_of_cache(cache, tmp_path)) == 20
        lines = path.read_text().splitlines()
        path.write_text("\n".join(lines[:-1]) + "\n")
        assert links_of_cache(cache, tmp_path) == {}
        path.write_text("no manifest")
        assert links_of_cache(cache, tmp_path) == {}


def test_a_link_is_no_address_of_its_own(tmp_path):
    clip = Clip("c", "javascript:alert(1)", ("a",), "g")
    manifest = Manifest("m", "multiclass", ("a",), (clip,), tmp_path)
    assert links_of_manifest(manifest, tmp_path) == {"c": "javascript%3Aalert%281%29"}
    whole = replace(clip, path="s.mp3", start=1.5)
    manifest = replace(manifest, clips=(whole,))
    assert links_of_manifest(manifest, tmp_path) == {"c": "s.mp3#t=1.5"}

"""What file names state: sources of clips, and facts of data sets."""

import re
from pathlib import Path

import pytest

from mvemo.manifests import BadManifest, Clip, Manifest, source_of, with_inferred_groups
from mvemo.manifests.layouts.file_names import RAVDESS, source_of_piece


def test_names_of_ravdess():
    facts = RAVDESS.parse("03-02-05-02-01-02-12")
    assert list(facts.values()) == ["audio", "song", "angry", "strong", "01", "02", "12"]
    others = """song 03-02-05-02-01-02 03-02-09-02-01-02-12 04-02-05-02-01-02-12
        03-02-00-02-01-02-12 03-02-05-02-01-02-25 03-02-05-02-01-03-12 03-02-05-02-01-02-12-01
        3-02-05-02-01-02-12"""
    assert not any(map(RAVDESS.parse, others.split()))


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("Exciting_MV_3GPP(57)-3-of-8.mp4", "Exciting_MV_3GPP(57)"),
        ("a b.c-10-of-12.mp4", "a b.c"),
        ("song_2_of_3.mp4", "song"),
        ("X-1-OF-2.mp4", "X"),
        ("one-of-us.mp4", "one-of-us"),
        ("X-5-of-3.mp4", "X-5-of-3"),
        ("-1-of-2.mp4", "-1-of-2"),
        ("a-1-of-2-1-of-3.mp4", "a-1-of-2"),
        # A bare number means nothing outside its folder.
        ("Train/Sad/23.mp4", "Sad/23"),
        ("Sad/7-2-of-3.mp4", "Sad/7"),
        ("7.mp4", "7"),
        ("Fear/v-1-of-2.mkv", "v"),
    ],
)
def test_sources(path, source):
    assert source_of(path) == source


def test_groups_of_a_manifest_are_replaced():
    named = [source_of_piece(path) for path in ("Sad/Vol. 2-5-of-9.mp4", "b-1-of-2", "c")]
    assert named == ["Vol. 2", "b", ""]
    paths = ("x/song1_a.mp3", "x/song1_b.mp3", "v-1-of-2.mp3")
    clips = tuple(Clip(path, path, ("x",), path) for path in paths)
    manifest = Manifest("m", "multiclass", ("x", "y"), clips, Path())
    assert with_inferred_groups(manifest).groups == ("song1_a", "song1_b", "v")
    grouped = with_inferred_groups(manifest, r"([^/]+)_[ab]$")
    assert grouped.groups == ("song1", "song1", "v-1-of-2.mp3")
    for pattern, message in (
        ("(", "invalid group pattern '(': "),
        ("song", "has 0 pairs of parentheses"),
        ("(zzz)", "no path matches the group pattern '(zzz)'; the first path is 'x/song1_a.mp3'"),
    ):
        with pytest.raises(BadManifest, match=re.escape(message)):
            with_inferred_groups(manifest, pattern)

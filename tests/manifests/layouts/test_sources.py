"""Sources told by file names."""

import csv
import re
from collections import defaultdict
from pathlib import Path

import pytest

from mvemo.manifests import (
    BadManifest,
    Clip,
    Manifest,
    infer_group,
    read_manifest,
    source_of,
    with_inferred_groups,
)


@pytest.mark.parametrize(
    ("stem", "source"),
    [
        ("Exciting_MV_3GPP(57)-3-of-8", "Exciting_MV_3GPP(57)"),
        ("a b.c-10-of-12", "a b.c"),
        ("song_2_of_3", "song"),
        ("X-1-OF-2", "X"),
        ("one-of-us", "one-of-us"),
        ("X-5-of-3", "X-5-of-3"),
        ("-1-of-2", "-1-of-2"),
        ("14", "14"),
        ("a-1-of-2-1-of-3", "a-1-of-2"),
    ],
)
def test_infer_group(stem: str, source: str) -> None:
    assert infer_group(stem) == source


def test_a_bare_number_means_nothing_outside_its_folder() -> None:
    assert source_of("Train/Sad/23.mp4") == "Sad/23"
    assert source_of("Train/Fear/23.mp4") == "Fear/23"
    assert source_of("Fear/v-1-of-2.mp4") == source_of("Sad/v-2-of-2.mkv") == "v"
    assert source_of("7.mp4") == "7"
    assert source_of("Sad/7-2-of-3.mp4") == "Sad/7"


def test_groups_of_a_manifest_are_replaced() -> None:
    clips = tuple(Clip(str(i), f"A/v-{i}-of-2.mp4", ("x",), str(i)) for i in (1, 2))
    manifest = Manifest("m", "multiclass", ("x", "y"), clips, Path())
    assert with_inferred_groups(manifest).groups == ("v", "v")


def test_the_real_clips_are_grouped_as_their_index_groups_them(shared_data: Path) -> None:
    with (shared_data / "mve" / "index.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 100
    assert [source_of(row["file"]) for row in rows] == [row["source_group"] for row in rows]
    theirs, ours = defaultdict(set), defaultdict(set)
    for i, row in enumerate(rows):
        theirs[row["source_group"]].add(i)
        ours[source_of(row["file"])].add(i)
    assert sorted(map(sorted, ours.values())) == sorted(map(sorted, theirs.values()))


def test_groups_by_a_pattern_of_ones_own(tmp_path):
    table = tmp_path / "m.csv"
    table.write_text("path,label\nx/song1_a.mp3,calm\nx/song1_b.mp3,calm\nother.mp3,tense\n")
    manifest = read_manifest(table, media=False)
    grouped = with_inferred_groups(manifest, r"([^/]+)_[ab]$")
    assert grouped.groups == ("song1", "song1", "other")
    for pattern, message in (
        ("(", "invalid pattern of groups '(': "),
        ("song", "has 0 groups in parentheses"),
        ("(zzz)", "no path matches the pattern '(zzz)' of groups, as 'x/song1_a.mp3'"),
    ):
        with pytest.raises(BadManifest, match=re.escape(message)):
            with_inferred_groups(manifest, pattern)

"""Playlists are read back by other parsers as the same files, in the right order."""

import json
import os
import string
import tempfile
from pathlib import Path
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.desk.playlists import (
    XSPF,
    along_line,
    lists_by_mood,
    parse_line,
    write_playlist,
)

NAMES = st.text(
    st.characters(exclude_characters="/\0\\", exclude_categories=["Cs"]), min_size=1
).filter(lambda name: name not in (".", "..") and len(os.fsencode(name)) < 200)
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]))
CLIPS = st.lists(
    st.fixed_dictionaries(
        {"path": NAMES.map(lambda name: f"music/{name}"), "title": TEXTS, "artist": TEXTS}
    ),
    unique_by=lambda clip: clip["path"],
)


def m3u8_paths(file):
    """Read the paths as players do: all lines that are not comments."""
    lines = file.read_text(encoding="utf-8").split("\n")
    return [os.path.normpath(line) for line in lines if line and not line.startswith("#")]


def xspf_paths(file):
    tracks = ElementTree.parse(file).getroot().iter(f"{{{XSPF}}}location")
    return [os.fsdecode(unquote_to_bytes(track.text)) for track in tracks]


@given(CLIPS)
def test_any_path_is_read_back(clips):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = [{**clip, "path": folder / clip["path"]} for clip in clips]
        expected = [os.path.relpath(clip["path"], folder) for clip in clips]
        file = folder / "list.xspf"
        write_playlist(clips, file, "xspf")
        assert xspf_paths(file) == expected
        try:
            write_playlist(clips, folder / "list.m3u8", "m3u8")
        except BadOption:
            assert any(len(p.splitlines()) > 1 or p != p.rstrip() for p in expected)
        else:
            assert m3u8_paths(folder / "list.m3u8") == expected


@pytest.mark.parametrize(
    "name", ["#1.mp3", " a b.mp3", "http:/x.mp3", "ä,ö 'q\"&<.mp3", "a%20b.mp3"]
)
def test_names_that_a_player_could_misread(tmp_path, name):
    clips = [{"path": tmp_path / name, "title": "a\nb", "artist": "<&>\x01", "duration": 61.4}]
    text = write_playlist(clips, tmp_path / "list.m3u8", "m3u8")
    assert m3u8_paths(tmp_path / "list.m3u8") == [os.path.normpath(name)]
    assert text.splitlines()[1] == "#EXTINF:61,<&>\x01 - a b"
    write_playlist(clips, tmp_path / "list.xspf", "xspf")
    assert xspf_paths(tmp_path / "list.xspf") == [os.path.normpath(name)]
    assert "<duration>61400</duration>" in (tmp_path / "list.xspf").read_text()


def test_a_name_that_is_not_utf8(tmp_path):
    clips = [{"path": os.fsdecode(b"caf\xe9.mp3")}]
    with pytest.raises(BadOption, match="bytes that are not UTF-8"):
        write_playlist(clips, tmp_path / "list.m3u8", "m3u8")
    write_playlist(clips, tmp_path / "list.xspf", "xspf")
    assert "caf%E9.mp3" in (tmp_path / "list.xspf").read_text()


def test_no_file_and_no_content_twice(tmp_path):
    (tmp_path / "a.mp3").touch()
    (tmp_path / "link.mp3").symlink_to("a.mp3")
    contents = {"a.mp3": "1", "link.mp3": "", "copy.mp3": "1", "b.mp3": None, "c.mp3": None}
    clips = [{"path": tmp_path / name, "content": digest} for name, digest in contents.items()]
    write_playlist(clips + clips, tmp_path / "list.m3u8", "m3u8")
    assert m3u8_paths(tmp_path / "list.m3u8") == ["a.mp3", "b.mp3", "c.mp3"]


def test_lists_begin_with_corrected_and_likely_clips():
    moods = [
        ClipPrediction("a", proba={"calm": 0.6, "sad": 0.4}, label=["calm"]),
        ClipPrediction("b", proba={"calm": 0.9, "sad": 0.8}, label=["calm", "sad"]),
        ClipPrediction("c", label=["calm"], is_corrected=True),
    ]
    lists = {name: [str(m.path) for m in listed] for name, listed in lists_by_mood(moods).items()}
    assert lists == {"calm": ["c", "b", "a"], "sad": ["b"]}


def test_a_line_leads_from_one_end_to_the_other_in_small_steps():
    rng = np.random.default_rng(0)
    places = rng.uniform(1, 9, (200, 2))
    moods = [
        ClipPrediction(str(i), values={"valence": {"value": x}, "arousal": {"value": y}})
        for i, (x, y) in enumerate(places)
    ]
    walk = along_line([*moods, ClipPrediction("x")], parse_line("calm..lively"))
    assert sorted(walk, key=lambda m: int(str(m.path))) == moods
    xy = np.array([mood.place for mood in walk])
    tenths = [part[:, 1].mean() for part in np.array_split(xy, 10)]
    assert tenths == sorted(tenths)

    def length(points):
        return np.hypot(*np.diff(points, axis=0).T).sum()

    assert length(xy) < 0.4 * length(places[np.argsort(places[:, 1])])
    # Clips outside the ends are left out, and the other direction is the other way round.
    middle = along_line(moods, parse_line("0.5,0.4..0.5,0.6"))
    assert {round((m.place[1] - 1) / 8, 1) for m in middle} <= {0.4, 0.5, 0.6}
    assert along_line(moods, parse_line("lively..calm"))[0].place[1] > 7


def test_one_loud_clip_does_not_squeeze_the_others_to_one_end():
    arousal = [0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 99.0]
    moods = [
        ClipPrediction(str(i), values={"valence": {"value": 0}, "arousal": {"value": a}})
        for i, a in enumerate(arousal)
    ]
    upper = along_line(moods, parse_line("0.5,0.5..0.5,1"))
    assert sorted(str(mood.path) for mood in upper) == ["4", "5", "6", "7"]


@pytest.mark.parametrize(
    "text", ["calm", "calm..calm", "calm..9,1", "a..b", "0,0..nan,1", "0,0..1", ""]
)
def test_bad_lines(text):
    with pytest.raises(BadOption, match="expected two different ends"):
        parse_line(text)


NOTES = "notes,cautions,doubt,unlikeness"


def test_command(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"path": f"{i} song.mp3", "model": "m/audio", "proba": {"calm": 1 - p, "lively": p},
         "label": "lively" if p > 0.5 else "calm", "notes": []}
        for i, p in enumerate((0.9, 0.2, 0.4))
    ]  # fmt: skip
    for i, row in enumerate(rows):
        Path(row["path"]).write_bytes(bytes([i]))
    rows.append({"path": "gone.mp3", "label": None, "proba": None, "notes": [], "error": "no"})
    file = Path("predictions.json")
    file.write_text(json.dumps(rows))
    printed = program("mvemo", "playlist", file, "--out", "lists")
    assert "1 of 4 clips were not predicted" in printed.err
    assert m3u8_paths(Path("lists/calm.m3u8")) == ["../1 song.mp3", "../2 song.mp3"]
    assert m3u8_paths(Path("lists/lively.m3u8")) == ["../0 song.mp3"]
    assert "already exists" in program("mvemo", "playlist", file, "--out", "lists", ends=2).err
    Path("corrections.csv").write_text("path,label\n2 song.mp3,lively\n9.mp3,calm\n")
    options = ("--corrections", "corrections.csv", "--min-confidence", "0.85", "--out", "sure")
    assert "1 of 2 corrected" in program("mvemo", "playlist", file, *options).err
    (sure,) = Path("sure").iterdir()
    assert m3u8_paths(sure) == ["../2 song.mp3", "../0 song.mp3"]
    program("mvemo", "playlist", file, "--out", "lists", "--path", "calm..lively")
    expected = ["../1 song.mp3", "../2 song.mp3", "../0 song.mp3"]
    assert m3u8_paths(Path("lists/calm..lively.m3u8")) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "clip_id,p\na,1\n", "lacks the columns path, model, notes, cautions"),
        ("a.json", "[1]", "expected records with a path"),
        ("a.jsonl", "{", "not JSON"),
        ("a.json", "[]", "has no predicted clip"),
        ("a.json", '[{"path": "a", "label": 5}]', "expected a record of mvemo predict"),
        ("a.json", '[{"path": "a", "proba": [1]}]', "expected a record of mvemo predict"),
        ("a.json", '[{"path": "a", "values": {"v": {}}}]', "'value' is missing"),
        ("a.json", '[{"path": "a", "values": {"v": {"value": NaN}}}]', "expected a finite number"),
        ("a.csv", f"path,model,label,calm,{NOTES},error\na,m,calm,x,,,,,\n", "is not a number"),
    ],
)
def test_files_that_are_no_predictions(tmp_path, program, name, text, message):
    file = tmp_path / name
    file.write_text(text)
    error = program("mvemo", "playlist", file, "--out", tmp_path / "lists", ends=2).err
    assert message in error
    assert name in error
    assert error.count("\n") == 1


def test_file_names_of_moods(tmp_path, program):
    names = ["AC/DC", "ac_dc", "..", string.ascii_letters]
    rows = [
        {"path": str(tmp_path / f"{i}.mp3"), "label": [name], "proba": {name: 1.0}}
        for i, name in enumerate(names)
    ]
    for i, row in enumerate(rows):
        Path(row["path"]).write_bytes(bytes([i]))
    (tmp_path / "p.json").write_text(json.dumps(rows))
    program("mvemo", "playlist", tmp_path / "p.json", "--out", tmp_path / "lists")
    assert len({file.name.lower() for file in (tmp_path / "lists").iterdir()}) == 4

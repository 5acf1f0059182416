"""Similar songs: the search agrees with all pairs, and finds neither copies nor excluded songs."""

import csv
import shutil

import numpy as np
import pytest
import soundfile
from server_samples import write_songs
from stage_samples import refusal, run

from mvemo.fuse.scaling import Rows, rows_of
from mvemo.pipeline.desk.similar import SongLibrary, library_of, path_of_songs, similar_songs
from mvemo.pipeline.desk.vectors import write_vectors


def in_blocks(values, contents=()):
    """Return a library of random numbers, read in blocks of seven rows."""
    blocks = [(slice(i, i + 7), values[i : i + 7]) for i in range(0, len(values), 7)]
    rows = Rows(values.shape, lambda: ((at, block.copy()) for at, block in blocks))
    return library_of([*map(str, range(len(values)))], rows, contents)


def test_the_search_in_blocks_is_exact():
    values = np.random.default_rng(0).normal(3, 5, (100, 8)).astype(np.float32)
    z = (values - values.mean(axis=0)) / values.std(axis=0)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    seeds = [3, 50, 99]
    mean = z[seeds].mean(axis=0)
    cosines = z @ mean / np.linalg.norm(mean)
    expected = [row for row in np.argsort(-cosines).tolist() if row not in seeds][:10]
    found = similar_songs(in_blocks(values), seeds, 10)
    assert [match.row for match in found] == expected
    np.testing.assert_allclose([match.similarity for match in found], cosines[expected], atol=1e-5)


def test_copies_and_excluded_songs_are_left_out():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 40)).astype(np.float32)
    values[10:40] = values[0] + rng.normal(0, 1e-3, (30, 40))  # copies of the seed
    values[40] = values[41] + 1e-3  # copies of each other
    contents = [""] * 60
    library = in_blocks(values, contents)
    excluded = np.zeros(60, np.bool_)
    excluded[5] = True
    rows = [match.row for match in similar_songs(library, [0], 60, excluded)]
    assert len({*rows}) == len(rows) == 27
    assert not {*rows} & {0, 5, *range(10, 40)}
    assert len({*rows} & {40, 41}) == 1
    # The same content is a copy, however different its vectors are.
    contents[0] = contents[7] = contents[8] = "abc"
    rows = [match.row for match in similar_songs(in_blocks(values, contents), [0], 60)]
    assert not {*rows} & {7, 8}


def test_a_path_goes_from_song_to_song_in_small_steps():
    angles = np.radians([0, 90, 180, 112.5, 67.5, 45, 22.5, 157.5, 135, 270])
    values = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    library = SongLibrary([*map(str, range(len(values)))], rows_of(values))
    found = path_of_songs(library, [0, 1], 3)
    assert [match.row for match in found] == [0, 6, 5, 4, 1]
    steps = [1, *[np.cos(np.pi / 8)] * 4]
    np.testing.assert_allclose([match.similarity for match in found], steps, atol=1e-6)
    # Way points are passed in their order.
    rows = [match.row for match in path_of_songs(library, [0, 1, 2], 5)]
    assert [row for row in rows if row in (0, 1, 2)] == [0, 1, 2]
    assert len({*rows}) == len(rows) == 8


def test_a_path_through_a_small_library_has_what_there_is():
    values = np.eye(5, dtype=np.float32)
    library = SongLibrary("abcde", rows_of(values))
    assert sorted(match.row for match in path_of_songs(library, [0, 4], 10)) == [0, 1, 2, 3, 4]


@pytest.fixture
def table(tmp_path):
    """Return a table of six songs, three of which are files."""
    names = [str(tmp_path / f"{name}.wav") for name in "abc"] + ["Live/d", "e", "f"]
    for i, name in enumerate(names[:3]):
        noise = np.random.default_rng(i).uniform(-0.5, 0.5, 8000 * (1 + 20 * i))
        soundfile.write(name, noise, 8000)
    values = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    rows = ((name, 0.0, 1.0, x) for name, x in zip(names, values, strict=True))
    write_vectors(tmp_path / "x.csv", rows, 4, {})
    return tmp_path / "x.csv", names


def test_songs_of_a_table_are_listed_and_written(table, tmp_path, program):
    path, names = table
    outs = [tmp_path / f"out.{suffix}" for suffix in ("html", "m3u8", "xspf", "csv")]
    options = [word for out in outs for word in ("--out", out)]
    found = program("mvemo", "similar", names[0], path, "-n", 4, "--exclude", "Live/*", *options)
    listed = [line.split(maxsplit=1)[1] for line in found.out.splitlines()[1:]]
    assert sorted(listed) == sorted([*names[1:3], "e", "f"])
    rows = [*csv.DictReader(outs[3].open())]
    assert [row["path"] for row in rows] == listed
    similarities = [float(row["similarity"]) for row in rows]
    assert similarities == sorted(similarities, reverse=True)
    playlist = outs[1].read_text().splitlines()
    assert playlist[0] == "#EXTM3U"
    assert [line for line in playlist if line.endswith(".wav")] == [
        line.rpartition("/")[2] for line in listed if line.endswith(".wav")
    ]
    page = outs[0].read_text()
    assert page.count('src="data:audio/ogg;base64,') == 3
    assert page.count('<tr class="seed">') == 1
    assert "Songs like a" in page
    assert "http" not in page.replace("Content-Security-Policy", "").replace("http-equiv", "")


def test_a_table_with_too_few_songs_is_told(table, program):
    path, _ = table
    found = program("mvemo", "similar", "e", "f", path, "--path", "--exclude", path.parent)
    assert "has only 1 others" in found.err
    assert [line.split()[-1] for line in found.out.splitlines()[1:]] == ["e", "Live/d", "f"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["z"], "x.csv: has no song 'z', but 6 others"),
        (["e", "--path"], "--path leads from song to song"),
        (["e", "--model", "songs"], "--model: "),
        (["e", "--out", "x.mp3"], "--out x.mp3: expected a name that ends with .html"),
    ],
)
def test_wrong_words_are_one_line(words, text, table, capsys):
    path, _ = table
    assert run("mvemo", "similar", words[0], path, *words[1:]) == 2
    assert text in refusal(capsys)


def test_a_folder_is_read_once(model, tmp_path, program, capsys):
    songs = write_songs(tmp_path / "songs", 4)
    shutil.copy(songs / "song0.wav", songs / "copy.wav")
    found = program("mvemo", "similar", "song0.wav", songs, "--model", model)
    assert "6 new, 0 kept" in found.err
    assert f"left out: {songs / 'broken.mp3'}: " in found.err
    listed = [line.split(maxsplit=1)[1] for line in found.out.splitlines()[1:]]
    assert {*listed} <= {str(songs / f"song{i}.wav") for i in (1, 2, 3)}
    again = program("mvemo", "similar", songs / "song0.wav", songs, "--model", model)
    assert "0 new, 6 kept" in again.err
    assert again.out == found.out
    assert run("mvemo", "similar", "none.wav", songs, "--model", model) == 2
    assert refusal(capsys).endswith(f"none.wav: no such file, neither here nor in {songs}")
    assert run("mvemo", "similar", "broken.mp3", songs, "--model", model) == 2
    assert "broken.mp3: could not be read: give another song" in refusal(capsys)

"""The plug-in for beets of docs/examples, in a real library of 30 songs."""

import os
import runpy
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("beets")
PLUGIN = Path(__file__).parents[3] / "docs/examples/beets-mvemo/src/beetsplug"
CLASSES = ("exciting", "fear", "neutral", "relaxation", "sad", "tension")


@pytest.fixture(scope="module")
def beet(model, tmp_path_factory):
    """Return a function that runs beet on a library of 30 songs, and one that reads a field."""
    folder = tmp_path_factory.mktemp("beets")
    songs = folder / "songs"
    songs.mkdir()
    for i in range(30):
        noise = np.random.default_rng(i).uniform(-0.5, 0.5, 16000)
        with soundfile.SoundFile(songs / f"song{i:02}.flac", "w", 16000, 1) as file:
            file.title = f"song{i:02}"
            file.write(noise)
    settings = {
        "library": folder / "library.db",
        "directory": songs,
        "pluginpath": PLUGIN,
        "plugins": "moods",
        "import": "{copy: no, write: no, quiet: yes, autotag: no}",
        "moods": f"{{model: {model}}}",
    }
    config = "".join(f"{name}: {value}\n" for name, value in settings.items())
    (folder / "config.yaml").write_text(config)

    def call(*words):
        command = [sys.executable, "-m", "beets", *map(str, words)]
        environment = {**os.environ, "BEETSDIR": str(folder)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def field(name):
        query = "SELECT value FROM item_attributes WHERE key = ? ORDER BY entity_id"
        with closing(sqlite3.connect(folder / "library.db")) as library:
            return [value for (value,) in library.execute(query, (name,))]

    call("import", songs)
    return call, field


def test_moods_are_fields_of_the_library(beet):
    call, field = beet
    assert field("mvemo_model") == []
    call("moods", "title:song0")
    assert len(field("mvemo_model")) == 10
    call("moods", "-p")
    assert len(field("mvemo_model")) == 10
    call("moods")
    assert {mood.lower() for mood in field("mvemo_mood")} <= {*CLASSES}
    names = ("mood_sad", "mood_happy", "mood_relaxed", "mood_aggressive")
    values = np.array([field(name) for name in names], float)
    assert values.shape == (4, 30)
    assert ((values >= 0) & (values <= 1)).all()
    # Numbers, not texts, are compared in queries.
    found = call("ls", "-f", "$title", "mood_sad:0.1..").splitlines()
    assert len(found) == (values[0] >= 0.1).sum()


def test_ratings_give_the_fields_of_quadrants():
    fields_of = runpy.run_path(str(PLUGIN / "moods.py"))["fields_of"]
    rating = {"valence": {"value": 0.5, "low": -0.3, "high": 1.3}}
    rating["arousal"] = {"value": -0.4, "low": -1.2, "high": 0.4}
    record = {"model": "songs/x", "values": rating, "quadrant": "calm", "confidence": 0.6}
    fields = fields_of(record)
    moods = {name: x for name, x in fields.items() if name.startswith("mood_")}
    assert sum(moods.values()) == pytest.approx(1)
    assert max(moods, key=moods.get) == "mood_relaxed"
    assert fields["mvemo_valence"] == 0.5
    assert fields["mvemo_mood"] == "calm"
    assert fields_of({"error": "cannot be read"}) == {}

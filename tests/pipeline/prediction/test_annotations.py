"""Timelines for other programs, read back by the programs' own libraries."""

from types import SimpleNamespace

import numpy as np
import pytest

from mvemo.pipeline.commands.predict import ANNOTATIONS
from mvemo.pipeline.prediction import annotations
from mvemo.pipeline.prediction.annotations import FORMATS, tiers_of, write_annotations


class Timeline:
    """Windows of 20 s every 5 s in 41.25 s, the third without a prediction."""

    file, seconds = "songs/a & b.mp3", 41.25
    windows = ((0.0, 20.0), (5.0, 25.0), (10.0, 30.0), (15.0, 35.0), (20.0, 41.25))
    outputs = np.array([[0.1, -0.5], [0.2, -0.4], [0, 0], [0.2, 0.4], [-0.3, 0.5]])

    def predicted(self):
        rows = (0, 1, 3, 4)
        return [(self.windows[i], None, SimpleNamespace(outputs=self.outputs[i])) for i in rows]


@pytest.fixture
def model(monkeypatch):
    """A model of valence and arousal whose labels name the half of the plane."""

    def brief(predictor, outputs):
        return 'calm "<x>"' if outputs[1] < 0 else "tense & loud"

    monkeypatch.setattr(annotations, "format_of", lambda model: SimpleNamespace(brief=brief))
    return SimpleNamespace(task="regression", classes=("valence", "arousal"))


@pytest.fixture
def files(model, tmp_path):
    found = write_annotations(model, Timeline(), tmp_path / "a", list(FORMATS))
    return dict(zip(FORMATS, found, strict=True))


CALM, TENSE = 'calm "<x>"', "tense & loud"
EXPECTED = [(0.0, 17.5, CALM), (22.5, 41.25, TENSE)]


def test_neighbours_of_one_label_are_joined_and_gaps_stay(model):
    tiers = tiers_of(model, Timeline())
    assert tiers["emotion"] == EXPECTED
    assert tiers["valence"][2:] == [(22.5, 27.8125, "0.200"), (27.8125, 41.25, "-0.300")]
    assert tuple(FORMATS) == ANNOTATIONS


def test_audacity_has_start_end_and_label(files):
    rows = [line.split("\t") for line in files["audacity"].read_text().splitlines()]
    assert [(float(a), float(b), text) for a, b, text in rows] == EXPECTED


def test_praat_reads_the_tiers(files):
    textgrid = pytest.importorskip("praatio.textgrid")
    grid = textgrid.openTextgrid(str(files["praat"]), includeEmptyIntervals=True)
    assert grid.tierNames == ("emotion", "valence", "arousal")
    entries = [tuple(entry) for entry in grid.getTier("emotion").entries]
    assert entries == [EXPECTED[0], (17.5, 22.5, ""), EXPECTED[1]]
    assert grid.maxTimestamp == 41.25


def test_elan_reads_the_tiers(files):
    elan = pytest.importorskip("pympi.Elan")
    eaf = elan.Eaf(str(files["elan"]))
    assert set(eaf.get_tier_names()) == {"emotion", "valence", "arousal"}
    found = [
        (a / 1000, b / 1000, text) for a, b, text in eaf.get_annotation_data_for_tier("emotion")
    ]
    assert found == EXPECTED
    assert len(eaf.get_annotation_data_for_tier("arousal")) == 4


def test_jams_is_valid(files):
    jams = pytest.importorskip("jams")
    jam = jams.load(str(files["jams"]), strict=True)
    assert jam.validate(strict=True)
    segments, moods = jam.annotations
    assert [(o.time, o.time + o.duration, o.value) for o in segments.data] == EXPECTED
    assert [o.value for o in moods.data][-1] == [-0.3, 0.5]


def test_subtitles_have_the_times(files):
    webvtt = pytest.importorskip("webvtt")
    for name, read in (("webvtt", webvtt.read), ("srt", webvtt.from_srt)):
        cues = [(c.start_in_seconds, c.end_in_seconds) for c in read(str(files[name]))]
        assert cues == [(0, 17), (22, 41)]
    assert "00:00:22.500 --> 00:00:41.250\ntense &amp; loud\n" in files["webvtt"].read_text()
    assert "2\n00:00:22,500 --> 00:00:41,250\ntense & loud\n" in files["srt"].read_text()

"""Notes on clips whose end a net does not read."""

import pytest
from media_samples import sine
from soundfile import write
from stage_samples import run, tiny_settings

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.nets import SharedSettings
from mvemo.extract.settings import NetSettings
from mvemo.extract.views import ViewSettings
from mvemo.pipeline.clips.media_files import longer_clips_note, window_seconds

SHARED = SharedSettings(n_frames=32, descriptors=DescriptorSettings(sr=8000, hop_length=800))


@pytest.mark.parametrize(
    ("plan", "seconds"),
    [
        (NetSettings("music1d", options={"seconds": 10.0}), 10.0),
        (NetSettings("rnn", options={"n_frames": 200}), 20.0),
        # Frames are spread over the whole clip.
        (NetSettings("i3d"), None),
        (NetSettings("i3d", view=ViewSettings(rate=16.0)), 2.0),
    ],
)
def test_seconds_of_a_window(plan, seconds):
    assert window_seconds(plan, SHARED) == seconds


def test_the_note_counts_the_clips_and_says_what_to_do():
    plan = NetSettings("music1d", options={"seconds": 10.0})
    seconds = {"a": 9.0, "b": 10.1, "c": 11.0, "d": 61.3}
    note = longer_clips_note(plan, seconds, SHARED)
    assert note.startswith("2 of 4 clips are longer than the 10 s that music1d reads, up to 61.3 s")
    assert "mvemo manifest segment" in note
    assert "--set nets.music1d.views=7," in note
    plan = NetSettings("rnn", options={"n_frames": 200})
    assert "--set nets.rnn.views=4," in longer_clips_note(plan, seconds, SHARED)


@pytest.mark.parametrize("layout", ["start", "spread", "dense"])
def test_the_cure_of_the_note_silences_it(layout):
    seconds = {"a": 9.0, "b": 61.3}
    for views, expected in ((6, "6 windows of 10 s"), (7, "")):
        view = ViewSettings(views=views, layout=layout)
        plan = NetSettings("music1d", options={"seconds": 10.0}, view=view)
        note = longer_clips_note(plan, seconds, SHARED)
        assert expected in note
        assert bool(note) == bool(expected)


def test_windows_of_pictures_up_to_the_end_are_a_sample():
    def note(**view):
        view = ViewSettings(rate=16.0, **view)
        return longer_clips_note(NetSettings("i3d", view=view), {"a": 30.0}, SHARED)

    assert note(views=4) == note(views=15, layout="start") == ""
    assert "--set nets.i3d.views=2," in note()
    assert "--set nets.i3d.views=15," in note(views=14, layout="start")


def test_no_note_where_every_clip_is_read_whole():
    plan = NetSettings("music1d", options={"seconds": 10.0})
    # A codec's last frame is filled up.
    assert longer_clips_note(plan, {"a": 10.05, "b": 3.0}, SHARED) == ""
    assert longer_clips_note(plan, {}, SHARED) == ""
    assert longer_clips_note(NetSettings("i3d"), {"a": 500.0}, SHARED) == ""


def test_stage_one_tells_it_once_and_keeps_it_in_the_summary(tmp_path, capsys):
    rows = ["path,label,group"]
    for i in range(6):
        write(tmp_path / f"{i}.wav", sine(2.0 if i < 4 else 1.0, 16000)[0], 16000)
        rows.append(f"{i}.wav,{'xy'[i % 2]},{i}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    arguments = ["extract", tmp_path / "clips.csv", "--work", tmp_path / "work"]
    assert run("mvemo", *arguments, *tiny_settings("extract.nets=music1d")) == 0
    shown = capsys.readouterr()
    note = "note: 4 of 6 clips are longer than the 1 s that music1d reads, up to 2 s"
    assert shown.err.count(note) == shown.out.count(note) == 1

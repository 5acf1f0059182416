"""Kinds of files, which choose the default model."""

import cv2
import numpy as np
import soundfile
from media_samples import film, sine, write_media
from mutagen.id3 import APIC, ID3

from mvemo.pipeline.prediction.new_clips import NewClip, find_clips, have_pictures


def test_files_with_pictures_are_known_by_their_suffix_or_container(tmp_path):
    film(tmp_path / "a video.mp4", frames=5)
    write_media(tmp_path / "only sound.mp4", sound=sine(0.5, 16000))
    soundfile.write(tmp_path / "song.mp3", sine(0.5, 16000)[0], 16000)
    cover = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    tags = ID3()
    tags.add(APIC(encoding=3, mime="image/jpeg", type=3, desc="cover", data=cover))
    tags.save(tmp_path / "song.mp3")
    (tmp_path / "text.mkv").write_text("neither")
    clips = [*find_clips([str(tmp_path)]), NewClip("x", tmp_path / "x.mov", problem="no such file")]
    found = {clip.path.name: has for clip, has in zip(clips, have_pictures(clips), strict=True)}
    # What cannot be read counts by its suffix; its prediction says what is wrong.
    assert found == {
        **{"a video.mp4": True, "only sound.mp4": False, "song.mp3": False},
        **{"text.mkv": True, "x.mov": True},
    }

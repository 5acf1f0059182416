"""CAL500's songs and the segments of CAL500exp, from files of their forms."""

import re

import pytest
from cal500_samples import HEADER, SONGS, WORDS, make_cal500, make_cal500exp

from mvemo.manifests import BadManifest, Selection, read_manifest, scan_clips, write_manifest
from mvemo.manifests.errors import MvemoError

ANGRY, HAPPY = "Angry / Agressive", "Happy"


def test_songs_have_their_emotions_and_are_groups(tmp_path):
    scan = scan_clips(make_cal500(tmp_path))
    manifest = scan.manifest
    assert (manifest.task, manifest.classes) == ("multilabel", (ANGRY, HAPPY))
    assert manifest.labels.tolist() == [[1, 0], [0, 1], [0, 1]]
    assert manifest.clip_ids == manifest.groups == SONGS
    assert manifest.clips[0].path == "CAL500_32kps/2pac-trapped.mp3"
    published, chosen = scan.notes()[:2]
    assert published.endswith("has 502 clips and 174 tags; this copy has 3 and 6")
    assert chosen == "this copy has 2 of the 18 published emotion tags"
    write_manifest(manifest, tmp_path / "songs.csv")
    assert read_manifest(tmp_path / "songs.csv").digest == manifest.digest


@pytest.mark.parametrize(
    ("tags", "classes"),
    [
        ("all", tuple(word.replace("_", " ") for word in WORDS)),
        ("happy, Genre-Rock", (HAPPY, "Genre-Rock")),
        ("Emotion-Happy", ("Emotion-Happy",)),
    ],
)
def test_other_tags(tmp_path, tags, classes):
    scan = scan_clips(make_cal500(tmp_path), select=Selection(tags=tags))
    assert scan.manifest.classes == classes
    assert "published emotion tags" not in " ".join(scan.notes())


def test_songs_without_sound_and_sound_without_song_are_told(tmp_path):
    # The published sound is spelt a little otherwise for some songs.
    sound = ("2PAC_trapped", "abba-sos", "zz_top-la_grange")
    scan = scan_clips(make_cal500(tmp_path, sound=sound))
    assert scan.manifest.clip_ids == (SONGS[0], SONGS[2])
    assert scan.notes()[-2:] == (
        f"1 left out (no clip has this name): 'CAL500_32kps/{sound[2]}.mp3'",
        f"1 left out (its media file is missing): {SONGS[1]!r}",
    )


def test_segments_keep_their_times_and_their_song(tmp_path):
    manifest = scan_clips(make_cal500exp(tmp_path)).manifest
    assert manifest.classes == (ANGRY, HAPPY)
    assert [(c.clip_id, c.start, c.duration, c.group) for c in manifest.clips] == [
        ("2pac-trapped@0", 0.0, 12.5, "2pac-trapped"),
        ("2pac-trapped@12.5", 12.5, 7.5, "2pac-trapped"),
        ("aaron_neville-tell_it@3", 3.0, 6.25, "aaron_neville-tell_it"),
    ]
    assert manifest.labels.tolist() == [[1, 1], [1, 0], [0, 1]]


def test_songs_and_segments_in_one_folder_must_be_told_apart(tmp_path):
    make_cal500exp(make_cal500(tmp_path))
    with pytest.raises(BadManifest, match="give --layout cal500 or --layout cal500exp"):
        scan_clips(tmp_path)
    assert len(scan_clips(tmp_path, layout="cal500").manifest) == 3
    assert len(scan_clips(tmp_path, layout="cal500exp").manifest) == 3


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("songNames.txt", None, "songNames.txt: no such file"),
        ("vocab.txt", None, "vocab.txt: no such file"),
        ("songNames.txt", "a\nb\n", "it has 3 rows, but songNames.txt has 2 names"),
        ("songNames.txt", "x\ny\nz\n", "no clip matches the layout cal500; left out: 'x'"),
        ("songNames.txt", "abba-sos\nx\nx\n", "songNames.txt: 'x' occurs twice"),
        ("vocab.txt", "Emotion-Happy\n", "1: the row has 6 cells, the header 1"),
        ("vocab.txt", "a\na\nb\nc\nd\ne\n", "vocab.txt: 'a' occurs twice"),
        ("vocab.txt", "a\nb\nc\nd\ne\nf\n", "no tag starts with 'Emotion-': give --tags all"),
        ("hardAnnotations.txt", "x,0,0,1,1,0\n" * 3, "Agressive': expected 0 or 1, got 'x'"),
        ("hardAnnotations.txt", "2,0,0,1,1,0\n" * 3, "Agressive': expected 0 or 1, got '2'"),
    ],
)
def test_bad_annotations_of_songs(tmp_path, file, text, message):
    path = make_cal500(tmp_path, sound=(*SONGS, "a")) / "CAL500_noAudioFeatures" / file
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(MvemoError, match=re.escape(message)):
        scan_clips(tmp_path, layout="cal500")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Start_Time,End_Time,Emotion-Sad\n0,5,1\n", "1: its columns differ from"),
        ("Start_Time,End_Time,Emotion-Happy\n0,5,1\n", "in 'Emotion-Angry_/_Agressive', 'Genre"),
        (HEADER + "5,5,1,0,0\n", "tell_it.csv:2: duration "),
        (HEADER + "0,5,1\n", "tell_it.csv:2: the row has 3 cells, the header 5"),
    ],
)
def test_bad_tables_of_segments(tmp_path, text, message):
    make_cal500exp(tmp_path)
    (tmp_path / "SegLabelHard" / "SegLabelHard" / f"{SONGS[1]}.csv").write_text(text)
    with pytest.raises(BadManifest, match=re.escape(message)):
        scan_clips(tmp_path)


def test_unknown_tags_and_layouts_without_tags(tmp_path):
    make_cal500(tmp_path)
    with pytest.raises(BadManifest, match="unknown tag 'Groovy'; expected emotion, all, or"):
        scan_clips(tmp_path, select=Selection(tags="Happy,Groovy"))
    with pytest.raises(BadManifest, match=r"has no file \*\*/hardAnnotations\.txt"):
        scan_clips(tmp_path / "CAL500_32kps", layout="cal500")
    with pytest.raises(BadManifest, match="the layout cal500exp needs one"):
        scan_clips(tmp_path, layout="cal500exp")
    with pytest.raises(BadManifest, match="tags 'all' need a layout with a column for each tag"):
        scan_clips(tmp_path, layout="class-folders", select=Selection(tags="all"))

"""Data sets are read by declarations alone: published tables, their variants, and bad ones."""

from collections import Counter

import pytest

from mvemo.manifests import BadManifest
from mvemo.manifests.errors import BadFile
from mvemo.manifests.layouts import file_names
from mvemo.manifests.layouts.layout_clips import find_by_layout
from mvemo.manifests.layouts.layout_file import Layout, layouts
from mvemo.manifests.layouts.scan import scan_clips
from mvemo.manifests.text_files import read_toml

OWN = """
name = "own"
title = "A set"
task = "multiclass"
[table]
path = "table.csv"
id = "song"
[label]
column = "mood"
[media]
path = "sound/{song:3}.mp3"
"""


def declared(folder, text):
    (folder / "own.toml").write_text(text)
    return read_toml(folder / "own.toml", Layout)


# Files of each layout as its authors distribute them, its first path and its first label.
PUBLISHED = {
    "deam": (
        {
            "annotations/annotations averaged per song/song_level/"
            "static_annotations_averaged_songs_1_2000.csv": "song_id, valence_mean, valence_std, "
            "arousal_mean, arousal_std\n2,3.1,0.94,3,0.63\n3,3.5,1.75,3.3,1.62\n",
            "annotations/annotations averaged per song/song_level/"
            "static_annotations_averaged_songs_2000_2058.csv": "song_id, valence_mean, "
            "valence_std, valence_max_mean, arousal_mean, arousal_std\n2001,5,1,6,4,1.5\n",
        },
        "MEMD_audio/2.mp3",
        (3.1, 3.0),
    ),
    "emomusic": (
        {
            "annotations/static_annotations.csv": "song_id,mean_arousal,std_arousal,mean_valence,"
            "std_valence\n2,3.1,0.94,3,0.63\n5,3.5,1.75,3.3,1.62\n",
            "annotations/songs_info.csv": 'song_id,file_name,Artist,"Song title"\n'
            "2,2.mp3,The New Mystikal Troubadours,Rain\n5,5.mp3,The New Mystikal Troubadours,Sun\n",
        },
        "clips_45seconds/2.mp3",
        (3.0, 3.1),
    ),
    "pmemo": (
        {
            "annotations/static_annotations.csv": "musicId,Arousal(mean),Valence(mean)\n"
            "1,0.4,0.575\n4,0.2625,0.2875\n",
            "annotations/static_annotations_std.csv": "musicId,Arousal(std),Valence(std)\n"
            "1,0.1,0.2\n4,0.3,0.1\n",
            "metadata.csv": "musicId,fileName,title,artist,album,duration,chorus_start_time\n"
            "1,1.mp3,Good Drank,2 Chainz,x,32,02:35\n4,4.mp3,X,21 Savage,x,33,1:00\n",
        },
        "chorus/1.mp3",
        (0.575, 0.4),
    ),
    "4q": (
        {
            "panda_dataset_taffc_annotations.csv": '"Song","Quadrant"\n"MT0000004637","Q3"\n'
            '"MT0000011357","Q2"\n',
            "panda_dataset_taffc_metadata.csv": '"Song","Artist","Title"\n'
            '"MT0000004637","Charlie Poole","Leaving Home"\n"MT0000011357","Megadeth","Addicted"\n',
        },
        "Q3/MT0000004637.mp3",
        ("Q3",),
    ),
    "emotify": (
        {
            "data.csv": "track id, genre, amazement, solemnity, tenderness, nostalgia, calmness, "
            "power, joyful_activation, tension, sadness, mood\n"
            "1,classical,0,1,0,0,0,0,0,0,0,3\n1,classical,1,1,0,0,0,0,0,0,0,4\n"
            "2,classical,0,0,1,0,0,0,0,0,0,3\n"
        },
        "classical/1.mp3",
        (0.5, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    ),
}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_set_as_it_is_distributed(tmp_path, name):
    files, path, label = PUBLISHED[name]
    write(tmp_path, files)
    layout = layouts()[name]
    found = find_by_layout(layout, tmp_path, None)
    assert (found.rows[0].path, found.rows[0].label, found.task) == (path, label, layout.task)
    assert all([layout.citation, layout.licence, layout.size])
    found = find_by_layout(layout, tmp_path, [path])
    assert [row.path for row in found.rows] == [path]
    assert {reason for _, reason in found.left_out} == {"its media file is missing"}


def test_deviations_groups_and_annotators_are_kept(tmp_path):
    write(tmp_path, PUBLISHED["pmemo"][0])
    first = find_by_layout(layouts()["pmemo"], tmp_path, None).rows[0]
    assert first.extra == (("valence deviation", "0.2"), ("arousal deviation", "0.1"))
    assert first.group == "2 Chainz"
    (tmp_path / "emotify").mkdir()
    write(tmp_path / "emotify", PUBLISHED["emotify"][0])
    first = find_by_layout(layouts()["emotify"], tmp_path / "emotify", None).rows[0]
    assert dict(first.extra)["annotators"] == "2"
    assert dict(first.extra)["amazement deviation"] == "0.7071"


def test_real_tables(shared_data):
    def found(name, folder, number=0):
        clips = find_by_layout(layouts()[name], shared_data / folder, None, number)
        groups = {row.group or row.clip_id for row in clips.rows}
        splits = Counter(row.split for row in clips.rows)
        return len(clips.rows), len(clips.classes), len(groups), splits

    splits = {"train": 1261, "val": 271, "test": 270}
    assert found("deam", "tables/deam") == (1802, 2, 1802, splits)
    splits = {"train": 9949, "val": 3802, "test": 4231}
    n, tags, _, by_split = found("jamendo-mood", "tables/jamendo_mood")
    assert (n, tags, by_split) == (17982, 56, splits)
    assert found("jamendo-mood", "tables/jamendo_mood", 1)[3] != splits
    assert found("emomv", "emomv") == (3054, 5, 2785, {"train": 2636, "val": 418})
    assert found("soundtracks", "soundtracks")[:3] == (360, 8, 46)


def test_a_layout_of_ones_own(tmp_path):
    write(tmp_path, {"own.toml": OWN, "table.csv": "song;mood\n7;calm\n12;tense\n"})
    found = find_by_layout(read_toml(tmp_path / "own.toml", Layout), tmp_path, None)
    calm, tense = ("sound/007.mp3", ("calm",), "7"), ("sound/012.mp3", ("tense",), "12")
    assert [(r.path, r.label, r.clip_id) for r in found.rows] == [calm, tense]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "own"', 'nme = "own"', "own.toml: unknown key nme; expected one of name, title"),
        ('id = "song"', 'id = 3', "table[0].id: expected a string, got 3"),
        ('column = "mood"', 'colum = "mood"', "unknown key label.colum"),
        ('title = "A set"', "", "title is missing"),
        ("[label]", "[tags]", "[label] is missing: the task is multiclass"),
        ("sound/{song:3}.mp3", "../{song}.mp3", "'../{song}.mp3' leads out of the folder"),
        ("table.csv", "/etc/table.csv", "'/etc/table.csv' leads out of the folder"),
        ('"multiclass"', '"classes"', "task: expected one of multiclass"),
        ("[media]", '[group]\ncolumn = "song"\npattern = "("\n[media]', "group.pattern '('"),
        ("[table]", "[table", "own.toml: "),
    ],
)  # fmt: skip
def test_faults_of_a_layout_are_one_line(tmp_path, old, new, message):
    with pytest.raises(BadFile) as caught:
        declared(tmp_path, OWN.replace(old, new))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("song,mood\n1,calm\n1,tense\n", "table.csv:3: clip '1' repeats line 2"),
        ("song,mood\n1,calm,loud\n", "table.csv:2: the row has 3 cells, the header 2"),
        ("song,feeling\n1,calm\n", "table.csv: has no column 'mood', only 'song', 'feeling'"),
        ("track,mood\n1,calm\n", "table.csv: has no column 'song', only 'track', 'mood'"),
        ("song,mood\n../../x,calm\n", "table.csv:2: path '../x.mp3' leads out of the folder"),
    ],
)
def test_faults_of_a_table_name_the_row(tmp_path, table, message):
    write(tmp_path, {"table.csv": table})
    with pytest.raises(BadManifest) as caught:
        find_by_layout(declared(tmp_path, OWN), tmp_path, None)
    assert message in str(caught.value)


def test_a_table_that_is_not_there_or_elsewhere(tmp_path):
    with pytest.raises(BadManifest, match=r"has no file table.csv; the layout own needs one"):
        find_by_layout(declared(tmp_path, OWN), tmp_path, None)
    (tmp_path / "set").mkdir()
    (tmp_path / "table.csv").write_text("song,mood\n1,calm\n")
    (tmp_path / "set" / "table.csv").symlink_to(tmp_path / "table.csv")
    with pytest.raises(BadManifest, match="a link that leads out of"):
        find_by_layout(declared(tmp_path, OWN), tmp_path / "set", None)


TABLE = {"table.csv": "song,mood,by,at\n1,x," + 40 * "a" + "b,2\n2,y,c,3\n"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('path = "table.csv"', 'path = ""', "a path is empty"),
        ('path = "sound/{song:3}.mp3"', 'path = " "', "a path is empty"),
        ('path = "table.csv"', 'path = "**x/[.csv"', r"\[\.csv"),
        ("[media]", '[group]\ncolumn = "by"\npattern = "(a+)+$"\n[media]', "takes more than 0.1 s"),
        ("[media]", "[segment]\nstart = nan\n[media]", "segment.start: expected a finite"),
        ("[media]", "[segment]\nduration = -1\n[media]", "duration -1.0: it must be above 0"),
        ("[media]", '[segment]\nstart = "mood"\n[media]', "start 'x' is not a number"),
    ],
)
def test_patterns_and_numbers_of_a_layout(tmp_path, monkeypatch, old, new, message):
    monkeypatch.setattr(file_names, "_SECONDS", 0.1)
    write(tmp_path, TABLE)
    with pytest.raises(BadFile, match=message):
        find_by_layout(declared(tmp_path, OWN.replace(old, new)), tmp_path, None)


def test_blank_ratings_of_a_layout_do_not_count(tmp_path):
    text = OWN.replace("multiclass", "regression").replace("[label]", "[targets.v]")
    layout = declared(tmp_path, text.replace("[table]", "average = true\n[table]"))
    write(tmp_path, {"table.csv": "song;mood\n1;2,5\n1;\n1;3,5\n"})
    (row,) = find_by_layout(layout, tmp_path, None).rows
    assert (row.label, dict(row.extra)["annotators"]) == ((3.0,), "2")
    write(tmp_path, {"table.csv": "song;mood\n1;\n1;nan\n"})
    with pytest.raises(BadManifest, match="nobody rated clip '1' in all of v"):
        find_by_layout(layout, tmp_path, None)


@pytest.mark.parametrize("shape", ["distributed", "with copies", "in a folder", "twice"])
def test_4q_is_recognised_as_it_lies(tmp_path, shape):
    tables, songs = PUBLISHED["4q"][0], {"MT0000004637": "Q3", "MT0000011357": "Q2"}
    folder = tmp_path / "MER" if shape in ("in a folder", "twice") else tmp_path
    for place in [folder, tmp_path / "Dataset"] if shape == "twice" else [folder]:
        write(place, {**tables, **{f"{q}/{song}.mp3": "" for song, q in songs.items()}})
        (place / "readme.txt").write_bytes("gathered by José".encode("latin-1"))
    if shape == "with copies":
        write(folder, {f"music/{song}.mp3": "" for song in songs})
    if shape == "twice":
        with pytest.raises(BadManifest, match=r"scan only .*Dataset or .*MER"):
            scan_clips(tmp_path)
        return
    manifest = scan_clips(tmp_path).manifest
    named = [(c.group, *c.label) for c in manifest.clips]
    assert named == [("Charlie Poole", "Q3"), ("Megadeth", "Q2")]
    assert all(manifest.media_path(clip).is_file() for clip in manifest.clips)
    assert all("music" not in clip.path for clip in manifest.clips)

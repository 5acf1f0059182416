"""Manifests written and read back, users' own CSVs, and every problem with its line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvemo.manifests import (
    BadManifest,
    Clip,
    Manifest,
    check_manifest,
    folds_of,
    read_folds,
    read_manifest,
    write_folds,
    write_manifest,
)
from mvemo.manifests.errors import BadFile, DiskFailed, MissingFile
from mvemo.manifests.tables import RESERVED, plain_text


def save(folder, text, media=()):
    for name in media:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    path = folder / "m.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def read(folder, text, **options):
    return read_manifest(save(folder, text), **{"media": False, **options})


def read_back(manifest, folder, **options):
    """What the manifest's own file gives, with the same digest."""
    write_manifest(manifest, folder / "again.csv")
    again = read_manifest(folder / "again.csv", **{"media": False, **options})
    assert again.digest == manifest.digest
    return again


def problems(path, **options):
    return [(f.line, f.message) for f in check_manifest(path, **options)]  # type: ignore[arg-type]


def facts(manifest, *names):
    """Facts of a manifest by name; those of its clips as tuples."""
    found = {}
    for name in names:
        value = getattr(manifest, name, None)
        if value is None:
            value = tuple(getattr(clip, name) for clip in manifest.clips)
        found[name] = value.tolist() if isinstance(value, np.ndarray) else value
    return found


RATINGS = "# task: regression\n# classes: valence, arousal\npath,arousal,valence\na,0.25,-1e-3\n"
TAGS = '# task: multilabel\npath,label\na,x; y;x\nb,\nc,"[""z;z"", ""x""]"\n'
COLUMNS = "path,calm,sad,bpm\na,1,0,90\nb,0,0,1\n"  # bpm has other numbers than 0 and 1
SEGMENTS = "path,label,start,duration\na.mp3,x,0,10\na.mp3,x,2.5,10\nb.mp3,y,,\n"
OWN = "file,target,album\na.mp3,x,1\nb.mp3,y,2\n"
STATED = (
    "\ufeff# mvemo manifest 1\n# name: my set\n# task: multiclass\n"
    '# classes: ["B, b", "A"]\n# root: media\n# synthetic: true\n# a free remark\n'
    'path,label\n1.mp4,A\n2.mp4,"B, b"\n'
)
LISTED = "# task: multilabel\n# classes: calm, tense\npath,label\n"
# As a spreadsheet writes it.
QUOTED = (
    '# name: x,,\r\n"# classes: B, A",,\r\n,,\r\npath,label,group\r\n1.mp4,A,g\r\n2.mp4,B,h\r\n'
)


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        (
            "label, path ,notes\nsad, b c.mp4,x\nhappy,a.mp4,y\n",
            {},
            {"task": "multiclass", "classes": ("happy", "sad"), "clip_ids": ("b c", "a"),
             "groups": ("b c", "a"), "labels": [1, 0], "name": "m", "synthetic": False},
        ),
        (STATED, {}, {"name": "my set", "classes": ("B, b", "A"), "labels": [1, 0],
                      "synthetic": True}),
        (QUOTED, {}, {"name": "x", "classes": ("B", "A")}),
        (OWN, {"columns": {"path": "file", "label": "target", "group": "album"}},
         {"groups": ("1", "2"), "classes": ("x", "y")}),
        # One column may have two names.
        ("song,label\na.mp3,x\nb.mp3,y\n", {"columns": {"path": "song", "clip_id": "song"}},
         {"clip_ids": ("a.mp3", "b.mp3")}),
        (RATINGS, {}, {"classes": ("valence", "arousal"), "labels": [[-1e-3, 0.25]]}),
        ("file,v\na,0.5\n", {"task": "regression", "columns": {"path": "file", "valence": "v"}},
         {"classes": ("valence",), "labels": [[0.5]]}),
        (TAGS, {}, {"classes": ("x", "y", "z;z"), "labels": [[1, 1, 0], [0, 0, 0], [1, 0, 1]]}),
        (COLUMNS, {"task": "multilabel"}, {"classes": ("calm", "sad"), "labels": [[1, 0], [0, 0]]}),
        (COLUMNS, {"task": "multilabel", "columns": {"sad": "sad"}}, {"classes": ("sad",)}),
        # Segments of one file are one group by default.
        (SEGMENTS, {}, {"clip_ids": ("a@0", "a@2.5", "b"), "groups": ("a", "a", "b"),
                        "duration": (10.0, 10.0, None)}),
        ("path,label\na.mp3,x\na.wav,y\n", {}, {"clip_ids": ("a.mp3", "a.wav")}),
        ('path,label\na,"sad, blue"\nb,calm\n', {}, {"classes": ("calm", "sad, blue")}),
        ('path,label\na,"sad, blue/calm"\nb,calm\n', {"separator": "/"},
         {"task": "multilabel", "classes": ("calm", "sad, blue")}),
        # Names that are equal in Unicode are one.
        ("path,label,group\na,Cafe\u0301,g\nb,Caf\u00e9,g\u200b\nc,sad,h\n", {},
         {"classes": ("Caf\u00e9", "sad"), "groups": ("g", "g", "h")}),
        # Semicolons and tabs separate cells if no comma does; Excel states the separator.
        ("path;label\nx, y.mp3;calm\nb.mp3;tense\n", {}, {"path": ("x, y.mp3", "b.mp3")}),
        ("sep=;\npath;label\na, b;x\nb;y\n", {}, {"path": ("a, b", "b")}),
        ('"sep=;"\npath;label\na, b;x\nb;y\n', {}, {"path": ("a, b", "b")}),
        # Absolute paths of another machine.
        ("path,label\n/far/a.mp3,calm\n/far/b.mp3,sad\n", {}, {"clip_ids": ("a", "b")}),
    ],
)  # fmt: skip
def test_tables_are_read(tmp_path, text, options, expected):
    manifest = read(tmp_path, text, **options)
    assert facts(manifest, *expected) == expected


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (OWN, {"columns": {"path": "file", "label": "target", "group": "singer"}},
         "no column 'singer' for group"),
        (OWN, {"columns": {"path": "file", "label": "target", "gruop": "album"}},
         "unknown column to map 'gruop'"),
        ("# task: multilabel\n# classes: calm, sad\npath,calm\na,1\n", {}, "no column 'sad'"),
        ("# task: multilabel\n# classes: calm\npath,calm\na,yes\n", {},
         "tag 'calm': expected 1"),
        ("# task: multilabel\npath,bpm\na,90\n", {}, "needs a column label, or a column of 0"),
        ("# task: multilabel\n# classes: group\npath,group\na,1\n", {},
         "must not be named 'group'"),
        ("path,label\na,0.5\nb,1\n", {}, r"numbers, such as '0\.5': read ratings with --task"),
        # A column that may be the labels is not passed over.
        ("path,style,bpm\na.mp3,x,90\nb.mp3,x,91\n", {},
         r"recognised in 'style', 'bpm': .*--column label=NAME, .* --task unlabelled"),
        ("song,label\na,x\nb,y\n", {}, "run 'mvemo manifest import' with --column path=NAME"),
        ("song,label\na,x\nb,y\n", {"columns": {"clip_id": "song"}, "media": True},
         "--no-media --column clip_id=NAME"),
        ("clip_id,path,label\ne\u0301,a,x\n\u00e9,b,y\n", {},
         "repeats line 2 in another Unicode form"),
        ('path,label\nx,"a\nb"\ny,c\n', {}, r":2: label 'a\\nb' has a line break"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(tmp_path, text, options, message):
    with pytest.raises(BadManifest, match=message):
        read(tmp_path, text, **options)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("path,label\n", 0, "no clips"),
        ("a.mp4,sad\nb.mp4,happy\n", 1, "the header has no column 'path', 'label'"),
        ("path|label\na|x\n", 1, "separated by commas"),
        ("path,label,path\na,x,a\n", 1, "column 'path' occurs twice"),
        ("# mvemo manifest 1\nfile,label,file\na,x,a\nb,y,b\n", 2, "2 column 'file' for path"),
        ("# task: sorting\npath,label\na,x\nb,y\n", 1, "unknown task 'sorting'"),
        ("# mvemo manifest 2\npath,label\na,x\nb,y\n", 1, "manifest version: expected 1, got 2"),
        ("# mvemo folds 1\npath,label\na,x\nb,y\n", 1, "file of mvemo folds"),
        ("# synthetic: maybe\npath,label\na,x\nb,y\n", 1, "got 'maybe'"),
        ("# classes: x, y, x\npath,label\na,x\nb,y\n", 1, "duplicate class names: 'x'"),
        ('# classes: ["x", \npath,label\na,x\nb,y\n', 1, "is not a JSON list"),
        ("# classes: x, y\npath,label\na,x\nb,z\n", 4, "unknown label 'z'; expected one of x, y"),
        (LISTED + "a,[1]\n", 4, "'[1]' has items that are not text"),
        ("path,label\na,x\nb,x\n", 0, "only one class"),
        ("# classes: x\npath,label\na,x\nb,x\n", 1, "got 1 class(es); a multiclass task needs"),
        ("path,label\na,x\nb,\nc,y\n", 3, "empty label"),
        ("path,label\na,x\n ,y\n", 3, "empty path"),
        ("path,label\na,x\nb,y,z\n\nc,y\n", 3, "the row has 3 cells, the header 2"),
        ("path,label,clip_id\na,x,1\nb,y,1\n", 3, "clip_id '1' repeats line 2"),
        ("path,label\na,x\nb,y\na,x\n", 4, "clip_id 'a@0' repeats line 2"),
        ("path,label,group\na,x,g\nb,y,\n", 3, "empty group"),
        ("path,label,fold\na,x,0\nb,y,one\nc,y,1\n", 3, "fold 'one' is not a whole number"),
        (f"path,label,fold\na,x,0\nb,y,{'9' * 5000}\nc,y,1\n", 3, "999' (5000 characters) is not"),
        ("path,label,fold\na,x,0\nb,y,-1\nc,y,1\n", 3, "fold -1 is negative"),
        ("path,label,fold\na,x,1\nb,y,2\n", 0, "at least two folds 0, 1"),
        ("path,label,fold\na,x,0\nb,y,\nc,x,1\n", 3, "the row has no fold, but other rows have"),
        ("path,label,group,fold\na,x,g,0\nb,y,g,1\nc,y,h,1\n", 3,
         "group 'g' is in several folds: this row is in fold 1, and line 2 is in fold 0"),
        ("path,label\n../a,x\nb,y\n", 2, "path '../a' is not below the media root"),
        ("path,label\n/etc/a,x\nb,y\n", 2, "is not below the media root"),
        ("path,label,start\na,x,-1\nb,y,0\n", 2, "start -1 is negative"),
        ("path,label,start\na,x,nan\nb,y,0\n", 2, "start 'nan' is not a number"),
        ("path,label,duration\na,x,0\nb,y,1\n", 2, "duration 0: it must be above 0"),
        ("path,label,start\na,x,1e16\nb,y,0\n", 2, "start 1e16 is longer than any file"),
        ("# task: regression\n# classes: v\npath,v\na,inf\n", 4, "v 'inf' is not a number"),
        ("# task: regression\npath,v\na,1\n", 0, "needs columns of targets"),
        ("# task: regression\n# classes: valence\n# scale: 1-9\npath,valence\na,1\n", 3,
         "scale '1-9': expected lowest and highest value, such as 1..9"),
        ("# task: regression\n# classes: v, Arousal\n# scale: 1..7\npath,v,Arousal\na,9,3\nb,1,9\n",
         6, "Arousal 9 is outside the scale 1..7"),
        ("# task: regression\n# classes: v, path\npath,v\na,1\n", 2, "must not be named 'path'"),
        ("path,label,start,group\na,x,0,g\na,x,5,h\nb,y,0,i\n", 3,
         "segments of 'a' must be in one group, but this row is in 'h' and line 2 is in 'g'"),
    ],
)  # fmt: skip
def test_each_problem_is_reported_with_its_line(tmp_path, text, line, message):
    ((actual_line, actual),) = problems(save(tmp_path, text), media=False)
    assert (actual_line, message in actual) == (line, True)
    with pytest.raises(BadManifest, match=r"^\S*m\.csv"):
        read_manifest(tmp_path / "m.csv", media=False)


def test_all_problems_come_at_once(tmp_path):
    text = "# classes: x, y\npath,label,start\na,z,-1\n../b,x,0\nc,y,q\na,w,0\n"
    path = save(tmp_path, text, media=("a", "c"))
    expected = [(3, "unknown label"), (3, "negative"), (4, "below"), (4, "no such file")]
    expected += [(5, "not a number"), (6, "unknown label"), (6, "clip_id")]
    for (line, message), (expected_line, part) in zip(problems(path), expected, strict=True):
        assert (line, part in message) == (expected_line, True)
    with pytest.raises(BadManifest) as caught:
        read_manifest(path)
    first, *lines = str(caught.value).splitlines()
    assert (first, len(lines)) == (f"{path}: 7 problems", 7)


def test_missing_media(tmp_path):
    text = "path,label\na b.mp4,x\nc,y\nd.mp4,x\n"
    path = save(tmp_path, text, media=("a b.mp4", "c/x.mp4"))

    def found(**options):
        return [(line, message.split(": ")[0]) for line, message in problems(path, **options)]

    assert found() == [(3, "is a folder"), (4, "no such file")]
    (tmp_path / "a b.mp4").write_bytes(b"")
    assert found() == [(2, "the file is empty"), (3, "is a folder"), (4, "no such file")]
    (tmp_path / "a b.mp4").unlink()
    (tmp_path / "other").mkdir()
    for options in ({}, {"root": tmp_path / "other"}):
        ((line, message),) = found(**options)
        assert (line, message[:25]) == (0, "none of the 3 media files")


def test_files_and_folders_in_place_of_others(tmp_path):
    path = save(tmp_path, "# root: nowhere\npath,label\na,x\nb,y\n")
    assert "is not a folder" in problems(path)[0][1]
    assert len(read_manifest(path, media=False)) == 2
    assert "is a folder" in problems(tmp_path)[0][1]
    for reader in (read_manifest, check_manifest):
        with pytest.raises(MissingFile, match="no such file"):
            reader(tmp_path / "none.csv")


def test_the_root_is_written_relative_to_the_file(tmp_path):
    clips = (Clip("a", "a.mp4", ("x",), "a"), Clip("b", "b.mp4", ("y",), "b"))
    for name in ("media", "lists"):
        (tmp_path / name).mkdir()
    manifest = Manifest("m", "multiclass", ("x", "y"), clips, tmp_path / "media")
    assert repr(manifest) == "<Manifest 'm': 2 clips in 2 groups, multiclass: x, y>"
    write_manifest(manifest, tmp_path / "lists" / "m.csv")
    assert '""root"": ""../media""' in (tmp_path / "lists" / "m.csv").read_text()
    assert manifest.media_path(clips[0]) == tmp_path / "media" / "a.mp4"
    tmp_path.rename(tmp_path.with_name("moved"))
    again = read_manifest(tmp_path.with_name("moved") / "lists" / "m.csv", media=False)
    assert again.root.resolve() == tmp_path.with_name("moved") / "media"


def test_what_could_not_be_read_back_is_not_written(tmp_path):
    def manifest(path="a", label="x", clip_id="a"):
        clip = Clip(clip_id, path, (label,), "g")
        return Manifest("m", "multiclass", ("x", label), (clip,), tmp_path)

    out = tmp_path / "m.csv"
    for bad in (manifest(path="../a"), manifest(label=" y"), manifest(clip_id="a\n")):
        with pytest.raises(BadManifest):
            write_manifest(bad, out)
    with pytest.raises(BadFile, match="UTF-8"):
        write_manifest(manifest(path="\udcfc"), out)
    with pytest.raises(DiskFailed, match="cannot be written"):
        write_manifest(manifest(), tmp_path / "none" / "m.csv")
    assert list(tmp_path.iterdir()) == []


word = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda text: text == text.strip()
)
# Names are read in Unicode's form NFC.
name = word.filter(lambda text: "\n" not in text and plain_text(f"0{text}") == f"0{text}")
seconds = st.floats(0, 1e6, allow_nan=False)


@st.composite
def manifests(draw):
    task = draw(st.sampled_from(["multiclass", "multilabel", "regression", "unlabelled"]))
    names = st.lists(name.filter(lambda n: n not in RESERVED), min_size=2, max_size=4, unique=True)
    classes = [] if task == "unlabelled" else draw(names)
    n = draw(st.integers(1, 5))
    with_folds = draw(st.booleans()) and n >= 2
    clips = []
    for i in range(n):
        if task == "multiclass":
            label = (draw(st.sampled_from(classes)),)
        elif task in ("multilabel", "unlabelled"):
            chosen = draw(st.sets(st.sampled_from(classes))) if classes else ()
            label = tuple(tag for tag in classes if tag in chosen)
        else:
            label = tuple(draw(st.floats(-1e9, 1e9)) for _ in classes)
        path = draw(word).replace("/", "_").replace(".", "_")
        stretch = draw(seconds), draw(st.none() | st.floats(1e-3, 1e6))
        fold, split = i % 2 if with_folds else None, draw(st.none() | name)
        clip_id, group = (f"{i}{draw(name)}".strip() for _ in range(2))
        clips.append(Clip(clip_id, f"{i}/ {path}.mp4", label, group, *stretch, fold, split))
    scale = draw(st.sampled_from(["", "-1e9..1e9"]))
    facts = draw(name), task, tuple(classes), tuple(clips), Path(), draw(st.booleans())
    return Manifest(*facts, scale=scale)


@settings(max_examples=40)
@given(manifests())
def test_written_and_read_back_it_is_the_same(tmp_path_factory, manifest):
    again = read_back(manifest, tmp_path_factory.mktemp("m"), root=Path())
    assert again == manifest
    assert np.array_equal(again.labels, manifest.labels)


PIECES = "path,label,group\nA/v-1-of-2.mp4,x,1\nB/v-2-of-2.mp4,y,2\nB/3.mp4,y,3\nA/3.mp4,x,4\n"
TAGGED = "# mvemo manifest 1\n# task: multilabel\npath,label\n"


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("path,label\na,Calm\nb,calm\nc,calm\nd,calm\ne,Calm\nf,tense\n", {},
         [(2, "label 'Calm' differs from 'calm' only in case (2 and 3 clips)")]),
        (TAGGED + "a.mp3,calm|dark\nb.mp3,dark\nc.mp3,fast;dark\n", {}, [(4, "not by '|'")]),
        (TAGGED + 'a.mp3,"rock, pop"\nb.mp3,dark\n', {}, []),
        (TAGGED + 'a.mp3,"rock, pop"\nb.mp3,"pop,dark"\n', {}, [(4, "not by ','")]),
        (PIECES, {}, []),
        (PIECES, {"infer_groups": True}, [(3, "from the same source as line 2")]),
    ],
)  # fmt: skip
def test_doubts_are_found_only_by_check(tmp_path, text, options, expected):
    actual = problems(save(tmp_path, text), media=False, **options)
    for (line, message), (expected_line, part) in zip(actual, expected, strict=True):
        assert (line, part in message) == (expected_line, True)
    assert len(read(tmp_path, text)) > 1


@pytest.mark.parametrize("mark", [", ", ";", " | "])
def test_tags_in_one_cell_are_recognised_and_told(tmp_path, mark):
    rows = ["happy, energetic", "calm", "happy, calm", "sad", "sad, calm"]
    cells = [f'{i},"{row.replace(", ", mark)}"\n' for i, row in enumerate(rows)]
    manifest = read(tmp_path, "file,label\n" + "".join(cells))
    assert manifest.task == "multilabel"
    assert manifest.classes == ("calm", "energetic", "happy", "sad")
    assert f"separated by {mark.strip()!r}" in manifest.notes[1]
    # The manifest that is written has one meaning, whatever its tags hold.
    assert read_back(manifest, tmp_path).notes == ()


def test_absolute_paths_need_no_root(tmp_path):
    media, lists = tmp_path / "media", tmp_path / "lists"
    lists.mkdir()
    save(tmp_path, "", media=("media/x/a.mp3", "media/b.mp3"))
    path = save(lists, f"path,label\n{media}/x/a.mp3,calm\n{media}//./b.mp3,sad\n")
    manifest = read_manifest(path)
    assert (manifest.root, manifest.clip_ids) == (media, ("x/a", "b"))
    read_back(manifest, lists, media=True)
    # A path below the given root becomes relative.
    assert read_manifest(path, root=tmp_path).clip_ids == ("media/x/a", "media/b")


def test_an_id_is_enough_without_media(tmp_path):
    read_back(read(tmp_path, "song,label\na,x\nb,y\n", columns={"clip_id": "song"}), tmp_path)
    assert check_manifest(tmp_path / "again.csv") == []


PREDICTED = "path,model,label,confidence,calm,sad,notes,error\n"
PREDICTED += "a,mv/late,calm,0.9,0.9,0.1,,\nb,mv/late,sad,0.8,0.2,0.8,,\nc,,,,,,,broken\n"


@pytest.mark.parametrize("name", ["path", "file"])
def test_labels_that_a_model_predicted_are_named(tmp_path, name):
    text = PREDICTED.replace("path", name)
    with pytest.raises(BadManifest, match=r":4: empty label: leave the row out with"):
        read(tmp_path, text)
    manifest = read(tmp_path, text, skip_unlabelled=True)
    assert (len(manifest), manifest.predicted_by) == (2, "mv")
    assert any("predictions of the model mv" in note for note in manifest.notes)
    assert read_back(manifest, tmp_path).predicted_by == "mv"
    # A true label in a column beside them is no prediction.
    rows = [f"{row},{end}" for row, end in zip(text.split(), ("truth", "x", "y", "x"), strict=True)]
    truth = read(tmp_path, "\n".join(rows), columns={"label": "truth"})
    assert (truth.classes, truth.predicted_by) == (("x", "y"), "")


def test_pandas_reads_manifests_and_folds_and_keeps_their_settings(tmp_path):
    pandas = pytest.importorskip("pandas")
    clips = tuple(
        Clip(f"{i}", f"{i}.mp3", ("so, so" if i % 2 else "=x",), f"g{i}") for i in range(6)
    )
    manifest = Manifest("m; n", "multiclass", ("so, so", "=x"), clips, tmp_path, scale="1..9")
    path = tmp_path / "clips.csv"
    write_manifest(manifest, path)
    frame = pandas.read_csv(path)
    assert [*frame.columns[:-1]] == ["clip_id", "path", "label", "group"]
    assert frame.path.tolist() == [clip.path for clip in clips]
    frame.sort_values("clip_id", ascending=False).to_csv(path, index=False)
    again = read_manifest(path, media=False)
    assert again == replace(manifest, clips=clips[::-1], root=again.root)
    # Lines above the table change settings, and a row may lack its empty last cell.
    text = "# name: other\n" + path.read_text() + "6,6.mp3,=x,g6\n"
    path.write_text(text)
    again = read_manifest(path, media=False)
    assert (again.name, again.scale, len(again)) == ("other", "1..9", 7)
    folds = folds_of(manifest, 2, 0)
    write_folds(folds, path)
    frame = pandas.read_csv(path)
    assert [*frame.columns[:-1]] == ["clip_id", "fold"]
    assert frame.fold.tolist() == folds.assignment.tolist()
    assert read_folds(path, manifest).seed == 0


def test_damaged_settings_of_a_header_are_refused(tmp_path):
    path = tmp_path / "clips.csv"
    for bad in ("mvemo: {", "mvemo: []", "mvemo: 1"):
        path.write_text(f"clip_id,label,{bad}\na,x,\nb,y,\n")
        with pytest.raises(BadManifest, match=r"clips\.csv:1: .* are not JSON"):
            read_manifest(path, media=False)

"""Manifests written and read back, users' own CSVs, and every problem with its line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvemo.manifests import (
    BadManifest,
    Clip,
    Manifest,
    MissingManifest,
    check_manifest,
    read_manifest,
    write_manifest,
)
from mvemo.manifests.tables import plain_text, read_table


def save(folder: Path, text: str, media: tuple[str, ...] = ()) -> Path:
    for name in media:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    path = folder / "m.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return path


def problems(path: Path, **options: object) -> list[tuple[int, str]]:
    return [(f.line, f.message) for f in check_manifest(path, **options)]  # type: ignore[arg-type]


def one_problem(folder: Path, text: str) -> tuple[int, str]:
    (actual,) = problems(save(folder, text), media=False)
    return actual


def test_a_users_own_csv(tmp_path: Path) -> None:
    path = save(tmp_path, "label, path ,notes\nsad, b c.mp4,x\nhappy,a.mp4,y\n")
    manifest = read_manifest(path, media=False)
    assert manifest.task == "multiclass"
    assert manifest.classes == ("happy", "sad")
    assert manifest.clip_ids == ("b c", "a")
    assert manifest.groups == ("b c", "a")
    assert manifest.labels.tolist() == [1, 0]
    assert manifest.name == "m"
    assert manifest.media_path(manifest.clips[0]) == tmp_path / "b c.mp4"
    assert not manifest.synthetic


def test_comment_lines_state_what_a_table_cannot(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    text = (
        "\ufeff# mvemo manifest 1\n# name: my set\n# task: multiclass\n"
        '# classes: ["B, b", "A"]\n# root: media\n# synthetic: true\n# a free remark\n'
        'path,label\n1.mp4,A\n2.mp4,"B, b"\n'
    )
    manifest = read_manifest(save(tmp_path, text), media=False)
    assert manifest.name == "my set"
    assert manifest.classes == ("B, b", "A")
    assert manifest.labels.tolist() == [1, 0]
    assert manifest.root == tmp_path / "media"
    assert manifest.synthetic


def test_a_spreadsheet_quotes_and_fills_up_comment_lines(tmp_path: Path) -> None:
    text = (
        '# name: x,,\r\n"# classes: B, A",,\r\n,,\r\npath,label,group\r\n1.mp4,A,g\r\n2.mp4,B,h\r\n'
    )
    manifest = read_manifest(save(tmp_path, text), media=False)
    assert manifest.name == "x"
    assert manifest.classes == ("B", "A")


def test_columns_of_other_names(tmp_path: Path) -> None:
    path = save(tmp_path, "file,target,album\na.mp3,x,1\nb.mp3,y,2\n")
    columns = {"path": "file", "label": "target", "group": "album"}
    manifest = read_manifest(path, columns=columns, media=False)
    assert manifest.groups == ("1", "2")
    assert manifest.classes == ("x", "y")
    with pytest.raises(BadManifest, match="no column 'singer' for group"):
        read_manifest(path, columns={**columns, "group": "singer"}, media=False)
    with pytest.raises(BadManifest, match="no such column to map: gruop"):
        read_manifest(path, columns={**columns, "gruop": "album"}, media=False)


def test_regression_has_a_column_for_each_dimension(tmp_path: Path) -> None:
    text = "# task: regression\n# classes: valence, arousal\npath,arousal,valence\na,0.25,-1e-3\n"
    path = save(tmp_path, text)
    manifest = read_manifest(path, media=False)
    assert manifest.classes == ("valence", "arousal")
    assert manifest.labels.tolist() == [[-1e-3, 0.25]]
    other = read_manifest(
        save(tmp_path, "file,v\na,0.5\n"),
        task="regression",
        columns={"path": "file", "valence": "v"},
        media=False,
    )
    assert other.classes == ("valence",)
    assert other.labels.tolist() == [[0.5]]


def test_labels_that_a_model_predicted_name_it(tmp_path: Path) -> None:
    text = "path,model,label,notes,error\na,film/late,x,,\nb,film/late,y,,\nc,,x,,no sound\n"
    manifest = read_manifest(save(tmp_path, text), media=False)
    assert manifest.predicted_by == "film"
    write_manifest(manifest, tmp_path / "again.csv")
    assert read_manifest(tmp_path / "again.csv", media=False).predicted_by == "film"


def test_multilabel_tags(tmp_path: Path) -> None:
    text = '# task: multilabel\npath,label\na,x; y;x\nb,\nc,"[""z;z"", ""x""]"\n'
    manifest = read_manifest(save(tmp_path, text), media=False)
    assert manifest.classes == ("x", "y", "z;z")
    assert manifest.labels.tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 1]]


def test_tags_with_a_column_each(tmp_path: Path) -> None:
    text = "path,calm,sad,bpm\na,1,0,90\nb,0,0,1\n"
    manifest = read_manifest(save(tmp_path, text), task="multilabel", media=False)
    # bpm is not of 0 and 1 alone, so it is no tag.
    assert manifest.classes == ("calm", "sad")
    assert manifest.labels.tolist() == [[1, 0], [0, 0]]
    renamed = read_manifest(
        save(tmp_path, text), task="multilabel", columns={"sad": "sad"}, media=False
    )
    assert renamed.classes == ("sad",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# task: multilabel\n# classes: calm, sad\npath,calm\na,1\n", "has no column 'sad'"),
        ("# task: multilabel\n# classes: calm\npath,calm\na,yes\n", "tag 'calm' is 'yes'; write 1"),
        ("# task: multilabel\npath,bpm\na,90\n", "needs a column label, or one of 0 and 1"),
        ("# task: multilabel\n# classes: group\npath,group\na,1\n", "must not be named 'group'"),
    ],
)
def test_bad_columns_of_tags(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadManifest, match=message):
        read_manifest(save(tmp_path, text), media=False)


def test_segments_of_one_file_are_one_group_by_default(tmp_path: Path) -> None:
    text = "path,label,start,duration\na.mp3,x,0,10\na.mp3,x,2.5,10\nb.mp3,y,,\n"
    manifest = read_manifest(save(tmp_path, text), media=False)
    assert manifest.clip_ids == ("a@0", "a@2.5", "b")
    assert manifest.groups == ("a", "a", "b")
    assert [c.duration for c in manifest.clips] == [10.0, 10.0, None]


def test_files_that_differ_in_suffix_only_keep_it_in_their_ids(tmp_path: Path) -> None:
    manifest = read_manifest(save(tmp_path, "path,label\na.mp3,x\na.wav,y\n"), media=False)
    assert manifest.clip_ids == ("a.mp3", "a.wav")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 0, "the file is empty"),
        ("path,label\n", 0, "no clips"),
        ("a.mp4,sad\nb.mp4,happy\n", 1, "the header has no column 'path', 'label'"),
        ("path|label\na|x\n", 1, "separated by commas"),
        ("path,mood\na,x\nb,y\n", 1, "no column 'label'"),
        ("path,label,path\na,x,a\n", 1, "column 'path' occurs twice"),
        ("# task: sorting\npath,label\na,x\nb,y\n", 1, "unknown task 'sorting'"),
        ("# mvemo manifest 2\npath,label\na,x\nb,y\n", 1, "manifest version 2"),
        ("# mvemo folds 1\npath,label\na,x\nb,y\n", 1, "file of mvemo folds"),
        ("# synthetic: maybe\npath,label\na,x\nb,y\n", 1, "synthetic is 'maybe'"),
        ("# classes: x, y, x\npath,label\na,x\nb,y\n", 1, "named twice: 'x'"),
        ('# classes: ["x", \npath,label\na,x\nb,y\n', 1, "is not a JSON list"),
        ("# classes: x, y\npath,label\na,x\nb,z\n", 4, "unknown label 'z'; one of x, y"),
        ("path,label\na,x\nb,x\n", 0, "only one class"),
        ("path,label\na,x\nb,\nc,y\n", 3, "empty label"),
        ("path,label\na,x\n ,y\n", 3, "empty path"),
        ("path,label\na,x\nb,y,z\n\nc,y\n", 3, "3 cells; the header has 2"),
        ("path,label\na,x\n\n\nb\nc,y\n", 5, "1 cells; the header has 2"),
        ('path,label\n"a\nb",x\nb,y,\nc,y\n', 4, "3 cells"),
        ('path,label\na,x\nc,y\nb,"y\n', 4, "not CSV from here on"),
        ("path,label,clip_id\na,x,1\nb,y,1\n", 3, "clip_id '1' is that of line 2"),
        ("path,label\na,x\nb,y\na,x\n", 4, "clip_id 'a@0' is that of line 2"),
        ("path,label,group\na,x,g\nb,y,\n", 3, "empty group"),
        ("path,label,fold\na,x,0\nb,y,one\nc,y,1\n", 3, "fold 'one' is not a whole number"),
        ("path,label,fold\na,x,0\nb,y,-1\nc,y,1\n", 3, "fold -1 is negative"),
        ("path,label,fold\na,x,1\nb,y,2\n", 0, "folds must be 0, 1"),
        ("path,label,fold\na,x,0\nb,y,\nc,x,1\n", 3, "no fold, though other rows have one"),
        (
            "path,label,group,fold\na,x,g,0\nb,y,g,1\nc,y,h,1\n",
            3,
            "group 'g' straddles folds: this is in fold 1 and line 2 in fold 0",
        ),
        ("path,label\n../a,x\nb,y\n", 2, "path '../a' is not below the media root"),
        ("path,label\nc/../../a,x\nb,y\n", 2, "is not below the media root"),
        ("path,label\n/etc/a,x\nb,y\n", 2, "is not below the media root"),
        ("path,label,start\na,x,-1\nb,y,0\n", 2, "start -1 is negative"),
        ("path,label,start\na,x,1s\nb,y,0\n", 2, "start '1s' is not a number"),
        ("path,label,start\na,x,nan\nb,y,0\n", 2, "start 'nan' is not a number"),
        ("path,label,duration\na,x,0\nb,y,1\n", 2, "duration 0 is not above 0"),
        ("path,label,start\na,x,1e16\nb,y,0\n", 2, "start 1e16 is longer than any file"),
        ("path,label,duration\na,x,1e308\nb,y,1\n", 2, "duration 1e308 is longer than any file"),
        ("# task: regression\n# classes: v\npath,v\na,inf\n", 4, "v 'inf' is not a number"),
        ("# task: regression\npath,v\na,1\n", 0, "needs its targets' columns"),
        (
            "# task: regression\n# classes: valence\n# scale: 1-9\npath,valence\na,1\n",
            3,
            "scale '1-9': expected its lowest and highest value, as 1..9",
        ),
        (
            "# task: regression\n# classes: v, Arousal\n# scale: 1..7\npath,v,Arousal\n"
            "a,9,3\nb,1,9\n",
            6,
            "Arousal 9 is outside the scale 1..7",
        ),
        ("# task: regression\n# classes: v, path\npath,v\na,1\n", 2, "must not be named 'path'"),
        (
            "path,label,start,group\na,x,0,g\na,x,5,h\nb,y,0,i\n",
            3,
            "segments of 'a' must be in one group",
        ),
    ],
)
def test_each_problem_is_reported_with_its_line(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    actual_line, actual = one_problem(tmp_path, text)
    assert actual_line == line
    assert message in actual
    with pytest.raises(BadManifest, match=r"^\S*m\.csv"):
        read_manifest(tmp_path / "m.csv", media=False)


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    text = "# classes: x, y\npath,label,start\na,z,-1\n../b,x,0\nc,y,q\na,w,0\n"
    path = save(tmp_path, text, media=("a", "c"))
    expected = [(3, "unknown label"), (3, "negative"), (4, "below"), (4, "no such file")]
    expected += [(5, "not a number"), (6, "unknown label"), (6, "clip_id")]
    actual = problems(path)
    assert len(actual) == len(expected)
    for (line, message), (expected_line, part) in zip(actual, expected, strict=True):
        assert line == expected_line
        assert part in message
    with pytest.raises(BadManifest) as caught:
        read_manifest(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: 7 problems"
    assert len(lines) == 8


def test_missing_media(tmp_path: Path) -> None:
    text = "path,label\na b.mp4,x\nc,y\nd.mp4,x\n"
    path = save(tmp_path, text, media=("a b.mp4", "c/x.mp4"))
    actual = problems(path)
    assert [line for line, _ in actual] == [3, 4]
    assert "is a folder" in actual[0][1]
    assert "no such file" in actual[1][1]
    assert len(read_manifest(path, media=False)) == 3
    (tmp_path / "a b.mp4").unlink()
    ((line, message),) = problems(path)
    assert line == 0
    assert "none of the 3 media files" in message
    (tmp_path / "other").mkdir()
    assert "wrong root?" in problems(path, root=tmp_path / "other")[0][1]


def test_a_root_that_is_no_folder_is_named_where_media_are_read(tmp_path: Path) -> None:
    path = save(tmp_path, "# root: nowhere\npath,label\na,x\nb,y\n")
    assert "is not a folder" in problems(path)[0][1]
    assert len(read_manifest(path, media=False)) == 2


def test_an_absolute_path_below_the_root_becomes_relative(tmp_path: Path) -> None:
    path = save(tmp_path, f"path,label\n{tmp_path}/x/a.mp4,x\n./x//b.mp4,y\n")
    assert [c.path for c in read_manifest(path, media=False).clips] == ["x/a.mp4", "x/b.mp4"]


def test_what_is_no_text_file(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes("path,label\na,x\nb,\xfc\n".encode("latin-1"))
    assert problems(path) == [(3, "byte 0xfc is not UTF-8; save the file as UTF-8")]
    path.write_bytes(b"path,label\na\0,x\n")
    assert problems(path)[0][0] == 2
    assert "is a folder" in problems(tmp_path)[0][1]
    with pytest.raises(MissingManifest, match="no such file"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(MissingManifest, match="no such file"):
        check_manifest(tmp_path / "none.csv")


def test_pieces_of_one_source_in_several_groups(tmp_path: Path) -> None:
    text = "path,label,group\nA/v-1-of-2.mp4,x,1\nB/v-2-of-2.mp4,y,2\nB/3.mp4,y,3\nA/3.mp4,x,4\n"
    path = save(tmp_path, text)
    assert problems(path, media=False) == []
    ((line, message),) = problems(path, media=False, infer_groups=True)
    assert line == 3
    assert "a piece of the source of line 2" in message


def test_the_root_is_written_relative_to_the_file(tmp_path: Path) -> None:
    clips = (Clip("a", "a.mp4", ("x",), "a"), Clip("b", "b.mp4", ("y",), "b"))
    for name in ("media", "lists"):
        (tmp_path / name).mkdir()
    manifest = Manifest("m", "multiclass", ("x", "y"), clips, tmp_path / "media")
    write_manifest(manifest, tmp_path / "lists" / "m.csv")
    assert "# root: ../media\n" in (tmp_path / "lists" / "m.csv").read_text()
    tmp_path.rename(tmp_path.with_name("moved"))
    again = read_manifest(tmp_path.with_name("moved") / "lists" / "m.csv", media=False)
    assert again.root.resolve() == tmp_path.with_name("moved") / "media"


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    def manifest(path: str = "a", label: str = "x", clip_id: str = "a") -> Manifest:
        clip = Clip(clip_id, path, (label,), "g")
        return Manifest("m", "multiclass", ("x", label), (clip,), tmp_path)

    out = tmp_path / "m.csv"
    for bad in (manifest(path="../a"), manifest(label=" y"), manifest(clip_id="a\n")):
        with pytest.raises(BadManifest):
            write_manifest(bad, out)
    with pytest.raises(BadManifest, match="UTF-8"):
        write_manifest(manifest(path="\udcfc"), out)
    with pytest.raises(BadManifest, match="cannot be written"):
        write_manifest(manifest(), tmp_path / "none" / "m.csv")
    assert list(tmp_path.iterdir()) == []


word = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
    lambda text: text == text.strip()
)
# Names are read in Unicode's form NFC.
name = word.filter(lambda text: "\n" not in text and plain_text(f"0{text}") == f"0{text}")
seconds = st.floats(0, 1e6, allow_nan=False)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    task = draw(st.sampled_from(["multiclass", "multilabel", "regression"]))
    reserved = {"path", "label", "clip_id", "group", "start", "duration", "fold", "split"}
    classes = draw(
        st.lists(name.filter(lambda n: n not in reserved), min_size=2, max_size=4, unique=True)
    )
    n = draw(st.integers(1, 5))
    with_folds = draw(st.booleans()) and n >= 2
    clips = []
    for i in range(n):
        label: tuple[str, ...] | tuple[float, ...]
        if task == "multiclass":
            label = (draw(st.sampled_from(classes)),)
        elif task == "multilabel":
            chosen = draw(st.sets(st.sampled_from(classes)))
            label = tuple(tag for tag in classes if tag in chosen)
        else:
            label = tuple(draw(st.floats(-1e9, 1e9)) for _ in classes)
        path = draw(word).replace("/", "_").replace(".", "_")
        clips.append(
            Clip(
                f"{i}{draw(name)}".strip(),
                f"{i}/ {path}.mp4",
                label,
                f"{i}{draw(name)}",
                draw(seconds),
                draw(st.none() | st.floats(1e-3, 1e6)),
                i % 2 if with_folds else None,
                draw(st.none() | name),
            )
        )
    scale = draw(st.sampled_from(["", "-1e9..1e9"]))
    facts = draw(name), task, tuple(classes), tuple(clips), Path(), draw(st.booleans())
    return Manifest(*facts, scale=scale)


@settings(max_examples=60, deadline=None)
@given(manifests())
def test_written_and_read_back_it_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, manifest: Manifest
) -> None:
    folder = tmp_path_factory.mktemp("m")
    path = folder / "m.csv"
    write_manifest(manifest, path)
    again = read_manifest(path, root=Path(), media=False)
    assert again == manifest
    assert again.digest == manifest.digest
    assert np.array_equal(again.labels, manifest.labels)


def test_what_is_hardly_meant_is_found_by_check_alone(tmp_path):
    path = save(tmp_path, "path,label\na.mp3,Calm\nb.mp3,calm\nc.mp3,calm\nd.mp3,tense\n")
    ((line, message),) = problems(path, media=False)
    assert line == 2
    assert message.startswith("label 'Calm' differs from 'calm' only in case (1 and 2 clips)")
    assert read_manifest(path, media=False).classes == ("Calm", "calm", "tense")
    head = "# mvemo manifest 1\n# task: multilabel\npath,label\n"
    path = save(tmp_path, head + "a.mp3,calm|dark\nb.mp3,dark\nc.mp3,fast;dark\n")
    ((line, message),) = problems(path, media=False)
    assert (line, "not by '|'" in message) == (4, True)
    path = save(tmp_path, head + 'a.mp3,"rock, pop"\nb.mp3,dark\n')
    assert problems(path, media=False) == []
    path = save(tmp_path, head + 'a.mp3,"rock, pop"\nb.mp3,"pop,dark"\n')
    assert "not by ','" in problems(path, media=False)[0][1]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_semicolons_and_tabs_separate_cells_where_no_comma_does(tmp_path, mark):
    text = "path,label\nx, y.mp3,calm\nb.mp3,tense\n".replace(",", mark).replace(f"x{mark}", "x,")
    manifest = read_manifest(save(tmp_path, text), media=False)
    assert [clip.path for clip in manifest.clips] == ["x, y.mp3", "b.mp3"]
    assert manifest.classes == ("calm", "tense")


def test_a_comma_in_quotes_separates_no_cells(tmp_path):
    path = save(tmp_path, 'path;"high, low";label\na.mp3;0.5;x\n')
    rows = ((1, ["path", "high, low", "label"]), (2, ["a.mp3", "0.5", "x"]))
    assert read_table(path, error=ValueError).rows == rows


def test_a_missing_path_column_points_to_import(tmp_path):
    path = save(tmp_path, "song,label\na.mp3,calm\nb.mp3,tense\n")
    (message,) = (message for _, message in problems(path, media=False))
    assert "--column path=NAME of 'mvemo manifest import'" in message
    assert "--no-media --column clip_id=NAME" in message


def test_empty_files_are_found_by_check(tmp_path):
    (tmp_path / "a.mp3").touch()
    (tmp_path / "b.mp3").write_bytes(b"x")
    path = save(tmp_path, "path,label\na.mp3,calm\nb.mp3,tense\n")
    ((line, message),) = problems(path)
    assert (line, message.startswith("the file is empty: ")) == (2, True)


# --- tables that people have


def read(folder: Path, text: str, **options):
    return read_manifest(save(folder, text), **{"media": False, **options})


@pytest.mark.parametrize("mark", [", ", ";", " | "])
def test_tags_in_one_cell_are_recognised_and_told(tmp_path, mark):
    rows = ["happy, energetic", "calm", "happy, calm", "sad", "sad, calm"]
    cells = [f'{i},"{row.replace(", ", mark)}"\n' for i, row in enumerate(rows)]
    manifest = read(tmp_path, "file,label\n" + "".join(cells))
    assert manifest.task == "multilabel"
    assert manifest.classes == ("calm", "energetic", "happy", "sad")
    assert f"separated by {mark.strip()!r}" in manifest.notes[0]
    # The manifest that is written has one meaning, whatever its tags hold.
    write_manifest(manifest, tmp_path / "again.csv")
    again = read_manifest(tmp_path / "again.csv", media=False)
    assert (again.digest, again.notes) == (manifest.digest, ())


def test_a_class_with_a_comma_and_a_stated_separator(tmp_path):
    assert read(tmp_path, 'path,label\na,"sad, blue"\nb,calm\n').classes == ("calm", "sad, blue")
    text = 'path,label\na,"sad, blue/calm"\nb,calm\n'
    tags = read(tmp_path, text, separator="/")
    assert (tags.task, tags.classes) == ("multilabel", ("calm", "sad, blue"))


@pytest.mark.parametrize("names", ["valence,arousal", "label_valence,label_arousal"])
def test_ratings_need_no_line_of_classes(tmp_path, names):
    text = f"path,{names},x\na,0.25,1,2\nb,0.5,2,3\n"
    manifest = read(tmp_path, text, task="regression")
    assert (manifest.classes, manifest.labels.tolist()[0]) == (("valence", "arousal"), [0.25, 1.0])
    with pytest.raises(BadManifest, match="ratings are read with --task regression"):
        read(tmp_path, text)
    with pytest.raises(BadManifest, match=r"numbers, as '0\.5': ratings .* --task regression"):
        read(tmp_path, "path,label\na,0.5\nb,1\n")


def test_tags_named_label(tmp_path):
    text = "path,label_calm,label_sad,loud\na,1,0,1\nb,0,1,0\n"
    assert read(tmp_path, text, task="multilabel").classes == ("calm", "sad")
    with pytest.raises(BadManifest, match="0 and 1 are read with --task multilabel"):
        read(tmp_path, text)


def test_absolute_paths_need_no_root(tmp_path):
    media, lists = tmp_path / "media", tmp_path / "lists"
    for folder in (media / "x", lists):
        folder.mkdir(parents=True)
    for name in ("x/a.mp3", "b.mp3"):
        (media / name).write_bytes(b"x")
    path = save(lists, f"path,label\n{media}/x/a.mp3,calm\n{media}/b.mp3,sad\n")
    manifest = read_manifest(path)
    assert (manifest.root, manifest.clip_ids) == (media, ("x/a", "b"))
    write_manifest(manifest, lists / "again.csv")
    assert read_manifest(lists / "again.csv").digest == manifest.digest
    # Of another machine, where only the features are here.
    assert len(read(lists, "path,label\n/far/a.mp3,calm\n/far/b.mp3,sad\n")) == 2


def test_an_id_is_enough_without_media(tmp_path):
    text = "song,label\na,calm\nb,sad\n"
    manifest = read(tmp_path, text, columns={"clip_id": "song"})
    write_manifest(manifest, tmp_path / "again.csv")
    assert "path" not in (tmp_path / "again.csv").read_text()
    assert read_manifest(tmp_path / "again.csv", media=False).digest == manifest.digest
    assert check_manifest(tmp_path / "again.csv") == []
    with pytest.raises(BadManifest, match="--no-media --column clip_id=NAME"):
        read(tmp_path, text, columns={"clip_id": "song"}, media=True)
    with pytest.raises(BadManifest, match="clip_id 'a' is that of line 2"):
        read(tmp_path, "clip_id,label\na,calm\na,sad\n")


def test_clips_without_labels(tmp_path):
    manifest = read(tmp_path, "path,group\na.mp3,x\nb.mp3,y\n")
    assert (manifest.task, manifest.classes, manifest.labels.shape) == ("unlabelled", (), (2, 0))
    write_manifest(manifest, tmp_path / "again.csv")
    assert read_manifest(tmp_path / "again.csv", media=False).digest == manifest.digest
    # A column that may be the labels is not passed over.
    with pytest.raises(BadManifest, match=r"--column label=NAME, .* --task unlabelled"):
        read(tmp_path, "path,mood\na.mp3,x\nb.mp3,y\n")
    assert read(tmp_path, "path,mood\na,x\nb,y\n", task="unlabelled").task == "unlabelled"


PREDICTED = "path,model,label,confidence,calm,sad,notes,error\n"
PREDICTED += "a,mv/late,calm,0.9,0.9,0.1,,\nb,mv/late,sad,0.8,0.2,0.8,,\nc,,,,,,,broken\n"


@pytest.mark.parametrize("name", ["path", "file"])
def test_labels_that_a_model_predicted_are_named(tmp_path, name):
    text = PREDICTED.replace("path", name)
    with pytest.raises(BadManifest, match=r":4: empty label: --skip-unlabelled"):
        read(tmp_path, text)
    manifest = read(tmp_path, text, skip_unlabelled=True)
    assert (len(manifest), manifest.predicted_by) == (2, "mv")
    assert any("predictions of the model mv" in note for note in manifest.notes)
    write_manifest(manifest, tmp_path / "again.csv")
    assert read_manifest(tmp_path / "again.csv", media=False).predicted_by == "mv"
    # A true label in a column beside them is no prediction.
    rows = [f"{row},{end}" for row, end in zip(text.split(), ("truth", "x", "y", "x"), strict=True)]
    truth = read(tmp_path, "\n".join(rows), columns={"label": "truth"})
    assert (truth.classes, truth.predicted_by) == (("x", "y"), "")


def test_names_that_are_equal_in_unicode_are_one(tmp_path):
    text = "path,label,group\na,Cafe\u0301,g\nb,Caf\u00e9,g\u200b\nc,sad,h\n"
    manifest = read(tmp_path, text)
    assert (manifest.classes, manifest.groups) == (("Caf\u00e9", "sad"), ("g", "g", "h"))
    ids = "clip_id,path,label\ne\u0301,a,x\n\u00e9,b,y\n"
    with pytest.raises(BadManifest, match="that of line 2 in another form of Unicode"):
        read(tmp_path, ids)


def test_a_label_with_a_line_break(tmp_path):
    with pytest.raises(BadManifest, match=r":2: label 'a\\nb' has a line break"):
        read(tmp_path, 'path,label\nx,"a\nb"\ny,c\n')


@pytest.mark.parametrize("stated", ["sep=;", '"sep=;"'])
def test_the_separator_that_excel_states(tmp_path, stated):
    manifest = read(tmp_path, f"{stated}\npath;label\na, b;x\nb;y\n")
    assert [clip.path for clip in manifest.clips] == ["a, b", "b"]


def test_one_column_may_have_two_names(tmp_path):
    manifest = read(tmp_path, "song,label\na.mp3,x\nb.mp3,y\n",
                    columns={"path": "song", "clip_id": "song"})  # fmt: skip
    assert manifest.clip_ids == ("a.mp3", "b.mp3")

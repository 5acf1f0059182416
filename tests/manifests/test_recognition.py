"""Columns under the names that people use are recognised; what is unclear is asked for."""

import pytest

from mvemo.manifests import BadManifest, read_manifest, write_manifest
from mvemo.manifests.dimensions import rated_columns
from mvemo.manifests.recognition import recognise
from mvemo.manifests.tables import TableRows


def recognised(text, **options):
    rows = [(i, line.split(",")) for i, line in enumerate(text.split("\n"), start=1)]
    return recognise(TableRows(rows=tuple(rows)), **options)


@pytest.mark.parametrize(
    ("text", "task", "columns", "targets"),
    [
        ("path,label\na.mp3,x\nb.mp3,y", "multiclass", {"path": "path", "label": "label"}, {}),
        ("path,label,valence,arousal\na.mp3,x,1,2\nb.mp3,y,2,3", "multiclass",
         {"path": "path", "label": "label"}, {}),
        ("file,artist,set\na.mp3,x,train\nb.mp3,y,test", "unlabelled",
         {"path": "file", "group": "artist", "split": "set"}, {}),
        ("file,title,artists,length,x,y\na.mp3,p,q,99999,True,False\nb.mp3,r,s,9,False,True",
         "multilabel", {"path": "file"}, {"x": "x", "y": "y"}),
        ("file,onset,offset,moods\na.mp3,1,9,x|y\nb.mp3,2,9,z", "multilabel",
         {"path": "file", "start": "onset", "end": "offset", "label": "moods"}, {}),
        ("file,set\na.mp3,red\nb.mp3,blue", "multiclass", {"path": "file", "label": "set"}, {}),
        ("path,duration\na.mp3,long\nb.mp3,short", "multiclass",
         {"path": "path", "label": "duration"}, {}),
    ],
)  # fmt: skip
def test_columns_and_task(text, task, columns, targets):
    found = recognised(text)
    assert (found.task, dict(found.columns), dict(found.targets)) == (task, columns, targets)
    assert found.questions == ()


@pytest.mark.parametrize(
    ("mean", "deviation"),
    [
        ("valence_mean", "valence_std"), ("Valence(mean)", "Valence(std)"),
        ("ValenceMean", "valSD"), ("mean valence", "sd valence"), ("avg_val", "val_dev"),
        ("label_valence", "valence.stdev"),
        ("valence", "valence_sigma"), ("Pleasure", "pleasure_sd"),
    ],
)  # fmt: skip
def test_names_of_means_and_deviations(mean, deviation):
    means, deviations = rated_columns(["song", mean, deviation, "valence_max", "valence_n"])
    assert (means, deviations) == ({"valence": [mean]}, {"valence": deviation})


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("audio,video,mood\na.mp3,a.mp4,x\nb.mp3,b.mp4,y",
         "the paths may be 'audio' or 'video': give --column path=NAME"),
        ("path,v,a,quadrant\na.mp3,1,2,Q1\nb.mp3,2,3,Q2", "give --task regression, or --task"),
        ("wav,onset,start time,mood\na.mp3,1,9,x\nb.mp3,2,8,y",
         "the start may be 'start time' or 'onset': give --column start=NAME to 'mvemo extract'"),
        ("path,mood,emotion\na.mp3,x,z\nb.mp3,y,w", "the classes may be 'emotion' or 'mood'"),
        ("path,valence_mean,mean_valence,arousal\na.mp3,1,2,3\nb.mp3,1,2,3",
         "valence may be 'valence_mean' or 'mean_valence'"),
    ],
)  # fmt: skip
def test_what_is_unclear_is_asked_for_in_one_line(text, question):
    (asked,) = recognised(text).questions
    assert question in asked


def saved(folder, text, encoding="utf-8", name="own.csv"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


# Table -> task, classes, label and group of the first clip, and what the notes say of each column.
TEN_TABLES = [
    ("filename,mood,artist\na.mp3,calm,x\nb.mp3,sad,y\nc.mp3,sad,y\n",
     "multiclass", ("calm", "sad"), ("calm",), "x",
     ["3 files in 'filename'", "'artist' (2 groups)", "2 classes in 'mood'"]),
    ("song_id, valence_mean, valence_std, arousal_mean, arousal_std\n2,3.1,.9,3,.6\n3,3.5,1,3,2\n",
     "regression", ("valence", "arousal"), (3.1, 3.0), "2",
     ["'song_id'", "'valence_mean' (3.1 to 3.5), deviations in 'valence_std'",
      "'arousal_mean' (3 to 3), deviations in 'arousal_std'"]),
    ("File;ValMn;ValSD;AroMn;AroSD\na.wav;1,5;0,2;-2;1\nb.wav;2,5;0,3;1,25;1\n",
     "regression", ("valence", "arousal"), (1.5, -2.0), "a",
     ["2 files in 'File'", "'ValMn' (1.5 to 2.5), deviations in 'ValSD'", "'AroMn' (-2 to 1.25)"]),
    ("id\tfilepath\tlabel_valence\tlabel_arousal\n7\tx/a.mp3\t.2\t1\n8\tx/b.mp3\t.3\t0\n",
     "regression", ("valence", "arousal"), (0.2, 1.0), "7",
     ["2 files in 'filepath'", "column 'id'", "'label_valence'", "'label_arousal'"]),
    ("audio_path,V,A,singer\na.ogg,1,5,s\nb.ogg,2,3,t\n",
     "regression", ("valence", "arousal"), (1.0, 5.0), "s",
     ["'audio_path'", "'singer' (2 groups)", "'V' (1 to 2)", "'A' (3 to 5)"]),
    ("track,tags,album\na.mp3,happy|calm,x\nb.mp3,sad|happy,y\n",
     "multilabel", ("calm", "happy", "sad"), ("calm", "happy"), "x",
     ["2 files in 'track'", "'album' (2 groups)", "tags in 'tags'", "separated by '|'"]),
    ("wav,happy,sad,tense,cv_fold\na.wav,1,0,1,0\nb.wav,0,1,0,1\n",
     "multilabel", ("happy", "sad", "tense"), ("happy", "tense"), "a",
     ["2 files in 'wav'", "column 'cv_fold'", "3 columns of 0 and 1, 'happy', 'sad', 'tense'"]),
    ("path,label_calm,label_sad,loud\na.mp3,1,0,1\nb.mp3,0,1,1\n",
     "multilabel", ("calm", "sad"), ("calm",), "a",
     ["2 columns of 0 and 1, 'label_calm', 'label_sad'", "not used: 'loud'"]),
    ("Video File,Emotion,Subset,Composer\na.mp4,joy,train,x\nb.mp4,fear,test,x\nc.mp4,joy,test,y\n",
     "multiclass", ("fear", "joy"), ("joy",), "x",
     ["'Video File'", "'Composer' (2 groups)", "column 'Subset'", "2 classes in 'Emotion'"]),
    ("location,start_time,length,quadrant,song\na.mp3,0,30,1,x\na.mp3,30,30,4,x\nb.mp3,0,30,1,y\n",
     "multiclass", ("1", "4"), ("1",), "x",
     ["2 files in 'location'", "'song' (2 groups)", "'start_time'", "'length'",
      "2 classes in 'quadrant'"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "task", "classes", "label", "group", "notes"), TEN_TABLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_ten_tables_of_users(tmp_path, encoding, text, task, classes, label, group, notes):
    manifest = read_manifest(saved(tmp_path, text, encoding), media=False)
    first = manifest.clips[0]
    assert (manifest.task, manifest.classes) == (task, classes)
    assert (first.label, first.group) == (label, group)
    for note, part in zip(manifest.notes, notes, strict=True):
        assert part in note
    write_manifest(manifest, tmp_path / "again.csv")
    again = read_manifest(tmp_path / "again.csv", media=False)
    assert (again.digest, again.notes) == (manifest.digest, ())
    assert [clip.extra for clip in again.clips] == [clip.extra for clip in manifest.clips]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("path,genre,happy,sad\na.mp3,x,1,0\nb.mp3,y,0,1\n", {}, "--task multiclass, or --task"),
        ("path,loud,title\na.mp3,1,x\nb.mp3,0,x\n", {}, "in 'loud': give --task multilabel"),
        ("path,bpm,title\na.mp3,1,x\nb.mp3,9,x\n", {}, "no labels were recognised in 'bpm': name"),
        ("path,std_valence\na.mp3,1\nb.mp3,9\n", {}, "no labels were recognised in 'std_valence'"),
        ("song,style,va_m\ns1,x,1\ns2,y,1\n", {}, r"no column 'path'; it has \['song', 'style'"),
        ("path,label_loud\na.mp3,1\nb.mp3,0\n", {}, "0 and 1 in 'label_loud': give --task multil"),
        ("DS1/,joy,joy\nDS1/,joy,joy\nDS1/,fear,joy\n", {}, "write names above them"),
        ("path,mood,Path\na.mp3,x,b.mp3\nb.mp3,y,c.mp3\n", {"columns": {"mood": "mood"}},
         "unknown column to map 'mood'"),
        ("file,start,end,duration,mood\na.mp3,1,3,30,x\nb.mp3,4,6,30,y\n", {},
         "give --column end="),
        ("file,start,end,mood\na.mp3,1,3,x\nb.mp3,4,3,y\n", {},
         "end 3: it must be above 4 seconds"),
        ("file,start,stop,mood\na.mp3,1,3,x\nb.mp3,4,n/a,y\n", {}, "end 'n/a' is not a number"),
        ('clip_id,valence,arousal\na,"1,234",3\nb,2,4\n', {}, "'1,234' is not a number"),
        ("clip_id;valence;arousal\na;1,234;3\nb;2500;4\n", {}, "'1,234' is not a number"),
        ("clip_id,label\na,1-Feb\nb,x\n", {}, "1 cells of 'label' are dates"),
        ("clip_id,label,group\na,x,g\nb,y,#N/A\n", {}, "empty group"),
        ("clip_id,label\na,x\nb,null\nc,y\n", {}, "empty label: leave the row out"),
        ("clip_id,valence,arousal\na,50%,3\nb,20,4\n", {}, "valence '50%' is not a number"),
        ("clip_id,valence,arousal\na,\u22125,3\nb,-2,4\n", {}, "'\u22125' is not a number"),
        ("clip_id;label\na;('x', 'y')\nb;x\n", {}, "is not a JSON list"),
        ('clip_id;label\na;{"x": 1}\nb;y\n', {}, "has no list of 'choices'"),
    ],
)  # fmt: skip
def test_tables_that_need_an_answer(tmp_path, text, options, message):
    with pytest.raises(BadManifest, match=f"^[^\n]*{message}[^\n]*$"):
        read_manifest(saved(tmp_path, text), media=False, **options)


def test_options_win(tmp_path):
    text = "path,valence,valence_mean,mean_valence,arousal,mood\na.mp3,1,2,3,4,x\nb.mp3,2,3,4,5,y\n"
    path = saved(tmp_path, text)

    def read(**options):
        manifest = read_manifest(path, media=False, **options)
        return manifest.task, manifest.classes, manifest.clips[0].label

    named = {"valence": "mean_valence"}
    assert read(columns=named) == ("regression", ("valence", "arousal"), (3.0, 4.0))
    assert read(columns=named, task="regression")[1:] == (("valence",), (3.0,))
    assert read(task="multiclass") == ("multiclass", ("x", "y"), ("x",))
    assert read(columns={"label": "mood"})[2] == ("x",)
    assert read(task="unlabelled") == ("unlabelled", (), ())
    assert read(separator="/")[0] == "multilabel"


def test_kinds_are_recognised_from_all_over_a_long_table(tmp_path):
    rows = [f"{i}.mp3,{'calm' if i < 1500 else 'sad'}\n" for i in range(3000)]
    manifest = read_manifest(saved(tmp_path, "file,style\n" + "".join(rows)), media=False)
    assert manifest.classes == ("calm", "sad")


def test_paths_above_the_table_need_no_root_if_all_files_exist(tmp_path):
    for name in ("lists", "songs", "songs/x"):
        (tmp_path / name).mkdir()
    for name in ("songs/a.mp3", "songs/x/b.mp3"):
        (tmp_path / name).write_bytes(b"x")
    text = f"file,mood\n../songs/a.mp3,calm\n{tmp_path}/songs/x/b.mp3,sad\n"
    path = saved(tmp_path / "lists", text)
    manifest = read_manifest(path)
    assert (manifest.root, manifest.clip_ids) == (tmp_path / "songs", ("a", "x/b"))
    with pytest.raises(BadManifest, match="none of the 2 paths is below the media root"):
        read_manifest(path, root=tmp_path / "lists")
    (tmp_path / "songs/a.mp3").unlink()
    with pytest.raises(BadManifest, match="none of the 2 paths is below"):
        read_manifest(path, media=False)


# Table -> options, labels, starts and durations, and parts of the notes.
READ = [
    ("file,start,stop,mood\na.mp3,1,3,x\na.mp3,4,6.5,y\n", {}, ["x", "y"],
     [(1, 2), (4, 2.5)], ["'stop' minus 'start'"]),
    ("file;onset;offset;mood\na.mp3;1,5;3,25;x\na.mp3;4;6;y\n", {}, ["x", "y"],
     [(1.5, 1.75), (4, 2)], ["'offset' minus 'onset'"]),
    ("file,offset,duration,mood\na.mp3,1,3,x\na.mp3,4,1,y\n", {}, ["x", "y"],
     [(1, 3), (4, 1)], ["start: column 'offset'"]),
    ("file,start,offset,mood\na.mp3,1,.5,x\na.mp3,4,.5,y\n", {}, ["x", "y"],
     [(1, None), (4, None)], ["not used: 'offset'"]),
    ("file,start,end,duration,mood\na.mp3,1,3,30,x\na.mp3,4,6,30,y\n", {"columns": {"end": "end"}},
     ["x", "y"], [(1, 2), (4, 2)], ["not used: 'duration'"]),
    ("file,end,mood\na.mp3,30,x\nb.mp3,20,y\n", {}, ["x", "y"], [(0, 30), (0, 20)], ["minus 0"]),
    ("clip_id,label\na,0\nb,0.0\nc,1.0\nd,1\n", {}, ["0", "0", "1", "1"], None, ["'0.0' as '0'"]),
    ("clip_id,label\na,calm;\nb,calm\nc,sad\n", {}, ["calm", "calm", "sad"], None,
     ["'calm;' as 'calm'"]),
    ('clip_id;mood\na;["x","y"]\nb;{"choices": "x"}\nc;y\n', {}, ["x;y", "x", "y"], None,
     ["label: tags in 'mood'"]),
    ('clip_id;mood\na;{"choices": ["x"]}\nb;y\n', {"task": "multiclass"}, ["x", "y"], None, []),
    ('clip_id,valence,arousal\na,"3,5",1\nb,"2,75",2\n', {}, [(3.5, 1), (2.75, 2)], None, []),
    ("clip_id;valence;arousal\na;1,234;1\nb;2,5;2\n", {}, [(1.234, 1), (2.5, 2)], None, []),
    ('clip_id,tags\na,"x,y"\nb,z\n', {}, ["x;y", "z"], None, []),
    ("clip_id,label\na,x\nb,nan\nc,y\n", {"skip_unlabelled": True}, ["x", "y"], None,
     ["'nan' in 1 rows"]),
    ("clip_id,label,song\n0,x,1-Feb\n1,y,b\n2,y,b\n", {}, ["x", "y", "y"], None,
     ["group: a spreadsheet may have made dates of other text, as '1-Feb'"]),
    ("clip_id,label,Film,year\na,x,F1,1\nb,y,F2,2\nc,x,F1,2\nd,y,F3,1\n", {}, ["x", "y", "x", "y"],
     None, ["which may be in 'Film' (3 groups)", "not used: 'Film', 'year'"]),
    ("clip_id,label,valence,arousal\na,x,3,4\nb,y,5,6\n", {}, ["x", "y"], None,
     ["ratings in 'valence', 'arousal' are kept; to use them: --task regression"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "options", "labels", "stretches", "notes"), READ)
def test_cells_are_read_by_the_meaning_of_their_column(
    tmp_path, text, options, labels, stretches, notes
):
    manifest = read_manifest(saved(tmp_path, text), media=False, **options)
    joined = [";".join(c.label) if isinstance(c.label[0], str) else c.label for c in manifest.clips]
    assert joined == labels
    if stretches:
        assert [(clip.start, clip.duration) for clip in manifest.clips] == stretches
    for part in notes:
        assert part in " ".join(manifest.notes)


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("clip_id,label\na,x/y\nb,y/z\nc,x\nd,z/x\n", "several tags in a cell, --separator '/'"),
        ("clip_id,label\na,x\nb,X\n", "some classes differ only in case: 'X', 'x'"),
        ("file,t_start,t_end,mood\na.mp3,1,3,x\nb.mp3,4,,y\n", "1 rows without an end last"),
        ('clip_id,valence,arousal\na,"2,5",1\nb,2.5,1\n', "has decimal commas and points"),
        *((f"clip_id,label,artist\na,x,p\nb,y,{word}\nc,x,{word}\n",
           f"'artist' is not used as group: it has 2 empty cells (of them {word!r})")
          for word in ("NaN", "None", "NA", "null", "#N/A", "-", "<NA>")),
    ],
)  # fmt: skip
def test_what_cells_may_also_mean_is_noted(tmp_path, text, note):
    manifest = read_manifest(saved(tmp_path, text), media=False)
    assert manifest.groups == manifest.clip_ids
    assert note in " ".join(manifest.notes)


def test_a_column_under_our_own_name_is_not_listed_as_unused(tmp_path):
    text = "clip_id,label,split,year\na,x,train,1\nb,y,hold-out,2\n"
    notes = read_manifest(saved(tmp_path, text), media=False).notes
    assert notes == ("columns that are not used: 'year'",)


def test_moods_and_ratings_stay_in_one_manifest(tmp_path):
    text = "file,mood,valence,arousal,valence_std\na.mp3,x,3,4,1\nb.mp3,y,5,6,2\n"
    moods = read_manifest(saved(tmp_path, text), task="multiclass", media=False)
    path = tmp_path / "clips.csv"
    for task, labels in (
        ("multiclass", [("x",), ("y",)]),
        ("regression", [(3, 4), (5, 6)]),
        ("multiclass", [("x",), ("y",)]),
    ):
        write_manifest(moods, path)
        moods = read_manifest(path, task=task, media=False)
        assert [clip.label for clip in moods.clips] == labels
        assert dict(moods.clips[1].extra)["valence deviation"] == "2"

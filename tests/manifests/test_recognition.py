"""Columns under the names that people use are recognised; what is unclear is asked for."""

import pytest

from mvemo.manifests.recognition import rated_columns, recognise


def recognised(text, **options):
    header, *rows = [line.split(",") for line in text.split("\n")]
    return recognise(header, lambda name: [row[header.index(name)] for row in rows], **options)


@pytest.mark.parametrize(
    ("text", "task", "columns", "targets"),
    [
        ("path,label\na.mp3,x\nb.mp3,y", "multiclass", {"path": "path", "label": "label"}, {}),
        ("filename,mood,artist\na.mp3,calm,x\nb.mp3,tense,y", "multiclass",
         {"path": "filename", "label": "mood", "group": "artist"}, {}),
        ("track,tags,album\na.mp3,happy;calm,x\nb.mp3,sad;happy,y", "multilabel",
         {"path": "track", "label": "tags", "group": "album"}, {}),
        ("wav,happy,sad\na.wav,1,0\nb.wav,0,1", "multilabel", {"path": "wav"},
         {"happy": "happy", "sad": "sad"}),
        ("song_id,mean_arousal,std_arousal,mean_valence\n2,1,.2,3\n3,2,.1,4", "regression",
         {"clip_id": "song_id"}, {"arousal": "mean_arousal", "valence": "mean_valence"}),
        ("path,v,a\na.mp3,1,2\nb.mp3,2,3", "regression", {"path": "path"},
         {"valence": "v", "arousal": "a"}),
        ("path,label,valence,arousal\na.mp3,x,1,2\nb.mp3,y,2,3", "multiclass",
         {"path": "path", "label": "label"}, {}),
        ("file,artist,set\na.mp3,x,train\nb.mp3,y,test", "unlabelled",
         {"path": "file", "group": "artist", "split": "set"}, {}),
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
        ("path,mood,emotion\na.mp3,x,z\nb.mp3,y,w", "the classes may be 'emotion' or 'mood'"),
        ("path,valence_mean,mean_valence,arousal\na.mp3,1,2,3\nb.mp3,1,2,3",
         "valence may be 'valence_mean' or 'mean_valence'"),
    ],
)  # fmt: skip
def test_what_is_unclear_is_asked_for_in_one_line(text, question):
    (asked,) = recognised(text).questions
    assert question in asked


def test_answers_of_the_user_are_followed():
    text = "audio,video,v,a,quadrant\na.mp3,a.mp4,1,2,Q1\nb.mp3,b.mp4,2,3,Q2"
    found = recognised(text, given={"path": "video"}, task="regression")
    assert (found.task, found.columns["path"], found.questions) == ("regression", "video", ())
    found = recognised(text, given={"path": "audio", "label": "quadrant"})
    assert (found.task, found.columns["label"], found.questions) == ("multiclass", "quadrant", ())


def test_notes_state_the_column_the_counts_and_the_option():
    found = recognised("file,valence_mean,arousal_mean,singer\na.mp3,1.5,2,x\nb.mp3,8,3,y")
    assert found.notes == (
        "path: 2 files in 'file'; another column: --column path=NAME",
        "group: column 'singer' (2 groups); another column: --column group=NAME",
        "valence: ratings in 'valence_mean' (1.5 to 8); another column: --column valence=NAME",
        "arousal: ratings in 'arousal_mean' (2 to 3); another column: --column arousal=NAME",
    )

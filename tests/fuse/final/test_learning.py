"""Learning from corrections: known answers for models that are wrong in known ways."""

from dataclasses import replace

import numpy as np
import pytest
from typed_records import misfits

from mvemo.cache import CacheWriter, ClipTable, FeatureSpec, open_cache
from mvemo.fuse import BadFeatures, EvaluationSettings, evaluate
from mvemo.fuse.final.building import build_model
from mvemo.fuse.final.learning import LearnScore, learn
from mvemo.fuse.final.model_files import load_model, save_model
from mvemo.manifests import Clip, Manifest, write_manifest

CLASSES = ("calm", "joy", "tense")
N_OWN, N = 60, 160  # clips of the model; with those of the catalogue
SPEC = FeatureSpec("timbre", "audio", "vector", 8, "net:timbre", 1, {}, "w" * 64, "frozen")


def digest(row):
    return f"{row:064x}"


@pytest.fixture(scope="module")
def plane():
    """Return features, float32 (clips, 8), and the three positions that they have."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(3, size=N)
    means = 2.5 * rng.normal(size=(3, 8))
    return (means[kinds] + rng.normal(size=(N, 8))).astype("f4"), kinds


def labels_of(task, kinds):
    if task == "multiclass":
        return kinds
    shape = kinds[:, None] == np.arange(2)
    return shape.astype(int) if task == "multilabel" else kinds[:, None] * [1.0, -2.0] + 4


def write(path, spec, values, rows, task, classes, labels):
    n = len(rows)
    table = ClipTable(
        name="catalogue" if not classes else "made",
        task=task,
        classes=classes,
        clip_ids=tuple(map(digest, rows)),
        groups=tuple(f"/songs/{row}.mp3" for row in rows),
        labels=labels,
        folds=np.full(n, -1),
        k=0,
    )
    with CacheWriter(path, table) as writer:
        for row in rows:
            writer.put(spec, digest(row), spec.key(digest(row)), values[row])


@pytest.fixture(scope="module", params=["multiclass", "multilabel", "regression"])
def made(request, tmp_path_factory, plane):
    """Return the folder of a model, its features, and a catalogue of other clips; and the task."""
    return request.param, make(request.param, tmp_path_factory.mktemp("learn"), plane)


def make(task, folder, plane):
    values, kinds = plane
    classes = CLASSES if task == "multiclass" else CLASSES[:2]
    # The catalogue has some clips of the model, too.
    own, others = np.arange(N_OWN), np.arange(N_OWN - 6, N)
    write(folder / "own.h5", SPEC, values, own, task, classes, labels_of(task, kinds)[own])
    windows = replace(SPEC, params={"windows": [30.0, "mean", 20]}, protocol="none")
    none = np.zeros((len(others), 0), int)
    write(folder / "songs.h5", windows, values, others, "multilabel", (), none)
    with open_cache(folder / "own.h5") as cache:
        settings = EvaluationSettings(folds=4, refit=True, kernel=False, audit=False, n_resamples=0)
        save_model(folder / "model", build_model(cache, evaluate(cache, settings), settings))
    return folder


def correct(folder, task, rows, labels, classes=None, **columns):
    """Write corrections of these rows."""
    classes = classes or (CLASSES if task == "multiclass" else CLASSES[:2])
    clips = []
    for row, label in zip(rows, labels, strict=True):
        if task == "multiclass":
            label = (classes[label],)
        elif task == "multilabel":
            label = tuple(c for c, yes in zip(classes, label, strict=True) if yes)
        extra = {
            "content": digest(row),
            "annotator": "Ana",
            **{k: v(row) for k, v in columns.items()},
        }
        clips.append(
            Clip(f"c{row}", f"{row}.mp3", tuple(label), f"g{row}", extra=(*extra.items(),))
        )
    path = folder / "corrections.csv"
    write_manifest(Manifest("made", task, classes, tuple(clips), folder), path)
    return path


def learned(folder, path, **options):
    files = {"model": folder / "model", "out": folder / "new"}
    return learn(path, folder / "songs.h5", **{**files, **options})


def wrong(task, kinds):
    """Return what people say instead of the model: two classes swapped, or another scale."""
    if task == "regression":
        return labels_of(task, kinds) * -0.5 + 3
    return labels_of(task, np.array([1, 0, 2])[kinds])


ROWS = np.arange(N_OWN, N_OWN + 36)


def test_a_systematic_error_is_mended(made, plane):
    task, folder = made
    path = correct(folder, task, ROWS, wrong(task, plane[1])[ROWS])
    result = learned(folder, path)
    assert misfits([result.before, result.after], list[LearnScore]) == []
    assert result.after["score"] > max(0.7, result.before["score"] + 0.3)
    assert result.interval[0] > 0
    assert (result.enough, result.better, result.n_corrections) == (True, True, len(ROWS))
    assert "The new model is better" in result.text
    assert "selected sample" in result.text
    new = load_model(folder / "new")
    assert new.facts["learned_from"]["annotators"] == ["Ana"]
    assert new.trained_on(digest(ROWS[0]), 0.0, None)
    with pytest.raises(BadFeatures, match="was itself learned from corrections: give its base"):
        learned(folder, path, model=folder / "new", out=folder / "newer")


@pytest.mark.parametrize("training", [False, True])
def test_shuffled_corrections_are_not_enough(made, plane, training):
    task, folder = made
    rng = np.random.default_rng(4)
    rows = rng.permutation(np.arange(N_OWN, N))[:40]
    labels = labels_of(task, plane[1])[rng.permutation(rows)]
    path = correct(folder, task, rows, labels)
    result = learned(folder, path, training=folder / "own.h5" if training else None)
    assert not result.better
    if not training and task != "regression":
        assert "answers as the old one" in result.text
        (old, *_), (new, *_) = (load_model(folder / n).heads.heads for n in ("model", "new"))
        np.testing.assert_array_equal(new.coef, old.coef)


def test_confirmed_predictions_change_nothing_of_note(made, plane):
    task, folder = made
    labels = labels_of(task, plane[1])[ROWS]
    result = learned(folder, correct(folder, task, ROWS, labels))
    assert result.after["score"] >= result.before["score"] - 0.02
    assert not result.enough
    assert "the interval includes 0" in result.text


def test_own_clips_are_trained_on_as_well(made, plane):
    task, folder = made
    labels = labels_of(task, plane[1])[ROWS]
    path = correct(folder, task, ROWS, labels)
    result = learned(folder, path, training=folder / "own.h5")
    new = load_model(folder / "new")
    assert new.facts["n_clips"] == N_OWN + len(ROWS)
    assert new.specs == load_model(folder / "model").specs
    assert result.after["score"] > 0.85
    other = folder / "songs.h5"
    with pytest.raises(BadFeatures, match="expected the features that made was made from"):
        learned(folder, path, training=other)


# --- one task is enough


@pytest.fixture(scope="module")
def classes(tmp_path_factory, plane):
    return make("multiclass", tmp_path_factory.mktemp("classes"), plane)


def test_unsure_corrections_and_own_clips_are_not_scored(classes, plane):
    rows = np.arange(N_OWN - 6, N_OWN + 24)
    unsure = {"unsure": lambda row: "1" if row >= N_OWN + 14 else ""}
    path = correct(classes, "multiclass", rows, plane[1][rows], **unsure)
    result = learned(classes, path)
    assert (result.before["clips"], result.n_corrections) == (14, 30)
    every = {"unsure": lambda row: "1"}
    result = learned(classes, correct(classes, "multiclass", rows, plane[1][rows], **every))
    assert (result.before, result.interval, result.enough) == (None, None, False)
    assert "None of the 30 corrected clips can be scored" in result.text


def test_few_corrections_of_a_class_are_not_enough(classes, plane):
    joys = [row for row in range(N_OWN, N) if plane[1][row] == 1][:8]
    calm = [row for row in range(N_OWN, N) if plane[1][row] == 0][:2]
    rows = np.array([*joys, *calm])
    result = learned(classes, correct(classes, "multiclass", rows, plane[1][rows]))
    assert not result.enough
    assert result.needed == 3
    assert "3 more needed (calm: 3)" in result.text


def test_a_new_class_needs_the_own_clips_and_five_clips(classes, plane):
    names = (*CLASSES, "odd")
    labels = plane[1].copy()
    labels[[row for row in ROWS if plane[1][row] == 2]] = 3
    path = correct(classes, "multiclass", ROWS, labels[ROWS], names)
    with pytest.raises(BadFeatures, match=r"'odd' is not a class of .*needs --training and 5"):
        learned(classes, path)
    result = learned(classes, path, training=classes / "own.h5")
    assert load_model(classes / "new").classes == names
    assert result.before["score"] < 0.8


def test_clips_are_found_by_their_paths(classes, plane):
    path = correct(classes, "multiclass", ROWS, plane[1][ROWS], content=lambda row: "")
    path.write_text(path.read_text().replace('""root"": "".""', '""root"": ""/songs""'))
    assert learned(classes, path).n_corrections == len(ROWS)


def test_what_does_not_fit_is_refused_in_one_line(classes, plane, made):
    task, folder = made
    path = correct(classes, "multiclass", ROWS, plane[1][ROWS], content=lambda row: "?")
    with pytest.raises(BadFeatures, match=r"none of its 36 clips is in .*songs.h5: predict them"):
        learned(classes, path)
    path = correct(classes, "multiclass", ROWS, plane[1][ROWS])
    changed = replace(load_model(classes / "model"), specs=(replace(SPEC, weights="v" * 64),))
    save_model(classes / "other", changed)
    with pytest.raises(BadFeatures, match="timbre is missing or from another model"):
        learned(classes, path, model=classes / "other")
    if task != "multiclass":
        with pytest.raises(BadFeatures, match=f"expected labels of task {task}"):
            learned(classes, path, model=folder / "model")


def test_missing_labels_are_named(made, plane):
    task, folder = made
    path = folder / "unlabelled.csv"
    path.write_text("clip_id,path\na,a.mp3\n")
    with pytest.raises(BadFeatures, match=r"has no labels: expected some of \w+, \w+"):
        learned(folder, path)
    if task == "regression":
        path.write_text(
            "# task: regression\n# classes: calm\nclip_id,path,group,calm\na,a.mp3,g,1.5\n"
        )
        with pytest.raises(BadFeatures, match=r"expected the targets \w+, \w+, got calm"):
            learned(folder, path)

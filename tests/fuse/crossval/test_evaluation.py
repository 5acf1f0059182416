"""Cross-validation of any task: as scikit-learn does it, honest, at chance on random labels."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import crossfit_cache, features, frozen_cache, make_table, spec, write_cache
from fuse_samples import by_name, evaluated, primary
from hypothesis import given
from hypothesis import strategies as st
from output_samples import (
    output_cache,
    output_features,
    task_cache,
    task_crossfit_cache,
    task_table,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, f1_score, r2_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_info, threadpool_limits

from mvemo.cache import open_cache
from mvemo.fuse import BadFeatures, HeadSettings, LeakError, evaluate, format_table, metrics_dict
from mvemo.fuse.audit import Finding, label_blocks
from mvemo.fuse.crossval import evaluation
from mvemo.fuse.crossval.evaluation import chance_p, random_labels
from mvemo.fuse.metrics.scores import best_thresholds
from mvemo.fuse.models import LATE, STACKED
from mvemo.fuse.report.summary import recommend
from mvemo.manifests import make_folds

TASKS = ("multiclass", "multilabel", "regression")
CHANCE = {"multiclass": 1 / 6, "multilabel": 0.5, "regression": 0.0}


@pytest.fixture(scope="module", params=TASKS)
def made(request, tmp_path_factory):
    """A task's table, its features, and the results of 90 clips."""
    table, names = task_table(request.param, n=90), ("music1d", "c3d")
    path = tmp_path_factory.mktemp("made") / "f.h5"
    if request.param == "multiclass":
        frozen_cache(path, table, names=names, strength=0.4)
    else:
        output_cache(path, table, names=names, noise=3.0)
    with open_cache(path) as cache:
        x = {name: cache.vectors(name, 0)[0] for name in names}
    return table, x, evaluated(path, C=0.1, n_resamples=100)


def predicted(x, y, train, C=0.1, scaled_on=None):
    """Outputs of scikit-learn's models for all clips."""
    z = StandardScaler().fit(x[train if scaled_on is None else scaled_on]).transform(x)
    if y.dtype == float:
        return Ridge(alpha=1 / C, tol=1e-10).fit(z[train], y[train]).predict(z)
    model = LogisticRegression(C=C, tol=1e-8, max_iter=2000)
    if y.ndim == 1:
        return model.fit(z[train], y[train]).predict_proba(z)
    return np.stack([model.fit(z[train], tag[train]).predict_proba(z)[:, 1] for tag in y.T], 1)


def straddles(groups, folds):
    """Return True if the clips of a group are in several folds."""
    return len(set(zip(groups, folds, strict=True))) > len(set(groups))


def test_outputs_and_scores_are_scikit_learns(made):
    table, x, results = made
    y, folds = table.labels, [table.folds == fold for fold in range(3)]
    assert [m.name for m in results.models] == ["music1d", "c3d", "c3d+music1d", "integrated"]
    score = {
        "multiclass": lambda y, p: np.mean(p.argmax(1) == y),
        "multilabel": roc_auc_score,
        "regression": r2_score,
    }[table.task]
    for model in results.models:
        joined = np.concatenate([x[name] for name in model.features], axis=1)
        for test in folds:
            # Stopped at a gradient of 1e-4.
            expected = predicted(joined, y, ~test)[test]
            if table.task == "regression":
                expected = np.clip(expected, y[~test].min(axis=0), y[~test].max(axis=0))
            np.testing.assert_allclose(model.outputs[test], expected, atol=5e-3)
        np.testing.assert_allclose(primary(model), [score(y[r], model.outputs[r]) for r in folds])
        pooled = model.scores[results.task.primary_metric]
        assert pooled == pytest.approx(score(y, model.outputs))
        low, high = model.intervals[results.task.primary_interval[0]]
        assert low < (pooled if table.task == "regression" else primary(model).mean()) < high
    # The baseline knows only the labels of the training clips.
    for test in folds:
        expected = y[~test].mean(axis=0)
        if table.task == "multiclass":
            expected = np.eye(6)[np.bincount(y[~test]).argmax()]
        outputs = results.baseline.outputs[test]
        np.testing.assert_allclose(outputs, np.broadcast_to(expected, outputs.shape))


@pytest.mark.parametrize("made", ["multilabel"], indirect=True)
def test_thresholds_of_tags_rest_on_inner_folds_of_the_training_clips(made):
    table, x, results = made
    y, model, off = table.labels, results.models[2], []
    joined = np.concatenate([x[name] for name in model.features], axis=1)
    for fold in range(3):
        rows = np.flatnonzero(table.folds != fold)
        groups = [table.groups[i] for i in rows]
        inner = make_folds(y[rows], groups, 3, 0, "multilabel")
        assert not straddles(groups, inner)
        held = np.full((len(rows), 3), np.nan)
        for j in range(3):
            of_others = predicted(joined[rows], y[rows], inner != j, scaled_on=inner >= 0)
            held[inner == j] = of_others[inner == j]
        off.append(np.abs(model.thresholds[fold] - best_thresholds(held, y[rows])))
    # Of thresholds with nearly the same F1, another may win by a rounding error.
    assert (np.stack(off) < 2e-3).mean() > 0.7
    decided = model.outputs >= model.thresholds[table.folds]
    np.testing.assert_array_equal(model.y_pred, decided)
    assert model.scores["f1_micro"] == pytest.approx(f1_score(y, decided, average="micro"))
    rows = table.folds == 2
    expected = average_precision_score(y[rows], model.outputs[rows], average=None)
    np.testing.assert_allclose(model.per_output_fold["average_precision"][2], expected)
    # The baseline says each tag always: its recall is 1.
    np.testing.assert_allclose(results.baseline.per_output["recall"], 1.0)


@pytest.mark.parametrize(
    ("task", "make"), [*((task, task_cache) for task in TASKS), ("multiclass", task_crossfit_cache)]
)
def test_permuted_labels_are_at_chance(task, make, tmp_path):
    path = make(tmp_path / "f.h5", task_table(task, n=240), names=("music1d", "music2d", "c3d"))
    head = HeadSettings(choose_C=make is task_crossfit_cache)
    options = {"stacked": True, "late": True, "choose_model": True, "head": head}
    real = evaluated(path, **options)
    found = by_name(real)
    best = max(primary(m).mean() for m in found.values())
    singles = [primary(m).mean() for m in found.values() if len(m.features) == 1]
    pairs = [primary(m).mean() for m in found.values() if "+" in m.name]
    assert primary(found[STACKED]).mean() > max(pairs) - 0.02
    assert primary(found[LATE]).mean() > max(singles) - 0.02
    assert all(np.isfinite(m.outputs).all() for m in real.models)
    assert primary(real.choice.nested).mean() > best - 0.1
    assert "Use " in recommend(real)
    # One shuffle may be lucky.
    several = [evaluated(path, permute_labels=True, seed=seed, **options) for seed in range(2)]
    assert several[0].permuted
    assert (several[0].y_true != real.y_true).any()
    for i in range(len(real.models)):
        score = np.mean([primary(one.models[i]).mean() for one in several])
        low = 0.3 if task == "regression" else 0.08
        assert CHANCE[task] - low < score < CHANCE[task] + 0.08, real.models[i].name
    assert primary(several[0].choice.nested).mean() < CHANCE[task] + 0.15
    if task == "multiclass":
        assert recommend(several[0]) == ""


@pytest.mark.parametrize("task", TASKS)
def test_labels_of_a_fold_have_no_part_in_its_predictions(task, tmp_path):
    table = task_table(task, n=60)
    changed = table.labels.copy()
    test = table.folds == 0
    changed[test] = (changed[test] + 1) % 6 if task == "multiclass" else 1 - changed[test]
    made = features if task == "multiclass" else output_features
    vectors = [(spec(name, 8), made(table, name)[:, :8]) for name in ("music1d", "c3d")]
    runs = []
    for i, labels in enumerate((table.labels, changed)):
        path = write_cache(tmp_path / f"{i}.h5", replace(table, labels=labels), vectors)
        options = ("stacked", "late", "kernel", "choose_model", "temperature")
        runs.append(evaluated(path, head=HeadSettings(), **dict.fromkeys(options, True)))
    for a, b in zip(runs[0].models, runs[1].models, strict=True):
        np.testing.assert_allclose(a.outputs[test], b.outputs[test], atol=2e-3)
        assert (a.outputs[~test] != b.outputs[~test]).any()
        if task == "multilabel":
            np.testing.assert_allclose(a.thresholds[0], b.thresholds[0], atol=2e-3)
    one, two = (run.choice for run in runs)
    assert one.inside[0] == two.inside[0]
    np.testing.assert_allclose(one.nested.outputs[test], two.nested.outputs[test], atol=2e-3)


def test_crossfit_uses_each_folds_own_nets(tmp_path):
    results = evaluated(crossfit_cache(tmp_path / "f.h5", strength=1.5))
    assert results.protocol == "crossfit"
    assert not results.leaky
    # Each net has a basis of its own: features of another fold's net would be noise.
    assert np.mean(results.models[-1].per_fold["accuracy"]) > 0.7
    assert {h.net_fold for h in results.heads} == set(range(6))


@pytest.mark.parametrize("task", TASKS)
def test_a_net_that_saw_its_test_clips_is_refused(task, tmp_path):
    table = task_table(task, k=6)
    made = features if task == "multiclass" else output_features
    n = [int((table.folds == fold).sum()) for fold in range(6)]
    leaky = spec("c3d", 8, "shared", None, table.clip_ids)
    path = write_cache(tmp_path / "f.h5", table, [(leaky, made(table, "c3d")[:, :8])])
    message = rf"c3d was trained on {n[0]} of the {n[0]} clips of fold 0.*--protocol shared"
    with pytest.raises(LeakError, match=message):
        evaluated(path)
    results = evaluated(path, allow_leak=True)
    assert results.leaky
    assert results.protocol == "shared"
    # Called frozen, but its record says that it saw one clip: the record counts, for its group.
    one = table.clip_ids[int(np.flatnonzero(table.folds == 2)[0])]
    seen = spec("c3d", 8, "frozen", None, (one,))
    path = write_cache(tmp_path / "g.h5", table, [(seen, made(table, "c3d")[:, :8])])
    with pytest.raises(LeakError, match=f"trained on 2 of the {n[2]} clips of fold 2"):
        evaluated(path)


@pytest.mark.parametrize("task", TASKS)
def test_folds_follow_the_features(task, tmp_path):
    table = task_table(task, n=90)
    path = task_crossfit_cache(tmp_path / "c.h5", table, ("music1d",))
    with pytest.raises(BadFeatures, match=r"trained for 3 folds, not 5: give --folds 3"):
        evaluated(path, folds=5)
    results = evaluated(path, refit=True)
    assert [h.net_fold for h in results.heads if h.fold is None] == [0, 1, 2]
    assert results.models[0].valid.all()
    frozen = task_cache(tmp_path / "f.h5", table, names=("c3d",))
    assert (evaluated(frozen).folds == table.folds).all()
    if task == "regression":
        # The scale of the settings goes before that of the cache.
        assert evaluated(frozen, scale="-3..1").task.plane.centre == (-1.0, -1.0)
    other, five = evaluated(frozen, seed=7), evaluated(frozen, folds=5)
    assert (other.folds != table.folds).any()
    assert set(five.folds.tolist()) == set(range(5))
    for results in (other, five):
        assert not straddles(results.groups, results.folds.tolist())


def test_a_cache_that_cannot_be_evaluated_says_why(tmp_path):
    table = make_table()
    x = features(table, "c3d")
    lacking = [(spec("c3d", 12, "crossfit", fold, ()), x) for fold in (0, 1, 3, 4)]
    for vectors, models, message in (
        (lacking, None, "c3d lacks the nets of folds 2, 5"),
        ([], None, "no feature vectors"),
        ([(spec("c3d", 12), x)], ["nothing"], "unknown model 'nothing'"),
    ):
        with pytest.raises(BadFeatures, match=message):
            evaluated(write_cache(tmp_path / f"{len(vectors)}.h5", table, vectors), models=models)


@pytest.mark.parametrize("songs", [None, "mean"])
def test_clips_that_no_head_could_be_trained_for_lack_no_feature(tmp_path, songs):
    # All but the clips of fold 0 are of one class: no head can leave fold 0 out.
    table = make_table(n=40, k=2)
    folds = (np.arange(40) >= 8).astype(np.int64)
    table = replace(
        table,
        clip_ids=tuple(f"song {i // 2}@{i % 2}" for i in range(40)),
        labels=np.where(folds == 0, np.arange(40) // 2 % 6, 5),
        folds=folds,
        fold_seed=-1,
    )
    path = frozen_cache(tmp_path / "f.h5", table, names=("music1d", "c3d"), missing={"c3d": [0, 1]})
    results = evaluated(path, songs=songs)
    sound, pictures, *_ = results.models
    of_song = 1 if songs is None else 2
    assert results.missing == {"music1d": 0, "c3d": 2 // of_song}
    # Clips without pictures are missing a feature; the others are not.
    assert (sound.n_untrained, pictures.n_untrained) == (8 // of_song, 6 // of_song)
    assert (~sound.valid).sum() == 8 // of_song
    text = " ".join(format_table(results).split())
    assert f"have too few clips (at least two classes are needed): music1d {8 // of_song}, " in text


def test_only_many_values_are_computed_by_several_threads(tmp_path, monkeypatch):
    seen = []

    def stop(*_):
        pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
        seen.append({pool["num_threads"] for pool in pools})
        raise BadFeatures("seen")

    monkeypatch.setattr(evaluation, "evaluate_once", stop)
    # 120 clips with four features of 12 numbers.
    with (
        open_cache(frozen_cache(tmp_path / "f.h5")) as cache,
        threadpool_limits(2, user_api="blas"),
    ):
        for few in (120 * 48 + 1, 120 * 48):
            monkeypatch.setattr(evaluation, "FEW_VALUES", few)
            with pytest.raises(BadFeatures, match="seen"):
                evaluate(cache)
    assert seen == [{1}, {2}]


# --- labels drawn at random


@given(
    st.lists(st.integers(0, 6), min_size=2, max_size=40),
    st.integers(0, 5),
    st.sampled_from([(), (3,)]),
)
def test_blocks_keep_together_and_have_labels_of_one_block(blocks, seed, shape):
    blocks = np.unique(blocks, return_inverse=True)[1]
    rng = np.random.default_rng(seed)
    # Every block has one label, which no other block has.
    y_true = blocks.reshape(-1, *(1 for _ in shape)) * np.ones(shape, int)
    drawn = random_labels(y_true, blocks, seed)
    assert drawn.shape == y_true.shape
    assert {*drawn.ravel()} <= {*y_true.ravel()}
    for block in np.unique(blocks):
        assert len(np.unique(drawn[blocks == block])) == 1
    if len(np.unique(blocks)) > 1:
        assert len(np.unique(drawn)) > 1
    # Labels within a block are mixed.
    y_true = rng.normal(size=len(blocks))
    assert {*random_labels(y_true, blocks, seed)} <= {*y_true}


def test_groups_with_equal_clips_are_one_block():
    table = make_table(n=12, k=0, group_size=2)
    near = Finding(
        "duplicate-across-groups", "x", (), "", "", (("clip 0", "clip 2"), ("clip 3", "clip 11"))
    )
    blocks = label_blocks(
        table, [near, replace(near, kind="outlier", pairs=(("clip 4", "clip 6"),))]
    )
    assert len(np.unique(blocks)) == 4
    assert len(np.unique(blocks[[0, 1, 2, 3, 10, 11]])) == 1


def test_scores_on_random_labels_are_at_chance_on_average(tmp_path):
    """With labels shuffled over stratified folds the mean was .04 in place of .167."""
    path = frozen_cache(tmp_path / "f.h5", make_table(n=96, k=6), names=("music1d", "c3d"))
    options = {"late": True, "choose_model": True, "permute_labels": True, "C": 0.01}
    runs = [evaluated(path, seed=seed, **options) for seed in range(30)]
    for name in ("music1d", "integrated-late", "majority class", "nested"):
        scores = []
        for run in runs:
            models = [*run.models, run.baseline, replace(run.choice.nested, name="nested")]
            scores.append(primary(next(m for m in models if m.name == name)).mean())
        error = np.std(scores) / len(scores) ** 0.5
        assert abs(np.mean(scores) - 1 / 6) < 0.02 + 2 * error, name


def pieces_as_groups(n_songs=20, each=6, dim=16, noise=0.1):
    """Pieces of songs whose labels no feature knows, each in a group of its own."""
    table = make_table(n=n_songs * each, k=0, group_size=1)
    song = np.arange(n_songs).repeat(each)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n_songs, dim))[song] + noise * rng.normal(size=(len(song), dim))
    return replace(table, labels=(song % 6).astype(np.int64)), values.astype(np.float32)


def test_a_leak_between_groups_is_far_above_chance(tmp_path):
    table, values = pieces_as_groups()
    path = write_cache(tmp_path / "f.h5", table, [(spec("music1d", 16), values)])
    assert primary(evaluated(path, C=1.0).models[0]).mean() > 0.95
    for seed in range(3):
        drawn = evaluated(path, C=1.0, permute_labels=True, seed=seed)
        assert primary(drawn.models[0]).mean() > 0.9
    # With the songs as groups the labels cannot be known.
    whole = replace(table, groups=tuple(f"song {i // 6}" for i in range(len(table))))
    path = write_cache(tmp_path / "g.h5", whole, [(spec("music1d", 16), values)])
    drawn = [evaluated(path, C=1.0, permute_labels=True, seed=seed) for seed in range(5)]
    assert np.mean([primary(one.models[0]).mean() for one in drawn]) < 0.4


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_scores_are_compared_with_those_of_random_labels(task, tmp_path):
    path = task_cache(tmp_path / "f.h5", task_table(task, n=120), names=("music1d", "c3d"))
    results = evaluated(path, choose_model=True, permute_labels=10)
    assert not results.permuted
    assert {len(drawn) for drawn in results.chance.values()} == {10}
    facts = metrics_dict(results)["chance"]
    assert {*facts} == {"choice", *(m.name for m in results.models)}
    assert facts["choice"]["p"] == pytest.approx(1 / 11)
    text = " ".join(format_table(results).split())
    assert "On 10 random draws of the labels the same procedure has" in text
    assert "permutation p 0.091" in text
    # Features that know nothing of the labels.
    table = task_table(task, n=60)
    made = [(spec("c3d", 6), features(make_table(n=60), "c3d", 6, 0.0))]
    chance = evaluated(write_cache(tmp_path / "g.h5", table, made), permute_labels=5).chance
    assert np.ptp(chance["c3d"]) > 0


def test_p_counts_the_score_itself():
    assert chance_p(0.5, np.array([0.1, 0.5, 0.7])) == 0.75
    assert chance_p(0.9, np.zeros(19)) == 0.05

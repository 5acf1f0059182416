"""Stack, fallbacks, tests, repeats and learning curves, whatever the task."""

from dataclasses import replace

import numpy as np
import pytest
from feature_samples import crossfit_cache, features, frozen_cache, make_table, spec, write_cache
from fuse_samples import plain_settings, primary
from output_samples import crossfit_output_cache, output_cache, output_features, output_table

from mvemo.cache import open_cache
from mvemo.fuse import (
    BadFeatures,
    evaluate,
    format_table,
    load_heads,
    metrics_dict,
    save_heads,
)
from mvemo.fuse.crossval.learning_curves import with_learning_curve
from mvemo.fuse.crossval.repeats import with_repeats
from mvemo.fuse.crossval.uncertainty import with_uncertainty
from mvemo.fuse.heads.head import HeadSettings
from mvemo.fuse.metrics.scores import best_thresholds
from mvemo.fuse.models import STACKED
from mvemo.fuse.report.page import report_html

FOUR = ("music1d", "music2d", "c3d", "i3d")
# Enough for a stack, two pairs and all comparisons, in two thirds of the time.
THREE = ("music1d", "c3d", "i3d")
TASKS = ["multilabel", "regression"]


def run(path, **options):
    with open_cache(path) as cache:
        return evaluate(cache, plain_settings(**options))


def by_name(results):
    return {model.name: model for model in results.models}


@pytest.mark.parametrize("task", TASKS)
def test_a_stack_of_tags_and_values_is_as_good_as_its_bases_and_honest(task, tmp_path):
    table = output_table(task, n=240, group_size=2)
    path = output_cache(tmp_path / "f.h5", table, names=FOUR, noise=3.0)
    results = run(path, stacked=True, refit=True)
    found = by_name(results)
    stack = found[STACKED]
    assert results.models[-1] is stack
    assert np.isfinite(stack.outputs).all()
    best_pair = max(np.mean(primary(found[n])) for n in found if n.count("+"))
    assert np.mean(primary(stack)) > best_pair - 0.02
    permuted = run(path, stacked=True, permute_labels=True).models[-1]
    chance = 0.5 if task == "multilabel" else 0.0
    assert np.mean(primary(permuted)) < chance + 0.06
    # The saved second layer reads what its bases say, and gives what was reported.
    save_heads(tmp_path / "h.npz", results)
    (head,) = load_heads(tmp_path / "h.npz").select(STACKED, 1)
    assert head.inputs == ("log-odds" if task == "multilabel" else "values")
    test = table.folds == 1
    said = [found[name].outputs[test] for name in head.features]
    if task == "multilabel":
        said = [np.log(p / (1 - p)) for p in np.clip(said, 1e-4, 1 - 1e-4)]
        np.testing.assert_array_equal(head.thresholds, stack.thresholds[1])
    np.testing.assert_allclose(
        head.predict(np.concatenate(said, axis=1)), stack.outputs[test], atol=1e-3
    )


@pytest.mark.parametrize("task", TASKS)
def test_no_label_of_a_fold_has_a_say_in_its_stacked_predictions(task, tmp_path):
    table = output_table(task)
    changed = table.labels.copy()
    test = table.folds == 0
    changed[test] = 1 - changed[test]
    found = []
    for i, labels in enumerate((table.labels, changed)):
        vectors = [(spec(n, 8), output_features(table, n)) for n in ("music1d", "c3d")]
        path = write_cache(tmp_path / f"{i}.h5", replace(table, labels=labels), vectors)
        found.append(run(path, stacked=True, head=HeadSettings(choose_C=True)))
    for a, b in zip(found[0].models, found[1].models, strict=True):
        np.testing.assert_allclose(a.outputs[test], b.outputs[test], atol=1e-4)
        assert (a.outputs[~test] != b.outputs[~test]).any()
        if task == "multilabel":
            np.testing.assert_allclose(a.thresholds[0], b.thresholds[0], atol=1e-4)


@pytest.mark.parametrize("make", [output_cache, crossfit_output_cache])
def test_one_feature_alone_has_no_stack(make, tmp_path):
    table = output_table("regression")
    path = make(tmp_path / "f.h5", table, names=("music1d",))
    assert [m.name for m in run(path, stacked=True).models] == ["music1d"]


def test_a_stack_of_two_singles_is_not_the_integrated_model(tmp_path):
    # Both have the same features in the same order; their thresholds must not mix.
    table = output_table("multilabel", n=120)
    path = output_cache(tmp_path / "f.h5", table, names=("music1d", "music2d"), noise=3.0)
    alone, both = run(path, refit=True), run(path, stacked=True, refit=True)
    assert [m.name for m in both.models] == ["music1d", "music2d", "integrated", STACKED]
    np.testing.assert_array_equal(alone.models[2].thresholds, both.models[2].thresholds)
    assert (both.models[2].thresholds != both.models[3].thresholds).any()
    for head in both.heads:
        model = by_name(both)[head.model]
        expected = (
            best_thresholds(model.outputs, both.y_true)
            if head.fold is None
            else model.thresholds[head.fold]
        )
        np.testing.assert_array_equal(head.thresholds, expected)


@pytest.mark.parametrize("task", ["multiclass", *TASKS])
def test_clips_without_pictures_are_predicted_by_their_sound_also_in_the_stack(task, tmp_path):
    absent = [4, 5, 6, 70]
    lacking = {"c3d": absent, "i3d": absent}
    if task == "multiclass":
        path = frozen_cache(tmp_path / "f.h5", missing=lacking)
    else:
        path = output_cache(
            tmp_path / "f.h5", output_table(task, n=120), names=THREE, missing=lacking
        )
    plain = by_name(run(path, stacked=True))
    results = run(path, stacked=True, missing_modality=True)
    full = by_name(results)
    assert np.isnan(plain["c3d+music1d"].outputs[absent]).all()
    assert np.isnan(plain[STACKED].outputs[absent]).all()
    pair = full["c3d+music1d"]
    assert pair.n_fallback == full[STACKED].n_fallback == 4
    np.testing.assert_array_equal(pair.outputs[absent], full["music1d"].outputs[absent])
    assert np.isfinite(full[STACKED].outputs).all()
    assert set(full["integrated"].without_modality) == {"audio", "video", "none"}
    assert full["music1d"].without_modality == {}
    # All columns are of the clips that have both modalities.
    assert pair.without_modality["none"] == pytest.approx(
        np.mean(primary(plain["c3d+music1d"])), abs=1e-3
    )
    whole = np.isfinite(plain["c3d+music1d"].outputs).all(axis=1)
    if task == "regression":
        from sklearn.metrics import r2_score

        by_hand = [
            r2_score(results.y_true[rows], full["music1d"].outputs[rows])
            for rows in (whole & (results.folds == f) for f in range(results.k))
        ]
        assert pair.without_modality["video"] == pytest.approx(np.mean(by_hand))
    if task == "multilabel":
        # Decided by the thresholds of the head that predicted.
        sound = full["music1d"]
        np.testing.assert_array_equal(pair.y_pred[absent], sound.y_pred[absent])


@pytest.mark.parametrize("task", TASKS)
def test_the_penalty_is_chosen_inside_for_tags_and_values(task, tmp_path):
    table = output_table(task, n=120)
    chosen = {}
    for name, strength, noise in (("easy", 3.0, 0.3), ("noise", 0.0, 1.0)):
        path = output_cache(tmp_path / f"{name}.h5", table, strength=strength, noise=noise)
        results = run(path, head=HeadSettings(choose_C=True), models=["integrated"])
        chosen[name] = np.mean([h.C for h in results.heads])
    assert chosen["noise"] < chosen["easy"]


@pytest.mark.parametrize("task", TASKS)
def test_settings_of_classes_are_refused(task, tmp_path):
    path = output_cache(tmp_path / "f.h5", output_table(task))
    with pytest.raises(BadFeatures, match="class_weight 'balanced' of heads is for multiclass"):
        run(path, head=HeadSettings(class_weight="balanced"))


@pytest.mark.parametrize("task", TASKS)
def test_tests_repeats_and_learning_curves_of_tags_and_values(task, tmp_path):
    table = output_table(task, n=180)
    path = output_cache(tmp_path / "f.h5", table, names=THREE, noise=2.0)
    first = run(path, stacked=True)
    again = [run(path, stacked=True, seed=seed) for seed in (1, 2)]
    results = with_uncertainty(with_repeats(first, again), n_resamples=100)
    assert (again[0].folds != first.folds).any()
    tested = [c.model for c in results.comparisons]
    assert tested == [m.name for m in results.models if len(m.features) > 1]
    one = results.comparisons[0]
    assert len(one.differences) == 9
    mine, theirs = by_name(first)[one.model], by_name(first)[one.reference]
    np.testing.assert_allclose(one.differences[:3], primary(mine) - primary(theirs))
    # An interval holds the mean over the repeats.
    assert one.interval[0] < one.mean < one.interval[1]
    for i, model in enumerate(results.models):
        low, high = model.intervals["primary"]
        if task == "multilabel":
            means = [np.mean(primary(r.models[i])) for r in (first, *again)]
        else:
            means = [r.models[i].scores["r2_macro"] for r in (first, *again)]
        assert low < np.mean(means) < high
    with open_cache(path) as cache:
        results = with_learning_curve(cache, results, plain_settings().head, (0.1, 0.5))
    for model in first.models[:-1]:
        points = results.learning_curve[model.name]
        assert [p[0] for p in points] == [0.1, 0.5, 1.0]
        assert points[-1][2] == pytest.approx(np.mean(primary(model)), abs=1e-3)
    curve = results.learning_curve["integrated"]
    assert curve[-1][2] > curve[0][2]
    held = metrics_dict(results)
    assert len(held["repeats"]) == 3
    # The table is of all of them.
    of_all = held["models"]["integrated"][results.task.primary_metric]
    assert len(of_all["per_fold"]) == 9
    runs = [primary(by_name(r)["integrated"]) for r in (first, *again)]
    assert of_all["mean"] == pytest.approx(np.mean(runs))
    assert "9 folds (3 times 3)" in " ".join(format_table(results).split())
    assert held["learning_curve"]["integrated"][-1][results.task.primary_metric] == pytest.approx(
        curve[-1][2]
    )
    assert {c["model"] for c in held["comparisons"]} == set(tested)
    page = report_html(results)
    for part in ('id="tests"', 'id="repeats"', 'id="learning"', 'id="hard"'):
        assert part in page
    assert ('id="calibration"' in page) == (task == "multilabel")
    assert "corrected t-test over folds" in " ".join(format_table(results).split())


def test_repeats_on_shuffled_labels_are_scored_on_their_own(tmp_path):
    path = frozen_cache(tmp_path / "f.h5", make_table(n=240, k=3), strength=2.0)
    models = ["music1d", "c3d+music1d", "integrated"]
    runs = [run(path, models=models, seed=seed, permute_labels=True) for seed in range(4)]
    assert (runs[0].y_true != runs[1].y_true).any()
    results = with_uncertainty(with_repeats(runs[0], runs[1:]), n_resamples=200)
    for i, model in enumerate(results.models):
        pooled = [np.trace(r.models[i].confusion) / r.models[i].confusion.sum() for r in runs]
        low, high = model.intervals["accuracy"]
        assert low < np.mean(pooled) < high
        assert np.mean(model.per_fold["accuracy"]) == pytest.approx(
            np.mean([np.mean(r.models[i].per_fold["accuracy"]) for r in runs])
        )


@pytest.mark.parametrize("make", [frozen_cache, crossfit_cache])
def test_the_stack_has_a_temperature_too(make, tmp_path):
    path = make(tmp_path / "f.h5", make_table(n=180, k=3))
    results = run(path, stacked=True, temperature=True)
    for model in results.models:
        assert model.calibration["temperature"] > 0
    held = metrics_dict(results)["models"][STACKED]["calibration"]
    assert held["ece_scaled"] >= 0


@pytest.mark.parametrize("task", ["multiclass", *TASKS])
def test_training_clips_of_one_group_have_no_inner_folds(task, tmp_path):
    if task == "multiclass":
        table = make_table(n=24, k=2, group_size=12)
        table = replace(table, labels=np.arange(24, dtype=np.int64) % 6)
        path = frozen_cache(tmp_path / "f.h5", table)
    else:
        table = output_table(task, n=24, k=2, group_size=12)
        if task == "multilabel":
            table = replace(table, labels=np.eye(3, dtype=np.int64)[np.arange(24) % 3])
        path = output_cache(tmp_path / "f.h5", table, names=FOUR)
    results = run(path, stacked=True, missing_modality=True)
    assert STACKED not in by_name(results)
    assert all(np.isfinite(m.outputs).all() for m in results.models)
    chosen = run(path, head=HeadSettings(choose_C=True), models=["c3d"], refit=True)
    assert {h.C for h in chosen.heads} == {0.01}


@pytest.mark.parametrize("task", ["multiclass", *TASKS])
def test_no_half_a_stack_where_one_folds_training_clips_are_one_group(task, tmp_path):
    # Fold 0 is one group, so fold 1 trains on one group; crossfit has a view for each.
    if task == "multiclass":
        table = make_table(n=36, k=2, group_size=12)
        labels = np.arange(36, dtype=np.int64) % 6
    else:
        table = output_table(task, n=36, k=2, group_size=12)
        labels = np.eye(3, dtype=np.int64)[np.arange(36) % 3]
        labels = labels if task == "multilabel" else table.labels
    folds = np.repeat([0, 1, 1], 12)
    table = replace(table, labels=labels, folds=folds)
    if task == "multiclass":
        path = crossfit_cache(tmp_path / "f.h5", table)
    else:
        path = crossfit_output_cache(tmp_path / "f.h5", table, names=("music1d", "c3d"))
    results = run(path, stacked=True, refit=True)
    assert STACKED not in by_name(results)
    assert STACKED not in {h.model for h in results.heads}
    assert np.isfinite(results.models[0].outputs).all()


def test_a_stack_of_nothing_is_refused(tmp_path):
    path = frozen_cache(tmp_path / "f.h5")
    with pytest.raises(BadFeatures, match="integrated-stacked stacks two models or more"):
        run(path, models=[STACKED])
    named = run(path, models=["music1d", "c3d", STACKED])
    assert [m.name for m in named.models] == ["music1d", "c3d", STACKED]


def test_saved_heads_say_what_stands_in(tmp_path):
    path = frozen_cache(tmp_path / "f.h5", missing={"c3d": [3], "i3d": [3]})
    chosen = ["c3d+music1d", "i3d+music1d"]
    results = run(path, models=chosen, missing_modality=True, refit=True, temperature=True)
    save_heads(tmp_path / "h.npz", results)
    saved = load_heads(tmp_path / "h.npz")
    assert [m.name for m in saved.models] == chosen
    assert saved.models[0].modalities == ("audio", "video")
    assert saved.facts["provenance"]["features"]["c3d"][0]["modality"] == "video"
    assert set(saved.facts["temperatures"]) == set(chosen)
    # The head of the sound alone, whatever fusion it is a part of.
    (head,) = saved.select_features(("music1d",), fold=int(results.folds[3]))
    said = head.predict(features(make_table(), "music1d")[[3]])
    np.testing.assert_allclose(said[0], results.models[0].outputs[3], atol=1e-4)
    assert saved.select_features(("music2d",)) == ()


@pytest.mark.parametrize("task", ["multiclass", *TASKS])
def test_points_of_a_learning_curve_that_nothing_is_left_for_are_left_out(task, tmp_path):
    if task == "multiclass":
        table = make_table(n=60, k=3, group_size=6)
        path = frozen_cache(tmp_path / "f.h5", table, missing={"c3d": range(50)})
    else:
        table = output_table(task, n=60, group_size=6)
        path = output_cache(tmp_path / "f.h5", table, names=FOUR, missing={"c3d": range(50)})
    with open_cache(path) as cache:
        results = run(path, models=["music1d", "c3d"])
        curves = with_learning_curve(cache, results, HeadSettings(), (0.05, 0.6)).learning_curve
    assert [p[0] for p in curves["music1d"]][-2:] == [0.6, 1.0]
    assert len(curves.get("c3d", ())) < 3
    assert all(np.isfinite(point).all() for points in curves.values() for point in points)


def test_tests_leave_out_folds_where_a_score_is_not_defined(tmp_path):
    table = output_table("multilabel", n=90)
    labels = table.labels.copy()
    labels[table.folds == 2] = 0
    vectors = [(spec(n, 8), output_features(table, n)) for n in ("music1d", "c3d")]
    path = write_cache(tmp_path / "f.h5", replace(table, labels=labels), vectors)
    results = with_uncertainty(run(path), n_resamples=0)
    assert all(len(c.differences) == 2 for c in results.comparisons)
    assert all(np.isfinite(c.p) for c in results.comparisons)


def test_a_model_without_a_point_has_no_learning_curve(tmp_path):
    table = output_table("multilabel", n=90)
    path = output_cache(tmp_path / "f.h5", table, missing={"c3d": range(1, 90)})
    with open_cache(path) as cache:
        results = with_learning_curve(cache, run(path), HeadSettings(), (0.5,))
    assert set(results.learning_curve) == {"music1d"}
    assert "Learning curves" in report_html(results)
    share, clips, *_ = results.learning_curve["music1d"][-1]
    assert (share, clips) == (1.0, 60.0)


def test_folds_in_another_order_are_the_same_folds(tmp_path):
    path = frozen_cache(tmp_path / "f.h5")
    first = run(path)
    turned = replace(first, folds=(first.folds + 1) % 6)
    with pytest.raises(BadFeatures, match="on the same folds"):
        with_repeats(first, [turned])


def test_what_a_fallback_of_a_stack_predicts_is_decided_by_its_own_thresholds(tmp_path):
    table = output_table("multilabel", n=120)
    absent = list(range(0, 80))
    path = output_cache(tmp_path / "f.h5", table, missing={"c3d": absent}, noise=1.0)
    found = by_name(run(path, stacked=True, missing_modality=True))
    stack, sound = found[STACKED], found["music1d"]
    assert stack.n_fallback == 80
    np.testing.assert_array_equal(stack.outputs[absent], sound.outputs[absent])
    np.testing.assert_array_equal(stack.y_pred[absent], sound.y_pred[absent])


def test_class_scores_are_means_over_repeats(tmp_path):
    path = frozen_cache(tmp_path / "f.h5", make_table(n=180, k=3), strength=0.5)
    runs = [run(path, models=["integrated"], seed=seed) for seed in (0, 1)]
    results = with_repeats(runs[0], runs[1:])
    held = metrics_dict(results)["models"]["integrated"]
    f1 = [c["f1"] for c in held["per_output"].values()]
    assert np.mean(f1) == pytest.approx(held["f1_macro"])

"""The model to use: chosen inside training folds, and at chance where there is nothing."""

import numpy as np
import pytest
from feature_samples import features, frozen_cache, make_table, spec, write_cache
from fuse_samples import plain_settings, primary
from output_samples import output_cache, output_table

from mvemo.cache import open_cache
from mvemo.fuse import HeadSettings, Model, evaluate, task_of
from mvemo.fuse.crossval.choice import best_model
from mvemo.fuse.report.report_files import metrics_dict
from mvemo.fuse.report.summary import recommend
from mvemo.fuse.report.terminal import format_table


def run(path, **options):
    with open_cache(path) as cache:
        settings = plain_settings(choose_model=True, late=True, head=HeadSettings(), **options)
        return evaluate(cache, settings)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    path = frozen_cache(
        tmp_path_factory.mktemp("c") / "f.h5", strength=0.35, names=("music1d", "c3d")
    )
    return run(path, n_resamples=50)


def test_each_fold_is_predicted_by_its_own_choice(chosen):
    choice, models = chosen.choice, {m.name: m for m in chosen.models}
    assert choice.model in models
    assert len(choice.inside) == chosen.k
    for fold, name in enumerate(choice.inside):
        rows = chosen.folds == fold
        np.testing.assert_array_equal(choice.nested.outputs[rows], models[name].outputs[rows])
        assert primary(choice.nested)[fold] == primary(models[name])[fold]


def test_all_outputs_say_what_to_use_and_to_expect(chosen):
    text = recommend(chosen)
    mean = 100 * primary(chosen.choice.nested).mean()
    assert text.startswith(f"Use {chosen.choice.model}. Expect an accuracy of {mean:.1f} % (95 %")
    assert f"Use {chosen.choice.model}." in format_table(chosen)
    kept = metrics_dict(chosen)["choice"]
    assert kept["model"] == chosen.choice.model
    assert kept["accuracy"]["mean"] == pytest.approx(mean / 100)
    low, high = kept["intervals"]["accuracy"]
    assert low < mean / 100 < high


def test_labels_of_a_fold_have_no_part_in_its_choice(tmp_path):
    table = make_table(n=60, k=3)
    vectors = [(spec(name, 12), features(table, name)) for name in ("music1d", "c3d")]
    results = []
    for shift in (0, 1):
        labels = np.where(table.folds == 0, (table.labels + shift) % 6, table.labels)
        changed = type(table)(**{**vars(table), "labels": labels})
        with open_cache(write_cache(tmp_path / f"{shift}.h5", changed, vectors)) as cache:
            settings = plain_settings(choose_model=True, head=HeadSettings())
            results.append(evaluate(cache, settings))
    one, two = (r.choice for r in results)
    assert one.inside[0] == two.inside[0]
    rows = table.folds == 0
    np.testing.assert_array_equal(one.nested.outputs[rows], two.nested.outputs[rows])


def test_of_permuted_labels_nothing_is_recommended(tmp_path):
    path = frozen_cache(tmp_path / "f.h5", strength=3.0, names=("music1d", "c3d"))
    results = run(path, permute_labels=True)
    assert primary(results.choice.nested).mean() < 0.35
    assert recommend(results) == ""


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_tags_and_ratings_are_chosen_for_too(task, tmp_path):
    results = run(output_cache(tmp_path / "f.h5", output_table(task)), repeats=1)
    best = max(primary(m).mean() for m in results.models)
    assert primary(results.choice.nested).mean() > best - 0.1
    assert "Use " in recommend(results)


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([0.02, 0.01, 0.02], "integrated"),
        # The mean gain is larger, but one clip in three alone has it.
        ([0.3, -0.2, 0.0], "integrated-late"),
        ([-0.02, -0.01, -0.02], "integrated-late"),
    ],
)
def test_another_model_replaces_late_fusion_by_one_standard_error(gains, expected):
    """Breiman et al. 1984, 3.4.3: the mean gain must exceed its standard error."""
    names = ("integrated", "integrated-late")
    models = [Model(name, ("a", "b"), ("audio",)) for name in names]
    y_true = np.arange(24) % 2
    late = np.full(24, 0.6)
    better = np.exp(np.log(late) + np.repeat(gains, 8))
    outputs = [np.where(y_true == 1, p, 1 - p)[:, None] for p in (better, late)]
    assert names[best_model(task_of("multilabel"), y_true[:, None], models, outputs)] == expected

"""What nets predict themselves, from stage one to the report: classes, tags and ratings."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from stage_samples import rewrite, run, tiny_demo, tiny_settings

from mvemo.cache import open_cache, verify_cache
from mvemo.extract.nets import build_net
from mvemo.fuse import EvaluationSettings, evaluate

NET = "music1d-outputs"


def of_task(manifest, task):
    """The clips with tags (each class, and one that half of them share), or with two ratings."""
    if task == "multiclass":
        return manifest
    names, clips = manifest.classes, manifest.clips
    if task == "multilabel":
        labels = [c.label + ("loud",) * (c.label[0] in names[::2]) for c in clips]
        names = (*names, "loud")
    else:
        places = [names.index(c.label[0]) for c in clips]
        labels = [(100.0 + 10 * p + n % 2, 0.01 * (n % 3)) for n, p in enumerate(places)]
        names = ("valence", "arousal")
    clips = tuple(replace(c, label=label) for c, label in zip(clips, labels, strict=True))
    return replace(manifest, task=task, classes=names, clips=clips)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return tiny_demo(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Decoded media, that all tasks share."""
    return tmp_path_factory.mktemp("work")


def extract(manifest, work, name, *options):
    """Features of `music1d`, by a manifest written next to its media."""
    path, features = rewrite(manifest, manifest.root / f"{name}.csv"), work / f"{name}.h5"
    only = tiny_settings("extract.descriptors=[]", 'extract.nets="music1d"')
    command = ("extract", path, "--work", work, "--out", features)
    assert run("mvemo", *command, *only, *options) == 0
    return features


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_from_labels_to_a_row_of_the_report(task, demo, work):
    features = extract(of_task(demo, task), work, task)
    assert verify_cache(features) == []
    out = work / task
    assert run("mvemo-cv", features, "--out", out, "--set", "fuse.n_resamples=50") == 0
    models = json.loads((out / "metrics.json").read_text())["models"]
    assert models[NET]["by_net"]
    assert not models["music1d"]["by_net"]
    assert NET in (out / "report.html").read_text()

    with open_cache(features) as cache:
        assert cache.table.task == task
        assert cache.spec(NET, 0).kind == "outputs"
        assert cache.spec(NET, 0).trained_on == cache.spec("music1d", 0).trained_on
        results = evaluate(cache, EvaluationSettings(n_resamples=0))
        (model,) = [m for m in results.models if m.name == NET]
        for fold in range(2):
            tested = results.folds == fold
            stored = cache.vectors(NET, fold)[0].astype(np.float64)
            link = {"multiclass": lambda x: softmax(x, axis=1), "multilabel": expit}
            expected = link.get(task, np.asarray)(stored)
            np.testing.assert_allclose(model.outputs[tested], expected[tested], atol=1e-12)
        if task == "regression":
            curve = cache.curves["music1d@fold0"]
            trained = [i for i in range(len(demo)) if results.folds[i] != 0]
            low, high = np.min(results.y_true[trained], 0), np.max(results.y_true[trained], 0)
            # In the ratings' own units: around their mean, though nothing was learnt yet.
            assert (low <= curve["target_mean"]).all()
            assert (curve["target_mean"] <= high).all()
            values = cache.vectors(NET, 0)[0]
            assert (np.abs(values - curve["target_mean"]) < 3 * (high - low)).all()


def test_a_frozen_net_takes_the_place_of_a_trained_one_s_outputs(demo, work):
    extract(demo, work, "frozen")
    weights = work / "music1d.pt"
    torch.save(build_net("music1d", 6, width=0.1, seconds=1.0).state_dict(), weights)
    options = ("--protocol", "frozen", "--weights", f"music1d={weights}")
    features = extract(demo, work, "frozen", *options)
    with open_cache(features) as cache:
        assert cache.spec("music1d").protocol == "frozen"
        # Its last layer was trained for other classes, or not at all.
        assert NET not in cache.names()

"""Predictions of nets."""

from dataclasses import replace

import numpy as np
import torch
from study_samples import opened

from mvemo.extract.nets import build_net
from mvemo.pipeline.studies import predictors
from mvemo.pipeline.studies.predictors import RowPredictor, StudyRow, predict


def test_predictions_are_those_of_the_net(tmp_path):
    study = opened(tmp_path)
    plan = study.plan("rnn")
    media = study.media([plan])
    torch.manual_seed(0)
    net = build_net("rnn", 4, width=plan.width, **plan.options)
    rows = np.array([5, 0, 3])
    got = predict(net, media, plan.view, rows, "softmax")
    with torch.no_grad():
        expected = net.eval()(net.prepare(media.batches(net).load(rows.tolist()))).softmax(1)
    np.testing.assert_allclose(got, expected.numpy(), atol=1e-6)


def test_nets_of_a_study_are_tested_on_all_views_of_a_clip(tmp_path, monkeypatch):
    windows = ("nets.rnn.options={n_frames=8}", "nets.rnn.views=2", "nets.rnn.patience=0")
    study = opened(tmp_path, *windows)
    media = study.media([study.plan("rnn")])
    read = []
    monkeypatch.setattr(
        predictors,
        "predict",
        lambda net, media, view, *_: read.append(media.batches(net, view)) or np.zeros((1, 4)),
    )
    plan = study.plan("rnn")
    first = replace(study, first_fold=True)
    RowPredictor(first, media, StudyRow("rnn", {}, (plan,)))(0)
    assert read[0].load_views([0])[1] == [2]

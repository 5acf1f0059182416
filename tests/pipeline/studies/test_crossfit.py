"""Nets that several processes train for a study: each once, and none that is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study_samples import make_set, tiny_options

from mvemo.extract.training.data import TrainingClips
from mvemo.extract.workers.pool import Outcome
from mvemo.extract.workers.process import Call
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.studies import predictors
from mvemo.pipeline.studies.predictors import NetTraining, train_ahead
from mvemo.pipeline.studies.study import open_study


def test_a_net_that_two_ask_for_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_set(tmp_path / "set", clips_per_class=4)
    study = open_study(path, load_settings("paper", tiny_options()[1::2]), work=tmp_path)
    study = replace(study, jobs=2)
    plan = study.plan("rnn")
    media = study.media([plan])
    clips = TrainingClips(study.manifest, media.digests, media.usable(plan), study.folds())
    run = replace(study.settings.extract.run, protocol="crossfit")
    training = NetTraining(media, clips, plan, run, tmp_path / "nets")
    other = replace(training, plan=replace(plan, train=replace(plan.train, epochs=1)))
    asked: list[tuple[int | None, int]] = []

    def train_here(calls: Sequence[Call], **_: Any) -> Iterator[Outcome]:
        for i, call in enumerate(calls):
            (each,) = call.arguments
            (fold,) = each.clips.trained_folds
            asked.append((fold, each.plan.train.epochs))
            yield Outcome(i, predictors.train_missing(each, lambda text: None))

    monkeypatch.setattr(predictors, "run_calls", train_here)
    train_ahead(study, [training, replace(training), other])
    assert asked == [(0, 2), (1, 2), (0, 1), (1, 1)]
    asked.clear()
    train_ahead(study, [training, other])
    assert asked == []

"""The leak, shown: what a net saw of the clips that it is scored on is worth on pure chance.

Labels are shuffled over the clips, so no honest score can be above chance. A net that is
fine-tuned on all clips learns them by heart, and heads cross-validated over its features
are far above chance all the same; nets fine-tuned without the tested fold are at chance.
"""

import json

import numpy as np
import pytest
from stage_samples import make_chords, run, set_options

from mvemo.cache import open_cache

N, CLASSES = 72, 4
# Steps after which a net knows all clips, or two folds of three, by heart.
ITERATIONS = {"shared": 120, "crossfit": 60}
CHANCE = 1 / CLASSES
# Of a share of right guesses among all clips.
ERROR = (CHANCE * (1 - CHANCE) / N) ** 0.5
SETTINGS = set_options(
    *('extract.nets="music1d"', "extract.workers=1", "extract.descriptors=[]"),
    "extract.level=0",  # few steps suffice for loud sound
    *("extract.folds=3", "nets.music1d.options={seconds=0.05, dropout=0.0}"),
    *("nets.music1d.batch_size=24", "nets.music1d.lr=0.01"),
    # To the end, on all clips given: nothing is held out that could stop it.
    "nets.music1d.patience=0",
)


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory):
    """Manifest of chords whose labels are shuffled over the clips; each its own group."""
    return make_chords(tmp_path_factory.mktemp("chords"), N)


def extracted(manifest, work, protocol):
    command = ["extract", manifest, "--work", work, "--protocol", protocol]
    command += ["--set", f"nets.music1d.iterations={ITERATIONS[protocol]}"]
    assert run("mvemo", *command, *SETTINGS) == 0
    with open_cache(work / "features.h5") as cache:
        for curve in cache.curves.values():
            # Every net knows its own training clips by heart.
            assert np.mean(curve["train_loss"][-5:]) < 0.3
    return work / "features.h5"


def score(features, out, *options):
    """Mean accuracy, whether the results call themselves leaky, and the page."""
    assert run("mvemo-cv", features, "--out", out, *options) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    page = (out / "report.html").read_text(encoding="utf-8")
    return metrics["models"]["music1d"]["accuracy"]["mean"], metrics["leaky"], page


def test_shuffled_labels_score_far_above_chance_where_the_net_saw_the_clips(
    shuffled, tmp_path, capsys, program
):
    features = extracted(shuffled, tmp_path, "shared")
    refusal = program("mvemo-cv", features, "--out", tmp_path / "no", ends=2).err.strip()
    assert "music1d was trained on 24 of the 24 clips of fold 0" in refusal
    assert len(refusal.splitlines()) == 1
    assert not (tmp_path / "no").exists()
    accuracy, leaky, page = score(features, tmp_path / "out", "--protocol", "shared")
    assert leaky
    assert "OPTIMISTIC" in page
    assert "OPTIMISTIC" in capsys.readouterr().out
    # No less than six standard errors above what shuffled labels allow.
    assert accuracy > CHANCE + 6 * ERROR


def test_shuffled_labels_score_at_chance_where_it_did_not(shuffled, tmp_path, capsys):
    features = extracted(shuffled, tmp_path, "crossfit")
    capsys.readouterr()
    accuracy, leaky, page = score(features, tmp_path / "out")
    assert not leaky
    assert "OPTIMISTIC" not in page
    assert "OPTIMISTIC" not in capsys.readouterr().out
    assert abs(accuracy - CHANCE) < 3 * ERROR

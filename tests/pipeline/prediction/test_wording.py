"""Scores of predictions on clips that people judged."""

import numpy as np
import pytest

from mvemo.fuse.final.clip_prediction import Caution, ClipPrediction
from mvemo.pipeline.desk.serve.corrections import Corrections
from mvemo.pipeline.prediction.wording import judged_in, judged_words


def labelled(n_right, n):
    """Return `n` judged predictions, `n_right` of them right."""
    found = ClipPrediction("a", label="calm")
    return [(found, ("calm",) if i < n_right else ("sad",)) for i in range(n)]


def test_the_figure_stands_from_20_clips_on():
    assert judged_words(labelled(17, 24)) == (
        "right on 17 of 24 of your judged clips (71 %, 95 % interval 49 to 87 %)"
    )
    assert judged_words(labelled(19, 19)) == ""
    # The model learned the judgements of these clips.
    seen = (ClipPrediction("a", label="calm", cautions=(Caution.TRAINED_ON,)), ("calm",))
    assert judged_words([*labelled(19, 19), seen]) == ""
    assert judged_words([*labelled(17, 24), seen]) == judged_words(labelled(17, 24))
    tags = [(ClipPrediction("a", label=["sad", "calm"]), ("calm", "sad"))] * 20
    assert judged_words(tags).startswith("right on 20 of 20")


def test_ratings_have_fishers_interval():
    rng = np.random.default_rng(0)
    true = rng.uniform(-1, 1, (30, 2))
    found = true + rng.normal(0, [0.3, 1.5], (30, 2))
    judged = [
        (
            ClipPrediction(
                "a", values={n: {"value": v} for n, v in zip(("v", "a"), f, strict=True)}
            ),
            dict(zip(("v", "a"), t, strict=True)),
        )
        for f, t in zip(found, true, strict=True)
    ]
    words = judged_words(judged)
    for i, name in enumerate(("v", "a")):
        r = np.corrcoef(found[:, i], true[:, i])[0, 1]
        low, high = np.tanh(np.arctanh(r) + np.array([-1.96, 1.96]) / np.sqrt(27))
        assert f"r {r:.2f} for {name} (95 % interval {low:.2f} to {high:.2f})" in words
    assert words.endswith("on 30 of your judged clips")
    same = [(clip, {"v": 0.0, "a": label["a"]}) for clip, label in judged]
    assert "no r for v, whose ratings are all the same" in judged_words(same)


@pytest.mark.parametrize(
    ("task", "classes", "label", "other"),
    [
        ("multiclass", ("calm", "sad"), "calm", ("calm",)),
        ("multilabel", ("calm", "sad"), ["sad"], ("sad",)),
        ("regression", ("valence",), {"valence": 0.5}, {"valence": 0.5}),
    ],
)
def test_judged_clips_are_found_by_their_files(task, classes, label, other, tmp_path, capsys):
    kept = Corrections(tmp_path / ".mvemo" / "corrections.csv", "x", task, classes)
    for i, name in enumerate(("a", "b", "gone")):
        (tmp_path / f"{name}.mp3").touch()
        kept.put(tmp_path / f"{name}.mp3", label, clip_id=name, unsure=i == 1)
    kept.put(tmp_path / "c.mp3", None, clip_id="c", comment="only a comment")
    found = {"values": {"valence": {"value": 0}}} if task == "regression" else {"label": "sad"}
    clips = [ClipPrediction(str(tmp_path / f"{name}.mp3"), **found) for name in "abcd"]
    clips.append(ClipPrediction(str(tmp_path / "gone.mp3")))
    works = [tmp_path / ".mvemo", tmp_path / "none"]
    assert list(judged_in(works, clips, task)) == [(clips[0], other)]
    assert list(judged_in(works, clips, "another task")) == []
    (tmp_path / ".mvemo" / "corrections.csv").write_text("broken")
    assert list(judged_in(works, clips, task)) == []
    assert "corrections.csv" in capsys.readouterr().err

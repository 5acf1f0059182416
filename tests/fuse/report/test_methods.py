"""The methods paragraph names what a comparison needs, and what is missing."""

import json
from dataclasses import replace

import pytest

from mvemo.fuse import metrics_dict
from mvemo.fuse.report.methods import methods_text


def test_classes_have_mcc_and_the_missing_items_a_cure(uncertain):
    metrics = metrics_dict(uncertain)
    text = methods_text(json.loads(json.dumps(metrics)))
    best = max(uncertain.models, key=uncertain.primary_mean)
    assert f"{best.name} has accuracy {uncertain.primary_mean(best):.3f} [" in text
    assert f"MCC {best.scores['mcc']:.3f} [" in text
    assert f"MCC {best.scores['mcc']:.2f} here, MCC .87 there" in text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    missing = [row[0] for row in rows if row[1] == "**missing**"]
    assert f"{len(missing)} of {len(rows)} missing" in text
    assert "| origin and licence of the clips" in missing
    assert "| check on random labels" in missing
    assert "--permute-labels 20" in text


def test_ratings_and_tags_have_their_scores(outputs):
    text = methods_text(metrics_dict(outputs))
    if outputs.task.name == "regression":
        assert "r of " in text
        assert "R2 of " in text
    else:
        assert "macro MCC" in text
    alone = replace(outputs, choice=None, models=outputs.models[:1])
    assert f"{outputs.models[0].name} has" in methods_text(metrics_dict(alone))


@pytest.mark.parametrize("names", [("Valence", "arousal"), ("valence", "tension")])
def test_valence_and_arousal_are_placed_among_other_studies(outputs, names):
    if outputs.task.name != "regression":
        return
    metrics = metrics_dict(outputs)
    for model in (*metrics["models"].values(), metrics["baseline"]):
        model["per_output"] = dict(zip(names, model["per_output"].values(), strict=False))
    text = methods_text({**metrics, "classes": list(names)})
    assert "there" in text
    assert ("arousal: r" in text) == ("arousal" in names)

"""The methods paragraph names what a comparison needs, and what is missing."""

import json
from dataclasses import replace

import pytest
from markupsafe import escape

from mvemo.fuse import metrics_dict
from mvemo.fuse.report.methods import methods_facts, methods_text
from mvemo.fuse.report.report_files import report_html
from mvemo.fuse.results import Choice


def test_classes_have_mcc_and_the_missing_items_a_cure(uncertain):
    metrics = metrics_dict(uncertain)
    text = methods_text(json.loads(json.dumps(metrics)))
    best = max(uncertain.models, key=uncertain.primary_mean)
    assert f"{best.name} has accuracy {uncertain.primary_mean(best):.3f} [" in text
    assert f"MCC {best.scores['mcc']:.3f} [" in text
    metrics["models"][best.name]["mcc"] = 0.5
    assert "MCC 0.50 here, below 0.87 there" in methods_text(metrics)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    missing = [row[0] for row in rows if row[1] == "**missing**"]
    assert f"{len(missing)} of {len(rows)} missing" in text
    assert {"| source", "| licence", "| what a group is"} <= {*missing}
    assert "| check on random labels" in missing
    assert "--permute-labels 20" in text


@pytest.mark.parametrize("mark", ["synthetic", "permuted", "leaky", "predicted_by"])
def test_scores_that_are_no_result_are_marked(uncertain, mark):
    text = methods_text({**metrics_dict(uncertain), "synthetic": False, mark: True})
    assert "**Not a result: " in text
    assert "This run is not a result to compare: " in text.split("Among other studies")[1]
    plain = methods_text({**metrics_dict(uncertain), "synthetic": False})
    assert "ot a result" not in plain
    assert "No other figure of the meta-analysis is known here." in plain


@pytest.mark.parametrize(
    ("value", "side"), [(0.554, "below"), (0.556, "within"), (0.764, "within"), (0.77, "above")]
)
def test_r_stands_next_to_the_published_range(outputs, value, side):
    if outputs.task.name != "regression":
        return
    metrics = metrics_dict(outputs)
    for model in metrics["models"].values():
        scores = {"pearson_r": value, "intervals": {}}
        model["per_output"] = {"Valence": scores, "tension": scores}
    text = methods_text(metrics)
    assert f"Valence: r {value:.2f} here, {side} 0.67 [0.56, 0.76] there" in text
    assert text.count(" there") == 1


def test_scores_are_those_of_the_nested_choice(uncertain):
    chosen = replace(uncertain.models[0], scores={**uncertain.models[0].scores, "mcc": 0.123})
    choice = Choice(uncertain.models[0].name, (), chosen)
    facts = metrics_dict(replace(uncertain, choice=choice))
    assert "MCC 0.123" in methods_text(facts)
    assert f"{choice.model}, with the cost of its choice, has accuracy" in methods_text(facts)
    # Runs of earlier versions state only the primary metric of the choice.
    facts["choice"] = {k: facts["choice"][k] for k in ("model", "inside", "accuracy", "intervals")}
    assert f"MCC {uncertain.models[0].scores['mcc']:.3f}" in methods_text(facts)


def test_the_page_has_what_the_command_prints(uncertain):
    facts, page = methods_facts(metrics_dict(uncertain)), report_html(uncertain)
    part = page[page.index('<section id="methods">') :]
    for row in facts["checklist"]:
        assert f">{row['item']}</th>" in part
        assert str(escape(row["text"])) in part
    assert part.count("<b>missing</b>") == sum(not row["stated"] for row in facts["checklist"])
    assert str(escape(facts["methods"])) in page
    assert str(escape(facts["comparison"])) in page


def rows_of(text):
    rows = [line.split(" | ", 2) for line in text.splitlines() if line.startswith("| ")]
    return {item.strip("| "): (stated, value.rstrip("| ")) for item, stated, value in rows}


def test_what_is_not_known_is_missing(uncertain):
    facts = metrics_dict(replace(uncertain, synthetic=False))
    for model in (*facts["models"].values(), facts["baseline"]):
        model["intervals"] = {name: [None, None] for name in model["intervals"]}
    text = methods_text({**facts, "choice": None, "protocol": "others", "folds": 1})
    assert rows_of(text)["primary score with interval"] == ("**missing**", "an interval")
    assert "Intervals are" not in text
    assert "no group was in both parts" not in text
    for model in facts["models"].values():
        model["accuracy"] = {**model["accuracy"], "mean": None}
    assert "No model made a prediction." in methods_text({**facts, "choice": None})


def test_annotators_chance_and_the_expected_score_are_those_of_the_report(outputs):
    if outputs.task.name != "regression":
        return
    facts = metrics_dict(outputs)
    ceiling = {"target": "valence", "annotators": 4.0, "alpha": 0.5, "clips": 9}
    choice = {"model": outputs.models[0].name, "inside": [], "intervals": {"primary": [0.1, 0.4]}}
    choice["r2_macro"] = {"mean": 0.2, "pooled": 0.3}
    chance = {"c3d": {"p": 0.9}, "choice": {"p": 0.04}}
    facts |= {"ceilings": [ceiling], "choice": choice, "chance": chance, "synthetic": False}
    facts["provenance"] = {"manifest_digest": "a|b"}
    text = methods_text(facts)
    assert "has R2 0.300 [0.100, 0.400]" in text
    rows = rows_of(text)
    assert rows["annotators"] == ("yes", "4 annotators per clip, Krippendorff's alpha valence 0.50")
    assert rows["check on random labels"] == ("yes", "choice: p 0.040")
    assert "a\\|b" in rows["data"][1]

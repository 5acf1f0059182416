import re
from dataclasses import replace

import pytest
from fuse_samples import make_results

from mvemo.fuse.models import Model
from mvemo.fuse.report.published import (
    CHOSEN_OPTIMIZER,
    CLASSES,
    PL20_TABLE_2,
    PL20_TABLE_3,
    SCORES,
    Z22_TABLE_3,
    all_published_beside,
    comparable,
    published_beside,
    published_confusion,
    sentence_beside,
)
from mvemo.fuse.results import score_model
from mvemo.fuse.tasks import task_of


def printed(text, pattern):
    return [float(value) for value in re.search(pattern, text, re.MULTILINE).group(1).split()]


def test_the_papers_print_these_figures(shared_data):
    papers = shared_data.parent / "papers"
    text = (papers / "pandeya-lee-2020.txt").read_text(encoding="utf-8")
    table_2 = text[text.index("Table 2 The effect") : text.index("The bold number")]
    values = [float(v) for v in re.findall(r"Test Accuracy: ([\d.]+)", table_2)]
    order = [(o, n) for o in ("Adam", "SGD", "RMSprop") for n in CHOSEN_OPTIMIZER]
    assert values == [PL20_TABLE_2[o][n].accuracy for o, n in order]
    table_3 = text[text.index("Table 3 Best") :]
    for word, field, unit in (
        ("Minimum", "accuracy_min", 100),
        ("Mean", "accuracy", 100),
        ("Maximum", "accuracy_max", 100),
        ("F-score", "f1", 1),
        ("ROC AUC Score", "roc_auc", 1),
    ):
        ours = [unit * getattr(row, field) for row in PL20_TABLE_3.values()]
        assert printed(table_3, rf"^{word} ([\d. ]+)$") == pytest.approx(ours)
    text = (papers / "zhou-2022.txt").read_text(encoding="utf-8")
    part = text[text.index("Tab. 2 ") : text.index("Tab. 3 ")]
    for word, field in (("准确率", "accuracy"), ("F_1", "f1"), ("AUC", "roc_auc")):
        ours = [getattr(row, field) for row in SCORES["Z22 Table 2"].values()]
        assert printed(part, rf"^{word}\D*((?:\s0\.\d\d){{5}})$") == ours


def test_figures_stand_beside_exactly_the_published_models():
    results = make_results(24, 2)
    # A net's own outputs are another model than a head on its embedding.
    model = Model("music1d-outputs", ("music1d-outputs",), ("audio",), by_net=True)
    of = results.y_true, results.folds, results.k
    own = score_model(results.task, model, results.models[0].outputs, *of)
    results = replace(results, models=(*results.models, own))
    beside = published_beside(results)
    assert set(beside) == {"music1d-outputs", *PL20_TABLE_3}
    assert beside["music1d-outputs"].accuracy == 0.4453
    assert beside["integrated"].accuracy == 0.88568
    sources = {}
    for name, row in all_published_beside(results):
        sources.setdefault(name, []).append(row.source)
    assert sources["integrated"] == ["PL20 Table 3", "Z22 Table 2"]
    assert sources["music1d-outputs"] == [
        *(f"PL20 Table 2, {optimizer}" for optimizer in ("Adam", "SGD", "RMSprop")),
        "PL20, the authors' files of 427 clips",
        *(f"Z22 Table 1, {optimizer}" for optimizer in ("Adam", "SGD")),
    ]
    assert all_published_beside(replace(results, permuted=True)) == []
    # A fusion of other features, of imported ones, or of narrow nets is another model.
    features = results.provenance["features"]
    for net, changes in (("c3d", {"extractor": "imported"}), ("music1d", {"dim": 64})):
        changed = {**features, net: [{**features[net][0], **changes}]}
        names = set(published_beside(replace(results, provenance={"features": changed})))
        assert not any(net in name or name == "integrated" for name in names)
    more = replace(results.models[-2], features=("c3d", "i3d", "musicnn"))
    assert published_beside(replace(results, models=(more,))) == {}


def test_z22s_confusion_is_in_the_order_of_the_classes():
    results = make_results(24, 2)
    assert published_confusion(results) == Z22_TABLE_3
    reverse = replace(results, classes=CLASSES[::-1])
    assert published_confusion(reverse)[0] == Z22_TABLE_3[-1][::-1]
    assert published_confusion(replace(results, models=results.models[:4])) == []


def test_comparable_is_the_six_classes_in_any_order():
    assert comparable([c.lower() for c in CLASSES[::-1]])
    for others in (CLASSES[:5], (*CLASSES[:5], "Calm"), ("Sad", "sad", *CLASSES[:4])):
        assert not comparable(others)


def test_c17s_figures_stand_beside_arousal_and_valence_of_their_clips_alone():
    task, classes = task_of("regression"), ("Valence", "arousal")
    results = replace(make_results(744, 2), task=task, classes=classes)
    text = sentence_beside(results)
    assert "arousal 0.650, valence 0.457" in text
    assert "arousal 0.551, valence 0.267" in text
    for changes in (
        {"classes": ("energy", "valence")},
        {"clip_ids": results.clip_ids[:24]},
        {"permuted": True},
        {"predicted_by": "music-video"},
    ):
        assert sentence_beside(replace(results, **changes)) == ""

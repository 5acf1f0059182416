"""The studies of protocols and of recipes: their rows, and what they must find."""

from pathlib import Path

import pytest
import torch
from stage_samples import make_chords
from study_samples import conduct, read_tables

from mvemo.extract.nets import build_net
from mvemo.extract.settings import NetSettings, RecipeSettings, TrainSettings
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.studies import protocols
from mvemo.pipeline.studies.protocols import PARTS, chosen_parts, without

PARTS_ON = ("optimizer='adamw'", "patience=0", "epochs=2", "probe=true", "cosine=true")
RECIPE = tuple(f"nets.music1d.{part}" for part in (*PARTS_ON, "average=0.5"))
RECIPES = ("--profile", "paper", "--net", "music1d")


def test_nets_with_public_weights_are_frozen(monkeypatch):
    monkeypatch.setattr(protocols, "find_weights", lambda name: Path(name))
    quick = ["musicnn", "effnet"]
    for given, names in ((None, quick), (["i3d", "effnet", "i3d"], ["i3d", "effnet"])):
        assert [plan.name for plan in protocols.frozen_plans(given)] == names
    with pytest.raises(BadOption, match="--frozen: unknown net 'cnn'; expected one of effnet, i3d"):
        protocols.frozen_plans(["cnn"])


def test_shared_nets_know_shuffled_labels_and_crossfitted_ones_do_not(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(protocols, "find_weights", lambda name: None)
    # As long as it takes to learn the clips by heart.
    options = "options={seconds=0.05, dropout=0.0}"
    changes = (options, "width=0.25", "iterations=40", "patience=0", "batch_size=32", "lr=0.02")
    by_heart = (*(f"nets.music1d.{each}" for each in changes), "fuse.C=1.0")
    chords = make_chords(tmp_path, 32)
    assert conduct("protocols", chords, tmp_path, "--nets", "music1d", settings=by_heart) == 0
    printed = capsys.readouterr().out
    table = read_tables(tmp_path / "protocols", "protocols")["tables"]["scores"]
    of_name = {row[0]: row for row in table["rows"]}
    shuffled = ["shuffled labels, shared", "shuffled labels, crossfit"]
    assert [name.split(":")[0] for name in of_name] == ["shared", "crossfit", *shuffled]
    shared, crossfit = (of_name[name][2] for name in shuffled)
    assert shared > 0.55
    assert crossfit < 0.5
    # Neither PL20's classes nor its nets.
    assert not any("published" in column for column in table["columns"])
    assert "Published values are shown only next to scores with the papers'" in printed
    assert "music1d (width 0.25 of 1) is narrower than the published nets" in printed
    assert "With shuffled labels, nets that saw the test clips change accuracy by +" in printed
    assert "There is no frozen row, because no public weights" in printed


def test_a_recipe_is_scored_without_each_of_its_parts(small_set, tmp_path, capsys):
    torch.manual_seed(0)
    torch.save(build_net("music1d", 4, width=0.1, seconds=1.0).state_dict(), tmp_path / "own.pt")
    weights = (f"nets.music1d.weights='{tmp_path / 'own.pt'}'",)
    assert conduct("recipes", small_set, tmp_path, *RECIPES, settings=(*RECIPE, *weights)) == 0
    printed = capsys.readouterr().out
    table = read_tables(tmp_path / "recipes", "recipes")["tables"]["scores"]
    names = [column["name"] for column in table["columns"]]
    of_name = {row[0]: dict(zip(names, row, strict=True)) for row in table["rows"]}
    assert list(of_name) == [
        *("full recipe", "without probe", "without cosine", "without average", "probe only"),
        *("the papers' recipe", "full recipe, linear head", "frozen, linear head"),
    ]
    full = of_name["full recipe"]
    assert full["full less this"] is None
    for name, row in of_name.items():
        if name != "full recipe":
            assert row["full less this"] == pytest.approx(full["accuracy"] - row["accuracy"])
            # Six groups are too few for an interval.
            assert row["from"] is None is row["to"]
    assert "With a linear head on both, the embeddings of the fine-tuned net" in printed


def test_a_net_without_a_recipe_is_told(small_set, tmp_path, capsys):
    assert conduct("recipes", small_set, tmp_path, *RECIPES) == 2
    assert "music1d has no recipe in this profile: use --profile best" in capsys.readouterr().err
    mixup = ("--parts", "mixup")
    assert conduct("recipes", small_set, tmp_path, *RECIPES, *mixup, settings=RECIPE) == 2
    message = "--parts: unknown part 'mixup'; music1d has probe, cosine, average"
    assert message in capsys.readouterr().err


def test_a_part_left_out_changes_nothing_else():
    recipe = RecipeSettings(True, 0.1, True, 1.0, 0.7, True, 0.25, True, 0.2)
    plan = NetSettings("i3d", train=TrainSettings(patience=0, weight_decay=0.1, recipe=recipe))
    assert chosen_parts(plan, ()) == (*PARTS, "rest", "papers")
    assert chosen_parts(plan, ("papers", "probe")) == ("papers", "probe")
    assert chosen_parts(plan, ("none",)) == ()
    assert chosen_parts(plan, ("rest",)) == ("rest",)
    off = {**dict.fromkeys(PARTS, 0), "layer_decay": 1.0}
    for part in PARTS:
        train = without(plan, part).train
        before = {**vars(plan.train), **vars(recipe), "recipe": None}
        after = {**vars(train), **vars(train.recipe), "recipe": None}
        assert {key: after[key] for key in after if after[key] != before[key]} == {part: off[part]}

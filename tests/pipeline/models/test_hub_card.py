"""The card of a model folder is read by the library of the Hub, and the folder stays valid."""

import shutil

import pytest

from mvemo.fuse.final.model import load_model
from mvemo.pipeline.models.boxed import boxed_names, model_folder
from mvemo.pipeline.models.hub_card import write_hub_card

hub = pytest.importorskip("huggingface_hub")


@pytest.mark.parametrize("name", boxed_names())
def test_the_card_states_task_data_and_score(name, tmp_path):
    folder = tmp_path / name
    shutil.copytree(model_folder(name), folder)
    write_hub_card(folder, name)
    card = hub.ModelCard.load(folder / "README.md")
    model = load_model(folder)
    assert card.data.library_name == "mvemo"
    assert set(model.classes) <= set(card.data.tags)
    (result,) = card.data.eval_results
    expected = model.expected_of(model.predictors[0])
    assert (result.metric_value, result.metric_type) == (expected["mean"], expected["metric"])
    assert "Cross-validated scores" in card.text

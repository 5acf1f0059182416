"""A net of one's own is one file: both stages run with it, and nothing else names it."""

import json
import sys
from pathlib import Path

import pytest
from stage_samples import run, tiny_demo

from mvemo.cache import open_cache
from mvemo.extract import nets
from mvemo.pipeline.settings_files import load_settings

# The example of the page is a whole net.
PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
SOURCE = PAGE.read_text(encoding="utf-8").split("```python\n", 1)[1].split("```", 1)[0]


@pytest.fixture
def colours(tmp_path, monkeypatch):
    """The net's file in a folder that the registry looks into."""
    folder = tmp_path / "nets"
    folder.mkdir()
    (folder / "colours.py").write_text(SOURCE)
    monkeypatch.setattr(nets, "__path__", [*nets.__path__, str(folder)])
    yield folder / "colours.py"
    sys.modules.pop("mvemo.extract.nets.colours", None)


@pytest.mark.parametrize("jobs", [1, 2])
def test_both_stages_run_with_a_net_of_ones_own(colours, tmp_path, jobs):
    media = tmp_path / "media"
    tiny_demo(media)
    work, out = tmp_path / "work", tmp_path / "out"
    options = ["--nets", "colours,music1d", "--folds", 2, "--jobs", jobs]
    for setting in (
        "extract.n_frames=4",
        "extract.workers=1",
        "extract.descriptors=times",
        "nets.colours.width=0.5",
        "nets.colours.options.size=8",
        "nets.music1d.width=0.1",
        "nets.music1d.epochs=1",
        "nets.music1d.options.seconds=1.0",
    ):
        options += ["--set", setting]
    assert run("mvemo", "extract", media / "manifest.csv", "--work", work, *options) == 0
    with open_cache(work / "features.h5") as cache:
        spec = cache.variants("colours")[0]
        assert (spec.modality, spec.dim, spec.protocol) == ("video", 4, "crossfit")
        assert spec.params["options"] == {"n_frames": 4, "size": 8}
        assert cache.present("colours", 0).all()
        assert cache.provenance["settings"]["nets"]["colours"]["train"]["lr"] == 1e-2
    fuse = ["--folds", 2, "--out", out, "--set", "fuse.n_resamples=10"]
    assert run("mvemo-cv", work / "features.h5", *fuse) == 0
    metrics = json.dumps(json.loads((out / "metrics.json").read_text()))
    assert '"colours"' in metrics
    assert '"colours+music1d"' in metrics


def test_it_is_there_by_name_alone(colours):
    assert "colours" in nets.net_names()
    assert "mvemo.extract.nets.colours" not in sys.modules
    settings = load_settings("demo", ["nets.colours.lr=0.5"]).nets["colours"]
    assert (settings.train.lr, settings.train.epochs) == (0.5, 2)
    # What it reads is known without a net.
    assert nets.input_of(settings) == nets.VideoInput(n_frames=8, size=16)
    colours.with_name("empty.py").write_text('"""No net here."""\n')
    with pytest.raises(ValueError, match=r"empty\.py: has no class with the name 'empty'"):
        nets.default_settings("empty")
    sys.modules.pop("mvemo.extract.nets.empty", None)

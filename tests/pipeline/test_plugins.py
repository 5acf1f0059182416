"""Plug-ins in both stages: the example package of docs/examples, and wrong parts."""

import json
import sys
from pathlib import Path

import pytest
from stage_samples import run, set_options, tiny_demo

from mvemo.cache import open_cache
from mvemo.extract.workers import pool
from mvemo.manifests import plugins

EXAMPLE = Path(__file__).parents[2] / "docs/examples/mvemo-example"
FILE = """
from mvemo_example import commands, descriptors, heads, layouts, losses, metrics, nets

PLUGINS = {
    "mvemo.nets": {"colours": nets.Colours},
    "mvemo.losses": {"focal": losses.FocalLoss},
    "mvemo.metrics": {"geometric_mean": metrics.GEOMETRIC_MEAN},
    "mvemo.heads": {"forest": heads.forest},
    "mvemo.descriptors": {"crest": descriptors.CREST},
    "mvemo.layouts": {"moods": layouts.MOODS},
    "mvemo.commands": {"songs": commands.songs},
}
"""
TINY = (
    "extract.n_frames=4",
    "extract.workers=1",
    "extract.descriptors=times,crest",
    "nets.colours.width=0.5",
    "nets.colours.options.size=8",
    "nets.music1d.width=0.1",
    "nets.music1d.epochs=1",
    "nets.music1d.loss=focal",
    "nets.music1d.options.seconds=1.0",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of all files of plug-ins, which worker processes keep loaded."""
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(EXAMPLE / "src"))
    # Processes of other tests do not have this path.
    pool.stop_workers()
    yield tmp_path_factory.mktemp("plugins")
    pool.stop_workers()
    patch.undo()


@pytest.fixture
def own(folder, monkeypatch):
    """A function that writes a file of plug-ins, which are forgotten after the test."""
    monkeypatch.setattr(plugins, "_FILES", {kind: {} for kind in plugins.KINDS})
    yield lambda name, text=FILE: (folder / name).write_text(text) and folder / name
    for name in [name for name in sys.modules if name.startswith("mvemo_example")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """A tiny data set."""
    return tiny_demo(tmp_path_factory.mktemp("media"), clips_per_class=1).root


@pytest.mark.parametrize("jobs", [1, 2])
def test_both_stages_run_with_parts_of_a_plugin(own, tmp_path, capsys, jobs):
    tiny_demo(tmp_path / "media")
    work, out, plugin = tmp_path / "work", tmp_path / "out", own("own.py")
    options = ["--nets", "colours,music1d", "--folds", 2, "--jobs", jobs, "--plugin", plugin]
    options += set_options(*TINY)
    manifest = tmp_path / "media/manifest.csv"
    assert run("mvemo", "extract", manifest, "--work", work, *options) == 0
    with open_cache(work / "features.h5") as cache:
        spec = cache.variants("colours")[0]
        assert (spec.modality, spec.dim, spec.protocol) == ("video", 4, "crossfit")
        assert spec.params["options"] == {"n_frames": 4, "size": 8}
        assert spec.params["plugin"] == plugins.plugin_record("nets", "colours")["plugin"]
        assert cache.present("colours", 0).all()
        assert cache.provenance["settings"]["nets"]["colours"]["train"]["lr"] == 1e-2
        assert (cache.spec("crest").dim, cache.present("crest").all()) == (1, True)
        assert cache.spec("crest").params["plugin"]["source"] == "own.py"
        assert [each["name"] for each in cache.provenance["plugins"]] == [
            "colours",
            "focal",
            "crest",
        ]
    fuse = ["--folds", 2, "--out", out, "--set", "fuse.n_resamples=10", "--head", "forest"]
    capsys.readouterr()
    assert run("mvemo-cv", work / "features.h5", *fuse, "--plugin", plugin) == 0
    assert "G-mean" in capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"colours", "colours+music1d", "forest"} <= metrics["models"].keys()
    assert {"geometric_mean", "forest"} <= {p["name"] for p in metrics["provenance"]["plugins"]}
    assert run("mvemo", "--plugin", plugin, "songs", work / "features.h5") == 0
    assert capsys.readouterr().out == "12 clips of 12 songs\n"


BROKEN = """
import numpy as np, torch
from mvemo.extract import Descriptor, Loss
from mvemo_example.nets import Colours, ColoursOptions, NetCard, profile

@NetCard("flat", ColoursOptions, {"paper": profile()})
class Flat(Colours):
    def embed(self, x):
        return super().embed(x)[:, :1]

@NetCard("lost", ColoursOptions, {"paper": profile()})
class Lost(Colours):
    def embed(self, x):
        return super().embed(x) * torch.nan

class Wide(Loss):
    def forward(self, x, classifier, target):
        return self.logits(x, classifier)

class Last(Loss):
    tasks = ("regression",)

PLUGINS = {
    "mvemo.nets": {"flat": Flat, "lost": Lost, "none": 3, "other": Flat},
    "mvemo.losses": {"wide": Wide, "last": Last, "no": print},
    "mvemo.descriptors": {
        "thin": Descriptor(2, lambda frames, sr: np.zeros((len(frames), 1))),
        "holes": Descriptor(1, lambda frames, sr: np.full((len(frames), 1), np.nan)),
        "zero": Descriptor(1, lambda frames, sr: 1 / 0),
    },
}
"""


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--nets", "flat"], "flat: OWN cannot provide this net: expected finite embeddings"),
        (
            ["--nets", "lost"],
            "lost: OWN cannot provide this net: expected finite embeddings",
        ),
        (["--nets", "none"], "none: OWN cannot provide this net: expected a class derived from"),
        (["--nets", "other"], "other: OWN cannot provide this net: expected the decorator"),
        (["--set", "nets.colours.loss=wide"], "wide: OWN cannot provide this loss: "),
        (["--set", "nets.colours.loss=last"], "loss 'last' is for regression, but the task is"),
        (["--set", "nets.colours.loss=no"], "no: OWN cannot provide this loss: expected a class"),
        (["--set", "extract.descriptors=thin"], "thin: OWN cannot provide this descriptor: "),
        (["--set", "extract.descriptors=holes"], "holes: OWN cannot provide this descriptor: "),
        (["--set", "extract.descriptors=zero"], "zero: OWN cannot provide this descriptor: Zero"),
    ],
)
def test_a_wrong_part_is_named_in_one_line(own, media, tmp_path, capsys, options, problem):
    files = [own("own.py"), own("broken.py", BROKEN)]
    base = ["--nets", "colours", "--protocol", "shared", "--set", "nets.colours.options.size=8"]
    base += ["--set", "extract.workers=1", "--set", "extract.descriptors=times"]
    named = [part for file in files for part in ("--plugin", file)]
    arguments = [media / "manifest.csv", "--work", tmp_path / "w", *base, *options, *named]
    assert run("mvemo", "extract", *arguments) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "mvemo: " in each]
    assert problem.replace("OWN", str(files[1])) in line


def test_a_broken_net_is_listed_and_the_others_go_on(own, tmp_path, capsys):
    file = own("broken.py", BROKEN)
    assert run("mvemo", "nets", "--plugin", file) == 0
    shown = capsys.readouterr()
    assert "none: " in shown.err
    assert "musicnn" in shown.out

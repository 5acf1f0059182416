"""The precision ``auto``: measured once where the processor has bf16, else float32."""

import pytest
from stage_samples import run, tiny_demo, tiny_settings

from mvemo.cache import open_cache
from mvemo.extract import cost
from mvemo.extract.cost import NetCost
from mvemo.manifests import write_manifest
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.stage_one import plan as planning

AUTO = "extract.precision=auto"


@pytest.fixture
def timed(monkeypatch, tmp_path):
    """What was measured, on a processor with bf16 that is twice as fast for all nets but i3d."""
    facts = "model name\t: Made CPU\nflags\t\t: fpu avx512_bf16\n"
    monkeypatch.setattr(cost, "system_text", lambda name: facts)
    measured = []

    def measure(plan, run, descriptors, threads=0):
        measured.append(f"{plan.name} {run.precision}")
        slow = (run.precision == "bf16") == (plan.name == "i3d")
        return NetCost(2.0 if slow else 1.0)

    monkeypatch.setattr(cost, "measure_net", measure)
    return measured


def chosen(work, net="music1d", *more):
    settings = load_settings("paper", [AUTO, "extract.device=cpu", *more])
    run, path = settings.extract.run, work / planning.PRECISION_FILE
    return cost.choose_precision([settings.nets[net]], run, settings.descriptors, path)[0]


def test_frozen_nets_that_bf16_changes_are_float32(timed, tmp_path):
    assert chosen(tmp_path, "effnet", "extract.protocol=frozen") == "float32"
    assert timed == []
    assert chosen(tmp_path, "musicnn", "extract.protocol=frozen") == "bf16"
    assert chosen(tmp_path, "effnet") == "bf16"


def test_the_faster_precision_is_measured_once(timed, tmp_path):
    assert chosen(tmp_path) == chosen(tmp_path) == "bf16"
    assert timed == ["music1d bf16", "music1d float32"]
    # Another net is another question.
    assert chosen(tmp_path, "i3d") == "float32"
    assert len(timed) == 4
    (tmp_path / planning.PRECISION_FILE).write_text("{")
    assert chosen(tmp_path, "i3d") == "float32"
    assert len(timed) == 6


def test_nothing_is_measured_of_a_processor_without_bf16(timed, tmp_path, monkeypatch):
    assert chosen(tmp_path, "music1d", "extract.precision=bf16") == "bf16"
    for facts in ("model name : Made CPU\nflags : fpu avx512f\n", ""):
        monkeypatch.setattr(cost, "system_text", lambda name, facts=facts: facts)
        assert chosen(tmp_path) == "float32"
    assert timed == []
    assert not (tmp_path / planning.PRECISION_FILE).exists()


def test_what_was_measured_is_in_the_cache(timed, tmp_path, capsys):
    manifest = tiny_demo(tmp_path / "demo")
    write_manifest(manifest, tmp_path / "demo" / "clips.csv")
    work = tmp_path / "work"
    settings = tiny_settings(
        *(AUTO, "extract.device=cpu", "extract.nets=music1d", "extract.descriptors=[]"),
        "nets.music1d.epochs=1",
    )
    arguments = ("mvemo", "extract", tmp_path / "demo" / "clips.csv", "--work", work, *settings)
    assert run(*arguments, "--plan") == 0
    assert not (work / planning.PRECISION_FILE).exists()
    assert run(*arguments) == 0
    said = "extract.precision=auto is bf16: the nets take 1 s per clip in bf16 and 2 s in float32"
    assert said in capsys.readouterr().err
    with open_cache(work / "features.h5") as cache:
        assert any(note.startswith(said) for note in cache.provenance["notes"])
        assert cache.provenance["settings"]["extract"]["run"]["precision"] == "bf16"
        assert {spec.params["precision"] for spec in cache.specs} == {"bf16"}

"""`mvemo demo`: both stages in one folder."""

from types import SimpleNamespace
from typing import Any

from click.testing import CliRunner

from mvemo.pipeline import cli, stage_two
from mvemo.pipeline.stage_one import run


def test_everything_is_made_in_the_folder_by_the_profile_demo(tmp_path, monkeypatch):
    calls: dict[str, Any] = {}

    def run_extract(request):
        calls["extract"] = (request.manifest, request.settings.profile, request.work, request.out)
        return SimpleNamespace(text=lambda: "extracted")

    def run_fuse(request):
        calls["fuse"] = (request.features, request.settings, request.out)
        return "fused"

    monkeypatch.setattr(run, "run_extract", run_extract)
    monkeypatch.setattr(stage_two, "run_fuse", run_fuse)
    monkeypatch.setattr(stage_two, "settings_for", lambda features, profile: profile)
    done = CliRunner().invoke(cli.mvemo, ["demo", str(tmp_path / "try it")])
    assert done.output == "extracted\n\nfused\n"
    work, out = tmp_path / "try it" / "work", tmp_path / "try it" / "out"
    assert calls["extract"] == (None, "demo", work, work / "features.h5")
    assert calls["fuse"] == (work / "features.h5", "demo", out)

from dataclasses import fields
from pathlib import Path

import pytest

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.pipeline import settings as settings_module
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import (
    DEFAULT_NETS,
    NET_NAMES,
    PROFILES,
    ExtractSettings,
    FuseSettings,
    NetSettings,
    load_settings,
)


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_that_come_with_mvemo_are_complete(profile):
    settings = load_settings(profile)
    assert settings.extract.protocol == "crossfit"
    assert set(settings.nets) == set(NET_NAMES)
    assert settings.extract.nets == DEFAULT_NETS
    assert settings.extract.folds == 6


def test_paper_profile_holds_the_chosen_row_of_table_2():
    nets = load_settings("paper").nets
    chosen = {
        name: (nets[name].optimizer, nets[name].lr, nets[name].momentum) for name in DEFAULT_NETS
    }
    assert chosen == {
        "music1d": ("adam", 1e-3, 0.0),
        "music2d": ("sgd", 1e-3, 0.5),
        "c3d": ("sgd", 1e-5, 0.0),
        "i3d": ("adam", 1e-4, 0.0),
    }


def test_overrides_reach_their_setting_in_its_type():
    settings = load_settings(
        "paper",
        ["nets.i3d.lr=3e-4", "extract.folds=4", "extract.protocol=frozen", "nets.c3d.width=1"],
    )
    assert settings.nets["i3d"].lr == 3e-4
    assert settings.extract.folds == 4
    assert settings.extract.protocol == "frozen"
    assert settings.nets["c3d"].width == 1.0
    assert isinstance(settings.nets["c3d"].width, float)


def test_options_of_a_net_can_be_overridden_one_by_one():
    nets = load_settings("paper", ["nets.i3d.options.size=64"]).nets
    assert nets["i3d"].options["size"] == 64


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("extract.fold=4", "extract.fold: unknown setting; there are protocol"),
        ("nets.i4d.lr=1", "unknown net 'i4d': one of music1d"),
        ("extract.folds=six", "'six': it takes int"),
        ("extract.folds=true", "True: it takes int"),
        ("extract.nets=music1d,foo", "unknown net 'foo'"),
        ("folds=4", "unknown setting 'folds'"),
        ("folds", "write it as key=value"),
        ("extract.folds.x=1", "no table of settings"),
    ],
)
def test_bad_overrides_are_one_line_with_what_is_allowed(override, says):
    with pytest.raises(BadOption) as caught:
        load_settings("paper", [override])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_profile_file_of_ones_own(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text("[extract]\nnets = ['i3d']\n[nets.i3d]\nlr = 1\n")
    settings = load_settings(str(path))
    assert settings.extract.nets == ("i3d",)
    assert settings.nets["i3d"].lr == 1.0


@pytest.mark.parametrize("text", ["[extract", "x = 1\n", "extract = 3\n"])
def test_bad_profile_files_name_the_file(tmp_path: Path, text: str):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(BadOption, match=r"mine\.toml"):
        load_settings(str(path))


def test_unknown_profile():
    with pytest.raises(BadOption, match="neither one of demo, paper nor a file"):
        load_settings("big")


def test_the_paper_profile_lists_every_setting():
    folder = Path(settings_module.__file__).with_name("profiles")
    tree = settings_module.tomllib.loads((folder / "paper.toml").read_text())
    kinds = {"extract": ExtractSettings, "descriptors": DescriptorSettings, "fuse": FuseSettings}
    for name, kind in kinds.items():
        assert set(tree[name]) == {f.name for f in fields(kind)}
    assert set(tree["nets"]) == set(NET_NAMES)
    for table in tree["nets"].values():
        # Which options there are is the net's own affair.
        assert {f.name for f in fields(NetSettings)} - set(table) <= {"options"}

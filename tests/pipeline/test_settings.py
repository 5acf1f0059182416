from dataclasses import replace
from pathlib import Path

import pytest

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.nets import NETS, input_of, net_names
from mvemo.extract.settings import NetSettings, RecipeSettings, ViewSettings
from mvemo.fuse import EvaluationSettings
from mvemo.manifests.declared import profile_fields
from mvemo.manifests.errors import BadOption, MvemoError
from mvemo.manifests.text_files import parse_toml
from mvemo.pipeline import settings_files
from mvemo.pipeline.settings import DEFAULT_NETS, PROFILES, ExtractSettings
from mvemo.pipeline.settings_files import load_fuse_settings, load_settings
from mvemo.pipeline.starting_weights import random_start_note


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_that_come_with_mvemo_are_complete(profile):
    settings = load_settings(profile)
    assert set(settings.nets) == set(net_names())
    assert settings.extract.folds == 6
    if profile in ("paper", "demo"):
        extract = settings.extract
        found = extract.run.protocol, extract.nets, extract.fetch, settings.fuse.lld
        assert found == ("crossfit", DEFAULT_NETS, False, ())


def test_the_pretrained_profile_trains_nothing_and_has_weights_to_fetch():
    settings = load_settings("pretrained")
    assert settings.extract.run.protocol == "frozen"
    assert settings.extract.nets == ("musicnn", "effnet")
    assert settings.extract.fetch
    assert all(NETS[name].package is not None for name in settings.extract.nets)
    # Stage two makes statistics of what stage one writes.
    assert set(settings.fuse.lld) <= set(settings.extract.descriptors)
    paper = load_settings("paper").nets
    assert {name for name in paper if settings.nets[name] != paper[name]} == {"i3d"}
    assert settings.nets["i3d"].view == ViewSettings(views=2, rate=12.5)
    assert settings.nets["i3d"].options == {"n_frames": 32, "size": 224}


def test_choi_s_net_is_a_profile_of_its_own():
    options = {name: load_settings(name).nets["music2d"].options for name in ("paper", "c17")}
    # PL20 3.1: 96 x 1,876 from 16 kHz; Choi et al. 2017: 96 x 1,360 from 12 kHz.
    assert input_of(NetSettings("music2d", options=options["paper"])).sr == 16_000
    assert input_of(NetSettings("music2d", options=options["c17"])).sr == 12_000
    settings = load_settings("c17")
    assert settings.extract.run.protocol == "frozen"
    assert settings.extract.nets == ("music2d",)


def test_overrides_reach_their_setting_in_its_type():
    given = ["nets.i3d.lr=3e-4", "extract.protocol=frozen", "nets.c3d.width=1"]
    given += ["nets.rnn.views=3", "nets.rnn.layout=dense", "nets.rnn.pooling=mean+std"]
    settings = load_settings("paper", given)
    assert settings.nets["rnn"].view == ViewSettings(views=3, layout="dense", pooling="mean+std")
    assert settings.nets["i3d"].train.lr == 3e-4
    assert settings.extract.run.protocol == "frozen"
    assert settings.nets["c3d"].width == 1.0
    assert isinstance(settings.nets["c3d"].width, float)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("nets.rnn.views=0", "nets.rnn.views is 0: it must be 1 or more"),
        ("nets.rnn.rate=2.0", "rnn: rate is 2.0, but only video nets have a rate"),
        ("nets.rnn.layout=sideways", "one of start, spread, dense"),
        ("extract.fold=4", "extract.fold: unknown setting; expected one of protocol"),
        ("nets.i4d.lr=1", "unknown net 'i4d': expected one of c3d"),
        ("extract.folds=true", "expected an integer, got True"),
        ("folds=4", "unknown setting; did you mean extract.folds?"),
        ("nets.musicnn.outputs=units", "did you mean nets.musicnn.options.outputs?"),
        ("musicnn.outputs=units", "did you mean nets.musicnn.options.outputs?"),
        ("nets.musicnn.options.lr=1", "did you mean nets.musicnn.lr?"),
        ("extract.n_fft=4", "did you mean descriptors.n_fft?"),
        ("fold=4", "unknown setting 'fold': expected extract"),
        ("extract.folds.x=1", "not a table of settings"),
        ("nets.c3d.name=i3d", "nets.c3d.name: unknown setting"),
        ("nets.c3d.lr=0", "nets.c3d.lr is 0.0: it must be above 0"),
        ("nets.c3d.options.depth=3", "c3d.depth: unknown setting; expected one of"),
        ("nets.c3d.options=3", "expected a table, got 3"),
        ("nets.c3d=3", "expected a table of settings, got 3"),
        ("extract.workers=1000000000", "0: it must be from 0 to 1000000"),
    ],
)
def test_bad_overrides_are_one_line_with_what_is_allowed(override, says):
    with pytest.raises(BadOption) as caught:
        load_settings("paper", [override])
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def numbers():
    """Key of every number that a profile may set, in the tables of one net, and of its options."""
    settings = load_settings("paper")
    tables = {"extract": settings.extract, "descriptors": settings.descriptors}
    tables |= {"fuse": settings.fuse, "nets.crnn": settings.nets["crnn"]}
    found = [
        f"{table}.{each.name}"
        for table, of_table in tables.items()
        for each, value in profile_fields(of_table)
        if isinstance(value, (int, float))
    ]
    return found + [
        f"nets.{n}.options.{k}" for n, net in settings.nets.items() for k in net.options
    ]


NUMBERS = "nan", "inf", "-inf", "1e300", "-1e300", "1" + "0" * 400, "9" * 5000


def test_no_setting_takes_a_number_that_is_not_finite_or_is_huge():
    found = numbers()
    assert len(found) > 80
    cases = [(key, "nan") for key in found]
    cases += [(key, number) for key in ("fuse.C", "extract.folds") for number in NUMBERS]
    for key, number in cases:
        with pytest.raises(BadOption, match=key.rsplit(".", 1)[1]) as caught:
            load_settings("paper", [f"{key}={number}"])
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300


DEEP = 5000


@pytest.mark.parametrize(
    "override",
    ["fuse.C=" + "[" * DEEP, "nets.i3d.options" + ".a" * DEEP + "=1", "nets" + ".a" * DEEP + "=1"],
    ids=["list", "options", "tables"],
)
def test_settings_nested_too_deeply_are_refused(override, tmp_path):
    (tmp_path / "deep.toml").write_text(f"[extract]\nfolds = {'[' * DEEP}\n")
    for profile, overrides in (("paper", [override]), (str(tmp_path / "deep.toml"), [])):
        with pytest.raises(MvemoError, match="nested too deeply") as caught:
            load_settings(profile, overrides)
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("text", ["[extract", "x = 1\n", "extract = 3\n"])
def test_bad_profile_files_name_the_file(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text("[extract]\nnets = ['i3d']\n[nets.i3d]\nlr = 1\n")
    settings = load_settings(str(path))
    assert (settings.extract.nets, settings.nets["i3d"].train.lr) == (("i3d",), 1.0)
    path.write_text(text)
    with pytest.raises(MvemoError, match=r"mine\.toml"):
        load_settings(str(path))


def test_the_paper_profile_lists_every_setting_but_those_of_nets():
    folder = Path(settings_files.__file__).with_name("profiles")
    tree = parse_toml((folder / "paper.toml").read_text())
    kinds = {"descriptors": DescriptorSettings, "fuse": EvaluationSettings}
    kinds["extract"] = ExtractSettings
    assert set(tree) == set(kinds)
    for name, kind in kinds.items():
        known = {each.name for each, _ in profile_fields(kind())}
        assert set(tree[name]) == known - {"nets"}
        # What the paper's profile says is what holds where a profile says nothing.
        settings = getattr(load_settings("paper"), name)
        assert settings == kind()


# Options of a profile, with those that follow from the run; docs/settings-nets.md has the rest.
RESOLVED = {
    "paper": {
        "music1d": {"seconds": 30.0},
        "c3d": {"size": 112, "scale": "unit", "n_frames": 32},
        "cnn": {"n_frames": 430, "n_mels": 64},
        "rnn": {"n_frames": 430, "n_mfcc": 20},
        "speccnn": {"n_frames": 1378, "spectrogram_dim": 513},
    },
    "demo": {
        "music2d": {"seconds": 4.0, "front_end": "pl20", "activation": "relu", "norm": "batch"},
        "crnn": {"n_frames": 172, "spectrogram_frames": 344, "bands": 64, "spectrogram_dim": 513}
        | {"lld_dim": 49},
        "i3d": {"size": 64, "dropout": 0.2, "norm_momentum": 0.1, "n_frames": 8},
    },
}


@pytest.mark.parametrize("profile", RESOLVED)
def test_options_of_the_nets(profile):
    nets = load_settings(profile).nets
    for name, options in RESOLVED[profile].items():
        assert nets[name].record()["options"] == options
        # The papers know no part of today's recipes.
        assert (nets[name].train.recipe, nets[name].weights) == (RecipeSettings(), "")
    overrides = ["extract.n_frames=16", "nets.i3d.options.n_frames=4", "descriptors.n_mels=40"]
    nets = load_settings(profile, overrides).nets
    assert [nets[name].options["n_frames"] for name in ("c3d", "i3d")] == [16, 4]
    assert nets["cnn"].options["n_mels"] == 40


@pytest.mark.parametrize("override", ["nets.i3d.options.size=32", "nets.i3d.options={size=32}"])
def test_options_keep_those_that_are_not_named(override):
    options = load_settings("demo", [override]).nets["i3d"].options
    assert options == RESOLVED["demo"]["i3d"] | {"size": 32}


def test_stage_twos_settings_are_those_of_both_stages():
    assert load_fuse_settings("paper") == load_settings("paper").fuse
    with pytest.raises(BadOption, match="unknown net 'i4d'"):
        load_fuse_settings("paper", ["nets.i4d.lr=1"])


def test_nets_that_start_from_random_weights_though_their_papers_did_not_are_named():
    settings = load_settings("paper")
    plans = [settings.nets[name] for name in settings.extract.nets]
    note = random_start_note(plans, settings)
    assert "music2d (C17's weights" in note
    assert "c3d (Sports-1M weights" in note
    assert note.endswith("c3d has scale=unit, which random weights need.")
    # PL20's 1D net starts from random weights, too.
    assert "music1d" not in note
    given = [replace(plan, weights="file.npz") for plan in plans]
    assert random_start_note(given, settings) == ""
    assert random_start_note(plans, load_settings("c17")) == ""

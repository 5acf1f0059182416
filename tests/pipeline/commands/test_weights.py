"""The commands of `mvemo weights`, run in process."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from mvemo.extract.errors import BadSetting, BadWeights, MissingFile
from mvemo.extract.nets import build_net
from mvemo.pipeline.commands.weights import weights
from mvemo.pipeline.errors import BadOption


def run(*arguments: object) -> Result:
    return CliRunner().invoke(weights, [str(a) for a in arguments])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(build_net("music1d", 6, width=0.25).state_dict(), tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_info(file: Path) -> None:
    done = run("info", file)
    assert done.exit_code == 0, done.output
    assert "torch checkpoint, 10 tensors" in done.output
    assert "known as nothing" in done.output
    assert "convolutions.1.weight  float32  8 x 8 x 3" in done.output


def test_check(file: Path) -> None:
    done = run("check", "music1d", file, "--width", 0.25, "--option", "seconds=2")
    assert done.exit_code == 0, done.output
    assert "10 of the net's 10 tensors loaded" in done.output
    state = torch.load(file, weights_only=True)
    del state["convolutions.0.bias"]
    torch.save(state, file)
    done = run("check", "music1d", file, "--width", 0.25)
    assert done.exit_code == 1
    assert "convolutions.0.bias" in done.output
    assert "incomplete" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("info", "none.pt"), MissingFile, "none.pt: no such weight file"),
        (("check", "vgg", "FILE"), BadSetting, "one of c3d, cnn, crnn, i3d"),
        (("check", "music1d", "FILE"), BadWeights, "no tensor has the shape"),
        (("check", "music2d", "FILE"), BadWeights, "no tensor"),
        (("check", "music1d", "FILE", "--option", "seconds"), BadOption, "key=value"),
        (
            ("check", "music1d", "FILE", "--width", 0.25, "--video", "x.mp4"),
            BadOption,
            "no labels of its own",
        ),
    ],
)
def test_bad_input_is_one_line(file: Path, arguments, kind, message) -> None:
    done = run(*(file if a == "FILE" else a for a in arguments))
    assert isinstance(done.exception, kind)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_released_file(shared_data: Path) -> None:
    done = run("check", "music2d", shared_data / "choi2017" / "msd_compact_cnn_theano.hdf5")
    assert done.exit_code == 0, done.output
    assert "known as C17" in done.output
    assert "22 of the net's 24 tensors loaded" in done.output


def test_list_tells_files_and_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    from mvemo.extract import nets

    few = {name: nets.NETS[name] for name in ("music1d", "music2d")}
    monkeypatch.setattr(nets, "NETS", few)
    done = run("list")
    assert done.exit_code == 0, done.output
    assert "music1d: audio\n  accepts its own" in done.output
    assert "accepts C17's msd_compact_cnn_theano.hdf5" in done.output
    assert '"reverse_window": true' in done.output
    assert 'settings in paper {"name": "music2d", "width": 1.0, "options": {}, ' in done.output

"""`mvemo doctor`: what it finds where something is absent, damaged, of another version."""

import re
import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from mvemo.extract.cost import NetCost
from mvemo.extract.pretrained import find_package
from mvemo.extract.pretrained.store import keep_weights
from mvemo.extract.workers.pool import cores
from mvemo.pipeline import cli
from mvemo.pipeline.commands.doctor import (
    LITTLE_ROOM,
    check_codecs,
    check_folder,
    check_gpu,
    check_packages,
    check_speed,
    check_torch_pair,
    check_weights,
    examine,
)
from mvemo.pipeline.settings_files import load_settings

REAL_VERSION = metadata.version
STAGE_ONE = ("torch", "torchvision", "av", "opencv-python-headless", "soundfile", "soxr")
STAGE_ONE += ("librosa", "platformdirs")


def installed(monkeypatch, **versions):
    """Let packages be of another version, or None for absent."""

    def version(name):
        found = versions.get(name.replace("-", "_"), REAL_VERSION(name))
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)


def test_this_installation_is_in_order():
    findings, stage_one = check_packages()
    assert stage_one
    assert [f.subject for f in findings] == ["mvemo", "stage two", "stage one", "torch pair"]
    assert {f.status for f in findings} == {"ok"}
    assert f"torch {REAL_VERSION('torch')}" in findings[-1].text


def test_a_base_install_is_no_problem(monkeypatch, tmp_path):
    installed(monkeypatch, **{name.replace("-", "_"): None for name in STAGE_ONE})
    findings = list(examine(tmp_path, 100))
    assert [f.status for f in findings] == ["ok", "ok", "note", "ok"]
    assert findings[2].line().endswith("-> in mvemo's folder: pip install '.[extract]'")
    assert findings[3].subject == "work folder"


def test_old_and_absent_packages_are_problems(monkeypatch):
    installed(monkeypatch, numpy="1.20.0", av=None)
    findings, stage_one = check_packages()
    texts = {f.subject: f.text for f in findings if f.status == "problem"}
    assert not stage_one
    assert texts == {
        "stage two": "numpy: expected >=1.26, got 1.20.0",
        "stage one": "av is not installed",
    }


def test_a_package_that_cannot_be_imported_is_a_problem(monkeypatch):
    monkeypatch.setitem(sys.modules, "soxr", None)
    findings, stage_one = check_packages()
    (broken,) = [f for f in findings if f.status == "problem"]
    assert not stage_one
    assert (broken.subject, broken.cure) == ("soxr", "pip install --force-reinstall soxr")


def test_a_torchvision_that_does_not_fit_torch_is_a_problem(monkeypatch):
    with monkeypatch.context() as patched:
        installed(patched, torch="2.9.0")
        found = check_torch_pair()
    assert "do not work together: torchvision needs torch" in found.text
    assert (found.status, "same index" in found.cure) == ("problem", True)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(ops=SimpleNamespace()))
    assert "do not work together" in check_torch_pair().text


def test_a_folder_is_written_to_and_left_as_it_was(tmp_path, monkeypatch):
    def check(folder, free):
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
        found = check_folder("work folder", folder, "--work FOLDER")
        return found.status, found.cure

    assert check(tmp_path / "not" / "there", LITTLE_ROOM) == ("ok", "")
    assert list(tmp_path.iterdir()) == []
    on_another = "--work FOLDER, on a disk with more free space"
    assert check(tmp_path, LITTLE_ROOM - 1) == ("note", on_another)
    (tmp_path / "file").touch()
    assert check(tmp_path / "file", LITTLE_ROOM) == ("problem", "--work FOLDER")


def test_weights_are_absent_whole_or_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("MVEMO_HOME", str(tmp_path))
    stored = keep_weights(find_package("musicnn"), {}, "a licence")
    found = {f.subject: f for f in check_weights()}
    assert found["weights musicnn"].status == "ok"
    assert stored.sha256[:16] in found["weights musicnn"].text
    assert found["weights i3d"].line().endswith("-> mvemo weights get i3d")
    stored.path.write_bytes(b"other")
    damaged = {f.subject: f for f in check_weights()}["weights musicnn"]
    assert (damaged.status, "damaged" in damaged.text) == ("problem", True)


def test_codecs_that_are_absent_are_named(monkeypatch):
    assert check_codecs().status == "ok"
    monkeypatch.setattr("mvemo.pipeline.commands.doctor.CODECS", ("h264", "no-such-codec"))
    found = check_codecs()
    assert found.status == "note"
    assert "does not read no-such-codec" in found.text


def test_a_gpu_that_torch_does_not_find_is_a_problem(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert check_gpu().status == "note"
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    assert check_gpu().status == "problem"


def test_speed_is_measured_on_a_clip_and_extrapolated(monkeypatch, capsys):
    settings = load_settings("demo", ["extract.nets=music2d", "extract.descriptors=mfcc"])
    monkeypatch.setattr("mvemo.extract.cost.measure_net", lambda *_: NetCost(2.0, 0, 0))
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    one, many = check_speed(settings, 3600, seconds=2.0)
    found = re.fullmatch(r"a clip of 2 s takes: reading ([\d.]+) s, music2d ([\d.]+) s", one.text)
    reading, net = map(float, found.groups())
    assert net > 0
    hours, room = re.findall(r"about (\d+) h .* ([\d.]+) GiB", many.text)[0]
    assert int(hours) == pytest.approx(reading / cores() + net, abs=1.1)
    assert float(room) > 3600 * 4 * 16_000 / 2**30 - 0.1
    assert capsys.readouterr() == ("", "")


def test_the_command_ends_with_1_where_there_is_a_problem(monkeypatch, tmp_path):
    arguments = ["doctor", "--no-speed", "--work", str(tmp_path)]
    done = CliRunner().invoke(cli.mvemo, arguments, standalone_mode=False)
    assert done.return_value == 0
    assert all(line.split()[0] in ("ok", "note") for line in done.stdout.splitlines())
    installed(monkeypatch, numpy="1.20.0")
    done = CliRunner().invoke(cli.mvemo, [*arguments, "--quiet"], standalone_mode=False)
    assert done.return_value == 1
    assert "ok " not in done.stdout
    assert done.stderr == "1 problem\n"

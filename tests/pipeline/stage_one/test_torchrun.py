"""Two processes train each net together, over gloo on the CPU: the net that one would train."""

import os
import socket
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
from spread_samples import extract
from stage_samples import refusal, run

from mvemo.cache import open_cache
from mvemo.extract.training import ranks

# What torchrun states of its second process.
SECOND = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}
# Of the largest value: sums are taken in another order.
TOLERANCE = 1e-4
# Nothing is drawn at random; `rnn` has batch normalisation. A last batch of one clip, and rates
# at which weights move far.
MORE = (
    "nets.music1d.options={seconds=0.5, dropout=0.0}",
    "nets.rnn.options={dropout=0.0}",
    *(
        f"nets.{net}.{setting}"
        for net in ("music1d", "rnn")
        for setting in ("epochs=2", "batch_size=3", "optimizer=sgd", "lr=0.3")
    ),
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_two_processes_train_the_nets_that_one_does(sounds, tmp_path, monkeypatch, capsys):
    options = [*sounds.trained, *(part for value in MORE for part in ("--set", value))]
    two = ["extract", str(sounds.manifest), "--work", str(tmp_path / "two"), *options]
    for name, value in {**SECOND, "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-m", "mvemo.pipeline", *two]
    second = subprocess.Popen(
        command, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert run("mvemo", *two) == 0
    said, errors = second.communicate()
    assert second.returncode == 0, errors
    # One writes, and one tells.
    assert said == ""
    assert "Traceback" not in errors
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name)
    assert run("mvemo", "extract", sounds.manifest, "--work", tmp_path / "one", *options) == 0
    with (
        open_cache(tmp_path / "one" / "features.h5") as one,
        open_cache(tmp_path / "two" / "features.h5") as other,
    ):
        assert one.names() == other.names()
        for spec in one.specs:
            if spec.kind == "sequence":
                continue
            alone, present = one.vectors(spec.name, spec.fold)
            together, _ = other.vectors(spec.name, spec.fold)
            scale = np.abs(alone[present]).max()
            assert np.abs(alone - together)[present].max() < TOLERANCE * scale
        for name, curve in one.curves.items():
            np.testing.assert_allclose(
                other.curves[name]["train_loss"], curve["train_loss"], rtol=1e-3
            )
            # It learned: the same was not only the start.
            assert curve["train_loss"][0] != curve["train_loss"][-1]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system is to end it")
def test_a_killed_torchrun_leaves_no_process():
    rank = "import os, time; from mvemo.pipeline.start import end_with_torchrun\n"
    rank += "end_with_torchrun(); print(os.getpid(), flush=True); time.sleep(1000)"
    launcher = "import subprocess, sys; subprocess.call([sys.executable, '-c', sys.argv[1]])"
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "none"}
    # Where both have ended, nobody writes to it any more.
    with subprocess.Popen(
        [sys.executable, "-c", launcher, rank], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        process.kill()
        assert process.stdout.read() == ""


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("frozen", (), "the protocol frozen trains nothing"),
        ("trained", ("--jobs", 2), "leave out --shard, --jobs and --backend"),
    ],
)
def test_options_that_ranks_do_not_support_are_refused(
    kind, options, said, sounds, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(ranks, "joined_ranks", lambda device: nullcontext(ranks.Ranks(0, 2)))
    assert extract(sounds, kind, tmp_path / "work", *options) == 2
    assert said in refusal(capsys)

"""What a run will do and cost: `--plan`, and the warning before a long run."""

import pytest
from spread_samples import extract

from mvemo.extract import cost
from mvemo.extract.nets import build_net
from mvemo.extract.settings import RunSettings
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.stage_one import estimate
from mvemo.pipeline.stage_one.backends import threads_of


def rows(text):
    """The table's cells by net."""
    lines = [line.split() for line in text.splitlines()]
    return {cells[0]: cells[1:5] for cells in lines if cells and cells[0] in ("music1d", "rnn")}


def test_a_plan_says_what_the_run_then_does(sounds, tmp_path, capsys):
    work = tmp_path / "work"
    assert extract(sounds, "trained", work, "--plan") == 0
    fresh = capsys.readouterr().out
    # Nothing is written.
    assert not work.exists()
    assert "clips: 11; 11 new to decode, 0 already decoded" in fresh
    assert rows(fresh) == {"music1d": ["2", "0", "22", "0"], "rnn": ["2", "0", "22", "0"]}
    assert "features: mfcc, music1d, rnn" in fresh
    assert "(measured on 3 clips)" in fresh
    for word in ("time: about", "memory: about", "disk: about"):
        assert word in fresh
    assert extract(sounds, "trained", work) == 0
    said = capsys.readouterr().err
    assert "decode: 11 done, 1 failed" in said
    # One more clip: a file of the same sound and of other tags would be no new one.
    more, first = (sounds.manifest.with_name(name) for name in ("more.csv", "0.wav"))
    lines = sounds.manifest.read_text().splitlines()
    more.write_text("\n".join([*lines[:-1], "c10,new.wav,calm,g0"]) + "\n")
    first.with_name("new.wav").write_bytes(first.read_bytes()[:-4] + b"\1\2\3\4")
    other = sounds._replace(manifest=more)
    assert extract(other, "frozen", work, "--out", tmp_path / "f.h5") == 0
    assert "decode: 1 new, 10 kept" in capsys.readouterr().err
    assert extract(other, "frozen", work, "--out", tmp_path / "f.h5", "--plan") == 0
    planned = capsys.readouterr().out
    assert "clips: 11; 0 new to decode, 11 already decoded" in planned
    assert rows(planned) == {"music1d": ["-", "-", "0", "11"]}
    assert "time: about 0.0 s at most" in planned
    # Trained nets and their embeddings are found again; the broken clip has none.
    assert extract(sounds, "trained", work, "--plan") == 0
    assert rows(capsys.readouterr().out) == {
        "music1d": ["0", "2", "0", "20"],
        "rnn": ["0", "2", "0", "20"],
    }


def test_a_long_run_on_a_processor_is_told_before_it(sounds, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(estimate, "LONG", 0.0)
    monkeypatch.setattr(cost, "measure_net", lambda *_, **__: cost.NetCost(100.0))
    assert extract(sounds, "frozen", tmp_path / "w") == 0
    said = capsys.readouterr().err
    # Eleven clips of 100 s.
    assert "note: the nets take about 18 min at most on the processor" in said
    assert said.index("the nets take about") < said.index("decode: ")
    # A run that goes on says nothing of it.
    assert extract(sounds, "frozen", tmp_path / "w") == 0
    assert "the nets take about" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "jobs", "n_processes"),
    # Two nets of two folds are trained; eleven clips pass through one frozen net.
    [("trained", 3, 3), ("trained", 8, 4), ("frozen", 64, 11)],
)
def test_processes_share_the_time(sounds, tmp_path, capsys, monkeypatch, kind, jobs, n_processes):
    asked = []

    def measure(*_, threads):
        asked.append(threads)
        return cost.NetCost(100.0)

    monkeypatch.setattr(cost, "measure_net", measure)
    monkeypatch.setattr(cost, "measure_reading", lambda *_: cost.ReadingCost())
    monkeypatch.setattr("mvemo.pipeline.console.progress.duration_text", "{:.3f}".format)

    def seconds(*jobs):
        assert extract(sounds, kind, tmp_path / "w", "--plan", *jobs) == 0
        planned = capsys.readouterr().out
        among = f"in each of {n_processes} processes"
        assert (among in planned) == bool(jobs)
        return next(float(line.split()[-1]) for line in planned.splitlines() if "music1d " in line)

    assert seconds() / seconds("--jobs", jobs) == pytest.approx(n_processes, rel=1e-4)
    assert set(asked) == {0, threads_of(jobs)}


def test_a_short_clip_takes_a_part_of_a_window():
    nets = load_settings("pretrained").nets
    full = cost.clip_windows(nets["musicnn"], 10_000.0)
    half = cost.clip_windows(nets["musicnn"], 30.0)
    assert (half / full, cost.clip_windows(nets["musicnn"], 60.0, 6.0) / full) == (0.5, 0.1)


def test_bytes_of_a_net_are_those_of_its_tensors():
    plan = load_settings("demo").nets["c3d"]
    measured = cost.measure_net(plan, RunSettings(device="cpu"))
    net = build_net("c3d", 2, width=plan.width, **plan.options)
    assert measured.weight_bytes == sum(4 * p.numel() for p in net.parameters())
    # Training keeps the input of every layer with weights, at least that of the first.
    size = net.input.size**2 * net.input.n_frames * 3 * 4
    assert size < measured.window_bytes < 100 * size
    assert measured.seconds > 0
    assert measured.training_bytes(plan) == 4 * measured.weight_bytes + (
        plan.train.batch_size * measured.window_bytes
    )

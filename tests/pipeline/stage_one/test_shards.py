"""Runs in shards: they hold what one run holds, go on after a kill, refuse what does not fit."""

import os
import subprocess
from pathlib import Path

import pytest
from spread_samples import digest, extract
from stage_samples import refusal, run

from mvemo.cache import CacheWriter, open_cache
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.stage_one.division import Shard, trainings_of
from mvemo.pipeline.stage_one.shards import ShardFolder


def test_every_clip_and_every_training_is_of_one_shard():
    shards = [Shard(number, 5) for number in range(1, 6)]
    # Spread evenly, by the id alone.
    rows = [shard.rows([f"clip {i}" for i in range(5000)]) for shard in shards]
    assert sorted(row for part in rows for row in part) == list(range(5000))
    assert min(map(len, rows)) > 900
    settings = load_settings("paper")
    nets = [settings.nets[name] for name in ("c3d", "i3d", "music1d")]
    trainings = trainings_of(nets, settings.extract.run.protocol, [0, 1, 2, 0, 1])
    assert len(trainings) == 9
    shared = load_settings("paper", ["extract.protocol=shared"]).extract.run
    assert trainings_of(nets[:1], shared.protocol, [0, 1]) == [("c3d", None)]
    # Jobs of other versions have the same clips.
    assert Shard(1, 2).rows("ade") == [0, 2]
    assert sorted(t for s in shards for t in s.trainings(trainings)) == sorted(trainings)


@pytest.mark.parametrize("kind", ["frozen", "trained"])
def test_shards_merge_to_what_one_run_writes(kind, sounds, whole, tmp_path):
    out = tmp_path / "features.h5"
    folder = out.with_name("features.h5.shards")
    for number in (2, 3, 1):
        shard = ("--out", out, "--shard", f"{number}/3")
        assert extract(sounds, kind, tmp_path / "work", *shard) == 0
        assert not out.exists()
        assert run("mvemo", "cache", "merge", folder, "--out", out) == (0 if number == 1 else 2)
    assert digest(out) == digest(folder) == digest(whole[kind] / "features.h5")
    with open_cache(out) as merged, open_cache(whole[kind] / "features.h5") as one:
        assert merged.table.clip_ids == one.table.clip_ids
        assert [(f.clip_id, f.stage) for f in merged.failures] == [("bad", "decode:audio")]
        assert merged.curves == one.curves
        # Stage two reads the settings there.
        assert merged.provenance["settings"]["nets"] == one.provenance["settings"]["nets"]
    # No row is in two files.
    rows = []
    for path in folder.glob("*-of-3.h5"):
        with open_cache(path) as cache:
            for spec in cache.specs:
                present = cache.present(spec.name, spec.fold)
                ids = [c for c, p in zip(cache.table.clip_ids, present, strict=True) if p]
                rows += [(spec.name, spec.fold, clip) for clip in ids]
    assert len(rows) == len(set(rows)) > 10


def test_a_finished_shard_is_kept_and_a_killed_one_goes_on(sounds, whole, tmp_path, capsys):
    out = tmp_path / "features.h5"
    options = ("--out", out, "--shard", "1/2")
    assert extract(sounds, "frozen", whole["frozen"], *options) == 0
    path = ShardFolder(out).cache(Shard(1, 2))
    before = digest(path)
    assert f"{whole['frozen']} takes " in capsys.readouterr().out
    assert extract(sounds, "frozen", tmp_path / "nothing decoded here", *options) == 0
    assert "shard 1/2 is already done" in capsys.readouterr().err
    assert not (tmp_path / "nothing decoded here" / "decoded").exists()
    # As a kill leaves it: rows were committed, the file is not there, nor the marker.
    with open_cache(path) as cache:
        table, spec = cache.table, cache.spec("mfcc")
        kept = table.clip_ids[int(cache.present("mfcc").argmax())]
        values = cache.sequence("mfcc", kept)
    path.unlink()
    path.with_suffix(".done").unlink()
    assert values is not None
    writer = CacheWriter(path, table)
    writer.put(spec, kept, "the key of other media", values)
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert list(path.parent.glob("*.parts"))
    assert extract(sounds, "frozen", whole["frozen"], *options) == 0
    assert digest(path) == before
    assert not list(path.parent.glob("*.parts"))


def test_shards_of_other_settings_are_refused_in_one_line(sounds, whole, tmp_path, capsys):
    out = tmp_path / "f.h5"
    first = ("--out", out, "--shard", "1/3")
    assert extract(sounds, "frozen", whole["frozen"], *first) == 0
    for options, said in (
        (("--shard", "2/3", "--set", "descriptors.n_mfcc=13"), "descriptors.n_mfcc is"),
        (("--shard", "2/4"), "shards is '3' there, but '4' here"),
        (("--shard", "2/3", "--folds", "3"), "extract.folds is '2' there, but '3' here"),
    ):
        assert extract(sounds, "frozen", whole["frozen"], "--out", out, *options) == 2
        line = refusal(capsys)
        assert said in line
        assert "run the same command for all shards" in line
        # Nothing is lost.
        assert ShardFolder(out).cache(Shard(1, 3)).exists()
    assert run("mvemo", "cache", "merge", f"{out}.shards", "--out", tmp_path / "m.h5") == 2
    assert run("mvemo", "fuse", f"{out}.shards", "--out", tmp_path / "report") == 2
    assert "2 of 3 shards are not done: 2/3, 3/3: run the same command" in capsys.readouterr().err
    # Another number of shards, asked for: those that are there hold the same, and go.
    again = ("--out", out, "--shard", "1/1", "--force")
    assert extract(sounds, "frozen", whole["frozen"], *again) == 0
    assert run("mvemo", "cache", "merge", f"{out}.shards", "--out", tmp_path / "m.h5") == 0
    assert digest(tmp_path / "m.h5") == digest(whole["frozen"] / "features.h5")


def test_damaged_shards_are_named_and_made_anew_by_force(sounds, whole, tmp_path, capsys):
    out = tmp_path / "f.h5"

    def shard(number, *options):
        place = ("--out", out, "--shard", f"{number}/2")
        return extract(sounds, "frozen", whole["frozen"], *place, *options)

    def merge():
        merged = ("--out", tmp_path / "m.h5", "--force")
        return run("mvemo", "cache", "merge", f"{out}.shards", *merged)

    assert shard(1) == shard(2) == merge() == 0
    sound = digest(tmp_path / "m.h5")
    first, second = (ShardFolder(out).cache(Shard(number, 2)) for number in (1, 2))
    # Another shard's file, copied over it.
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    assert merge() == 2
    assert "1-of-2.h5: is not the file that 1-of-2.done describes" in refusal(capsys)
    first.write_bytes(kept[:5000])
    assert shard(1) == 2
    assert "1-of-2.h5: is a truncated HDF5 file: copy it again, or extract again with --force" in (
        refusal(capsys)
    )
    (first.parent / "run.json").write_text("{")
    assert shard(1) == 2
    assert "replace the shards with --force" in refusal(capsys)
    assert shard(1, "--force") == merge() == 0
    assert digest(tmp_path / "m.h5") == sound
    # A whole run, too.
    (tmp_path / "m.h5").write_bytes(kept[:5000])
    again = ("--out", tmp_path / "m.h5")
    assert extract(sounds, "frozen", whole["frozen"], *again) == 2
    assert "m.h5: is a truncated HDF5 file" in refusal(capsys)
    assert extract(sounds, "frozen", whole["frozen"], *again, "--force") == 0
    assert "m.h5: is damaged, and will be written anew" in capsys.readouterr().err
    assert digest(tmp_path / "m.h5") == sound


@pytest.mark.parametrize("text", ["0/4", "5/4", "1of4", "1/0", "-1/3", "x/2"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(BadOption, match="--shard"):
        Shard.parse(text)


def test_the_slurm_script_gives_each_job_its_shard(sounds, whole, tmp_path, monkeypatch):
    # In place of the program: keeps what it is called with, which then runs here.
    program = tmp_path / "mvemo"
    program.write_text('#!/bin/bash\nprintf "%s\\0" "$OMP_NUM_THREADS" "$@" > "$CALLED"\n')
    program.chmod(0o755)
    script = Path(__file__).parents[3] / "docs" / "slurm-array.sh"
    out = tmp_path / "my features.h5"
    called = tmp_path / "called"
    for number in ("1", "2"):
        variables = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "CALLED": str(called),
            "SLURM_ARRAY_TASK_ID": number,
            "SLURM_ARRAY_TASK_COUNT": "2",
            "SLURM_CPUS_PER_TASK": "3",
            "WORK": str(whole["frozen"]),
        }
        command = ["bash", str(script), str(sounds.manifest), str(out), *sounds.frozen]
        subprocess.run(command, env=variables, check=True)
        threads, *arguments, _ = called.read_text().split("\0")
        assert threads == "3"
        assert arguments[arguments.index("--shard") + 1] == f"{number}/2"
        assert run("mvemo", *arguments) == 0
    assert run("mvemo", "cache", "merge", f"{out}.shards", "--out", out) == 0
    assert digest(out) == digest(whole["frozen"] / "features.h5")
    alone = subprocess.run(["bash", str(script), "m.csv", "f.h5"], capture_output=True, text=True)
    assert alone.returncode != 0
    assert "run it as an array" in alone.stderr

"""Stage one by two processes: what one writes, also after SIGTERM; a job that fails is named."""

from dataclasses import replace

import pytest
from spread_samples import SPREAD, extract

from mvemo.cache import CacheWriter, open_cache
from mvemo.extract.errors import TaskFailed, TrainingDiverged, WorkerDied
from mvemo.extract.settings import NetSettings
from mvemo.extract.workers import pool
from mvemo.extract.workers.pool import Worker, run_calls
from mvemo.extract.workers.process import Call
from mvemo.manifests import read_manifest
from mvemo.manifests.errors import MvemoError
from mvemo.pipeline.clips.clip_tables import clip_table
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.settings_files import load_settings
from mvemo.pipeline.stage_one import backends, division, tasks
from mvemo.pipeline.stage_one.backends import Backend, job_environments, visible_gpus
from mvemo.pipeline.stage_one.division import ExtractRequest
from mvemo.pipeline.stage_one.plan import ExtractPlan
from mvemo.pipeline.stage_one.tasks import Finished, SpreadRun, _reason


@pytest.mark.slow
def test_two_processes_that_were_ended_go_on_and_write_what_one_does(
    sounds, whole, tmp_path, monkeypatch
):
    # One worker decodes all, two train.
    work = tmp_path / "two"
    taken, started = [], []

    class Noted(Worker):
        def __init__(self, preload, environment=None):
            super().__init__(preload, environment)
            if environment:
                started.append(self)

    def interrupt(run, task, finished):
        # Ctrl-C once a net is trained; the other may or may not be.
        taken.append(finished)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SpreadRun, "_take_up", interrupt)
        patch.setattr(pool, "Worker", Noted)
        assert extract(sounds, "trained", work, "--jobs", 2) == 130
    # Its processes ended with it, and what was committed waits.
    assert len(started) == 2
    assert not any(worker.running for worker in started)
    assert not (work / "features.h5").exists()
    assert (work / "features.h5.parts" / taken[0].parts[0]).exists()
    kept = {path: path.stat().st_mtime_ns for path in work.glob("nets/*/weights.pt")}
    assert kept
    # By one process as well as by two.
    assert extract(sounds, "trained", work) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    with (
        open_cache(whole["trained"] / "features.h5") as one,
        open_cache(work / "features.h5") as two,
    ):
        assert two.digest() == one.digest()
        assert two.curves == one.curves
        assert [f.reason for f in two.failures] == [f.reason for f in one.failures]
    assert not list(work.glob("*.parts"))


def plan_of(sounds, folder, settings, *nets):
    request = ExtractRequest(sounds.manifest, settings, folder, folder / "features.h5")
    manifest = read_manifest(sounds.manifest)
    return ExtractPlan(request, manifest, nets, clip_table(manifest), None, {}, (), ())


def spread(sounds, folder, fail=lambda task: None):
    """A run of clips in batches of three, done here; some fail."""
    settings = load_settings("paper", [*SPREAD, "extract.embed_batch=3"])
    # Only described: the settings would train nets.
    plan = plan_of(sounds, folder, settings)

    def backend(given, note):
        for task in reversed(given):
            assert isinstance(task, tasks.ClipTask)
            yield task, fail(task) or tasks.do_task(task, note)

    with CacheWriter(folder / "features.h5", plan.table) as writer:
        run = SpreadRun(plan, writer, Backend(backend, 1))
        run.do_clips()
        return run


def test_segments_of_a_file_share_its_size(sounds, tmp_path, monkeypatch):
    folder, seen, divide = sounds.manifest.parent, [], division.clip_batches
    lines = "clip_id,path,label,group,start,duration", "a,0.wav,calm,g0,0,0.2"
    lines += "b,0.wav,tense,g0,0.2,0.2", "c,1.wav,calm,g1,,"
    manifest = folder / "segments.csv"
    manifest.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(division, "clip_batches", lambda w, *a: seen.extend(w) or divide(w, *a))
    spread(sounds._replace(manifest=manifest), tmp_path)
    whole, other = ((folder / name).stat().st_size for name in ("0.wav", "1.wav"))
    assert seen == [whole / 2, whole / 2, other]


def test_a_task_that_fails_is_named_and_all_others_are_kept(sounds, tmp_path):
    died = WorkerDied("the process that read it was killed (SIGKILL), perhaps for want of memory")

    def fail(task):
        return died if "c4" in task.plan.manifest.clip_ids else None

    with pytest.raises(
        TaskFailed, match=r"^c3 and 2 more clips: the process that read it was killed"
    ):
        spread(sounds, tmp_path, fail)
    assert not (tmp_path / "features.h5").exists()
    new = set()

    def note(task):
        stored = {clip for keys in task.stored.keys.values() for clip in keys}
        new.update(set(task.plan.manifest.clip_ids) - stored)

    assert spread(sounds, tmp_path, note).features == ["mfcc"]
    assert new == {"c3", "c4", "c5", "bad"}
    with open_cache(tmp_path / "features.h5") as cache:
        assert int(cache.present("mfcc").sum()) == 10
        assert [f.clip_id for f in cache.failures] == ["bad"]


def test_a_batch_without_a_readable_clip_is_no_error(sounds, tmp_path):
    plan = plan_of(sounds, tmp_path, load_settings("paper", SPREAD))
    with CacheWriter(tmp_path / "features.h5", plan.table) as writer:
        task = tasks.ClipTask(plan.part([10]), writer.stored_rows(("bad",)))
        assert tasks.do_task(task).clip_ids == ("bad",)


def test_the_bar_moves_within_a_task_and_counts_failures(sounds, tmp_path, monkeypatch, capsys):
    moved = []
    monkeypatch.setattr(Progress, "ahead", lambda bar, steps, note="": moved.append(steps))
    spread(sounds, tmp_path)
    assert sum(moved) == pytest.approx(11)
    # Each clip, as it is decoded and as it is described.
    assert len(moved) == 21
    assert capsys.readouterr().err == "clips: 11 done, 1 failed\n"


def test_rows_that_a_task_says_it_wrote_must_be_there(sounds, tmp_path, monkeypatch):
    real = tasks.do_task
    monkeypatch.setattr(tasks, "do_task", lambda *given: replace(real(*given), parts=()))
    with pytest.raises(TaskFailed, match="is missing from the shards it was written to"):
        spread(sounds, tmp_path)


def test_processes_share_cores_and_gpus(monkeypatch):
    monkeypatch.setattr(backends, "cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    environments = job_environments(4, "cpu")
    assert [e["OMP_NUM_THREADS"] for e in environments] == ["4"] * 4
    assert "CUDA_VISIBLE_DEVICES" not in environments[0]
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    environments = job_environments(4, "auto")
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == ["4", "5", "7", "4"]
    # Two workers at work report their device.
    report = Call("os:getenv", ("CUDA_VISIBLE_DEVICES",))
    seen = run_calls([report] * 2, environments=environments[:2])
    assert {worker.result() for worker in seen} == {"4", "5"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == ["0", "1", "2"]


def test_one_net_that_diverges_leaves_the_others(sounds, tmp_path):
    def backend(given, note):
        for task in given:
            if task.label == "c3d@fold1":
                yield task, TrainingDiverged(f"{task.label}: training diverged", "lower the rate")
            else:
                yield task, Finished((), (), ())

    plan = plan_of(sounds, tmp_path, load_settings("paper"), NetSettings("c3d"))
    with CacheWriter(tmp_path / "features.h5", plan.table) as writer:
        run = SpreadRun(plan, writer, Backend(backend, 1))
        run.do_trainings(None, [("c3d", 0), ("c3d", 1)])  # type: ignore[arg-type]
    assert str(run.diverged["c3d"]) == "c3d@fold1: training diverged: lower the rate"


def test_errors_of_ours_say_all_themselves_and_of_others_the_kind_is_told():
    for kind in (MvemoError, MvemoError, TaskFailed):
        assert _reason(kind("f.h5: no room:\n make some")) == "f.h5: no room: make some"
    assert _reason(KeyError("x")) == "KeyError: 'x'"

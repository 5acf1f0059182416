"""All checks of ``mvemo doctor``, in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mvemo.pipeline.doctor.findings import Finding
from mvemo.pipeline.doctor.packages import check_packages
from mvemo.pipeline.doctor.places import check_folder, check_work


def examine(work: Path, n_clips: int, *, measure: bool = True) -> Iterator[Finding]:
    """Check this installation and machine, and yield a finding for each check.

    `work` is the working folder of a run, which is not created. The time is estimated for
    `n_clips` clips of 30 s if `measure`, which takes about ten seconds.
    """
    findings, stage_one = check_packages()
    yield from findings
    yield check_work(work)
    if not stage_one:
        return
    from mvemo.extract.pretrained.store import data_folder
    from mvemo.pipeline.doctor.media import check_codecs, check_gpu, check_weights

    yield check_folder("data folder", data_folder(), "set MVEMO_HOME to a folder")
    yield check_codecs()
    yield check_gpu()
    yield from check_weights()
    if measure:
        from mvemo.pipeline.doctor.speed import measure_speed
        from mvemo.pipeline.settings_files import load_settings

        yield from measure_speed(load_settings("pretrained")).findings(n_clips)

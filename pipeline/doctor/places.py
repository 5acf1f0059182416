"""Checks of the folders that mvemo writes to, and of the room on their disks."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from mvemo.pipeline.doctor.findings import Finding
from mvemo.pipeline.work_folder import measure_work

# With fewer free bytes than this, a run of a hundred clips may fill the disk.
LITTLE_ROOM = 2 * 2**30


def check_work(work: Path) -> Finding:
    """Check the working folder, and add its size."""
    finding = check_folder("work folder", work, "--work FOLDER")
    size = measure_work(work)
    if finding.status == "problem" or not size.decoded + size.nets:
        return finding
    return replace(finding, text=f"{finding.text}; it takes {size.text()}")


def check_folder(subject: str, folder: Path, remedy: str) -> Finding:
    """Check that a folder, or its nearest existing parent, is writable, and measure its room.

    The test writes an HDF5 file, which fails on some network disks.
    """
    folder = folder.absolute()
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".mvemo-doctor-", dir=place) as temp:
            path = Path(temp) / "try.h5"
            with h5py.File(path, "w") as file:
                file["x"] = np.arange(1000)
            with h5py.File(path, "r") as file:
                intact = int(file["x"][-1]) == 999
    except OSError as error:
        return Finding("problem", subject, f"{folder}: cannot be written: {error}", remedy)
    if not intact:
        text = f"{folder}: what is read is not what was written"
        return Finding("problem", subject, text, remedy)
    free = shutil.disk_usage(place).free
    text = f"{folder}: can be written, {free / 2**30:.1f} GiB free"
    if free < LITTLE_ROOM:
        return Finding("note", subject, text, f"{remedy}, on a disk with more room")
    return Finding("ok", subject, text)

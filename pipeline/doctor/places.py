"""Folders that mvemo writes to: whether it can, and how much room there is."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from mvemo.pipeline.doctor.findings import Finding
from mvemo.pipeline.work_folder import measure_work

# Below so many bytes a run of a hundred clips may end for want of room.
LITTLE_ROOM = 2 * 2**30


def check_work(work: Path) -> Finding:
    """`check_folder` of the working folder, with how much is in it."""
    finding = check_folder("work folder", work, "--work FOLDER")
    size = measure_work(work)
    if finding.status == "problem" or not size.decoded + size.nets:
        return finding
    return replace(finding, text=f"{finding.text}; it takes {size.text()}")


def check_folder(subject: str, folder: Path, remedy: str) -> Finding:
    """Write to a folder, or to the one that it will be made in, and measure the room there.

    The file is an HDF5 one, which some network disks do not take.
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

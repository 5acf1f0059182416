"""Decoding job of a worker: decode one clip and write its arrays to the working cache."""

from pathlib import Path

import cv2
import numpy as np

from mvemo.extract.errors import MediaUnavailable
from mvemo.extract.media.reading import decode_clip
from mvemo.extract.media.request import Decoded, MediaProblem
from mvemo.extract.store import folders
from mvemo.manifests.errors import MvemoError
from mvemo.manifests.files import stamp_of


def decode_job(
    job: folders.DecodeJob, folder: Path, request: folders.DecodeRequest, threads: int
) -> dict[str, MediaProblem]:
    """Decode the requested arrays, write them to `folder`, and return problems by modality."""
    cv2.setNumThreads(1)
    decoded = _decode(job, folder, request, threads)
    found = dict(decoded.problems)
    if decoded.note:
        found[folders.NOTE] = MediaProblem(decoded.note, missing=True)
    for rate, waveform in decoded.waveforms.items():
        folders.write_array(folders.array_path(folder, rate, request.level), waveform)
    if decoded.waveforms:
        loudness = np.array([[decoded.loudness]], dtype=np.float32)
        folders.write_array(folder / folders.LOUDNESS, loudness)
    for sampling, frames in decoded.frames.items():
        folders.write_array(folders.array_path(folder, sampling), frames)
    known = folders.read_problems(folder)
    others = {kind: p for kind, p in known.items() if kind not in request.modalities}
    lasting = {kind: p for kind, p in found.items() if not p.passing}
    if others | lasting != known:
        folders.write_problems(folder, others | lasting)
    return found


def _decode(
    job: folders.DecodeJob, folder: Path, request: folders.DecodeRequest, threads: int
) -> Decoded:
    """Decode the clip; if its file causes an error, return it as the clip's problems."""
    try:
        stamp = folders.check_unchanged(job)
        decoded = decode_clip(
            job.path,
            start=job.start,
            duration=job.duration,
            sample_rates=request.sample_rates,
            pictures=request.pictures,
            level=request.level,
            threads=threads,
            spool=folder,
        )
        if stamp_of(job.path) != stamp:
            raise MediaUnavailable("the file changed while decoding: run the same command again")
        return decoded
    except MvemoError as error:
        # A missing file may exist later, but a damaged file stays damaged.
        reason, passing = str(error), isinstance(error, OSError)
    except FileNotFoundError:
        reason, passing = "no such media file", True
    except OSError as error:
        reason, passing = f"cannot be read: {error.strerror or error}", True
    problem = MediaProblem(reason.removeprefix(f"{job.path}: "), passing=passing)
    return Decoded(problems=dict.fromkeys(request.modalities, problem))

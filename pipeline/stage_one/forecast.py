"""Forecast of a run of stage one, as ``mvemo extract --plan`` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.console.progress import duration_text
from mvemo.pipeline.work_folder import size_text


@dataclass(frozen=True)
class NetForecast:
    """Work and cost of one net."""

    name: str
    n_nets: int  # number of trainings; 0 if the protocol trains nothing
    n_trained: int  # trainings that are finished already
    n_new: int  # embeddings to compute, over all trainings
    n_kept: int  # embeddings in the cache
    seconds: float  # at most, for training and embedding in one process
    training_bytes: int  # memory of the training, or of embedding if nothing is to be trained
    weight_bytes: int  # size of the weights on the disk


@dataclass(frozen=True)
class ReadingForecast:
    """Work and cost of reading the clips."""

    n_new: int  # clips to decode
    n_kept: int  # clips in the working folder
    n_sampled: int = 0  # clips that were read to measure
    seconds: float = 0.0  # for all new clips
    n_bytes: float = 0.0  # size of the new clips in the working folder
    worker_bytes: int = 0  # memory of each worker
    workers: int = 1


@dataclass(frozen=True)
class Forecast:
    """Work and cost of a run."""

    n_clips: int
    unreadable: Mapping[str, str]  # reasons by clip id
    reading: ReadingForecast
    nets: tuple[NetForecast, ...]  # in the order in which they run
    descriptors: tuple[str, ...]
    processes: int  # processes that share the trainings, or the clips of frozen nets
    place: str  # phrase for the device, after "nets run"
    work: Path  # working folder
    taken_bytes: int  # size of the working folder
    free_bytes: int  # free space on its disk
    own_bytes: int  # memory of this process

    @property
    def seconds(self) -> float:
        """Upper limit for the whole run."""
        return self.reading.seconds + sum(net.seconds for net in self.nets) / self.processes

    def text(self) -> str:
        """Return the forecast for the terminal."""
        reading = self.reading
        lines = [f"clips: {self.n_clips}; {reading.n_new} new to decode, {reading.n_kept} kept"]
        if self.unreadable:
            clip, reason = next(iter(self.unreadable.items()))
            lines.append(f"{len(self.unreadable)} cannot be read; the first, {clip}: {reason}")
        head = ("net", "to train", "trained", "to embed", "embedded", "at most")
        rows: list[tuple[str, ...]] = [head]
        for net in self.nets:
            trained = ("-", "-") if not net.n_nets else (net.n_nets - net.n_trained, net.n_trained)
            cells = (net.name, *trained, net.n_new, net.n_kept)
            at_most = duration_text(net.seconds / self.processes)
            rows.append((*map(str, cells), at_most))
        lines += ["", *align_columns(rows), "", f"nets run {self.place}"]
        names = [*self.descriptors, *(net.name for net in self.nets)]
        lines.append(f"features: {', '.join(names)}")
        if reading.n_sampled:
            lines.append(
                f"reading the clips: about {duration_text(reading.seconds)} with "
                f"{reading.workers} workers (measured on {reading.n_sampled} of them)"
            )
        lines.append(f"time: about {duration_text(self.seconds)} at most")
        lines.append(self._memory_and_disk())
        return "\n".join(lines)

    def _memory_and_disk(self) -> str:
        reading = self.reading
        largest = max((net.training_bytes for net in self.nets), default=0)
        memory = f"memory: about {size_text(self.own_bytes + largest)}"
        if self.processes > 1:
            memory += f" in each of {self.processes} processes"
        if reading.worker_bytes:
            memory += f", and {size_text(reading.worker_bytes)} in each worker while clips are read"
        weights = sum(net.weight_bytes * (net.n_nets - net.n_trained) for net in self.nets)
        needed = reading.n_bytes + weights
        disk = (
            f"disk: about {size_text(needed)} more in {self.work}, which takes "
            f"{size_text(self.taken_bytes)} now ({size_text(self.free_bytes)} free)"
        )
        if needed > self.free_bytes:
            disk += ": too little room; give --work FOLDER on a larger disk"
        return f"{memory}\n{disk}"

"""A forecast of a run of stage one, as ``mvemo extract --plan`` prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.console.progress import duration_text
from mvemo.pipeline.work_folder import size_text


@dataclass(frozen=True)
class NetForecast:
    """What is done with one net."""

    name: str  # of the net
    # How many there will be, and how many of them are trained already; both 0 where none is
    # trained.
    n_nets: int
    # How many there will be, and how many of them are trained already; both 0 where none is
    # trained.
    n_trained: int
    n_new: int  # embeddings to compute, over all nets, and such as are in the cache
    n_kept: int  # embeddings to compute, over all nets, and such as are in the cache
    # Of training and embedding, at most, where one process after the other does its part.
    seconds: float
    training_bytes: int  # memory of the training, or of the net alone; and its weights on the disk
    weight_bytes: int  # memory of the training, or of the net alone; and its weights on the disk


@dataclass(frozen=True)
class ReadingForecast:
    """What reading the clips takes."""

    n_new: int  # clips to decode, and such as are in the working folder
    n_kept: int  # clips to decode, and such as are in the working folder
    n_sampled: int = 0  # of how many `seconds` is known
    seconds: float = 0.0  # of all new ones
    n_bytes: float = 0.0  # that they leave in the working folder
    worker_bytes: int = 0  # memory of a worker
    workers: int = 1  # how many read at a time


@dataclass(frozen=True)
class Forecast:
    """What a run will do."""

    n_clips: int  # of the manifest
    unreadable: Mapping[str, str]  # why files cannot be read, by clip
    reading: ReadingForecast  # of clips
    nets: tuple[NetForecast, ...]  # in the order in which they run
    descriptors: tuple[str, ...]  # that are written
    processes: int  # among which trainings, or the clips of frozen nets, are dealt out
    place: str  # what nets run on, in words
    work: Path  # working folder, what it takes now, and the room on its disk
    taken_bytes: int  # working folder, what it takes now, and the room on its disk
    free_bytes: int  # working folder, what it takes now, and the room on its disk
    own_bytes: int  # memory that this process has taken

    @property
    def seconds(self) -> float:
        """Of the whole run, at most."""
        return self.reading.seconds + sum(net.seconds for net in self.nets) / self.processes

    def text(self) -> str:
        """For the terminal."""
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

"""Steps of stage one that write to the cache: failures, descriptors and embeddings."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mvemo.cache import CacheWriter, FeatureSpec, RowWriter, in_half_precision
from mvemo.cache.spec import TRAINED
from mvemo.extract.arrays import I64, Mask
from mvemo.extract.descriptors import TIMES, descriptor_spec
from mvemo.extract.errors import TrainingDiverged
from mvemo.extract.nets import NETS
from mvemo.extract.settings import NetSettings, RunSettings
from mvemo.extract.training.data import TrainingClips
from mvemo.extract.training.devices import describe_device, pick_device, return_freed_memory
from mvemo.extract.training.embedding import embed_rows, outputs_of
from mvemo.extract.training.protocols import FrozenNets, TrainedNet, outputs_spec, train_nets
from mvemo.extract.views import ViewSettings
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console.messages import tell, tell_note
from mvemo.pipeline.console.progress import Progress, duration_text, epoch_text
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.settings import Settings
from mvemo.pipeline.stage_one.ahead import threads_of
from mvemo.pipeline.stage_one.execution import Execution, Training, trainings_of


class FeatureWriter:
    """Writer of the failures, descriptors and embeddings of a manifest's clips."""

    def __init__(
        self,
        media: ClipMedia,
        settings: Settings,
        writer: RowWriter,
        work: Path,  # folder of checkpoints
        trainings: Collection[Training] | None = None,  # to do here; by default all
        on_epoch: Callable[[str], object] | None = None,  # called with a line about each epoch
        frozen_nets: FrozenNets | None = None,  # loaded nets to reuse
    ) -> None:
        self.features: list[str] = []  # names of the written features
        self._media = media
        self._manifest = media.manifest
        self._settings = settings
        self._run = settings.extract.run
        self._writer = writer
        self._work = work
        self._trainings = trainings
        self._on_epoch = on_epoch
        self._frozen_nets = frozen_nets

    def write_failures(self) -> None:
        """Write the failures of decoding and describing, and clear those that are resolved."""
        reasons = {(clip_id, stage): why for clip_id, stage, why in self._media.failures}
        for clip_id in self._manifest.clip_ids:
            for stage in ("decode:audio", "decode:video", *self._media.stages):
                if (clip_id, stage) in reasons:
                    self._writer.fail(clip_id, stage, reasons[clip_id, stage])
                else:
                    self._writer.clear_failures(clip_id, stage)

    def runnable(self, plans: Sequence[NetSettings]) -> list[NetSettings]:
        """Return the nets whose modality some clip has, with a note on the others."""
        for modality in self._media.modalities:
            if self._media.absent(modality):
                names = [plan.name for plan in plans if NETS[plan.name].modality == modality]
                if modality == "audio":
                    names += [n for n in self._settings.extract.descriptors if n not in names]
                first = self._manifest.clip_ids[0]
                tell(
                    f"{', '.join(names)} left out: no clip has usable {modality} "
                    f"({self._media.reason(first, modality)})"
                )
        return [p for p in plans if not self._media.absent(NETS[p.name].modality)]

    def nothing_to_read(self, plans: Sequence[NetSettings]) -> BadOption:
        """Return the error for the case that no net is runnable."""
        first = self._manifest.clip_ids[0]
        return BadOption(
            f"no clip has what the nets read, {', '.join(plan.name for plan in plans)}; the first "
            f"clip, {first}: {self._media.reason(first)}"
        )

    def write_descriptors(self) -> None:
        """Write the descriptors of the settings that the cache does not have."""
        if self._media.absent("audio"):
            return
        for name in self._settings.extract.descriptors:
            spec = descriptor_spec(name, self._settings.descriptors)
            # Times need more digits than float16 has.
            if self._settings.extract.sequence_dtype == "float16" and name not in TIMES:
                spec = in_half_precision(spec)
            keys = self._keys(spec, self._media.described)
            for clip_id in keys.keys() - self._writer.current(spec, keys):
                values = self._media.sequence(clip_id, name)
                self._writer.put(spec, clip_id, keys[clip_id], values)
            self.features.append(name)

    def write_embeddings(self, plan: NetSettings, folds: I64, splits: I64 | None = None) -> None:
        """Train a net by the protocol, and write the embeddings that the cache does not have.

        Raises TrainingDiverged if the loss of a training is not finite.
        """
        usable = self._media.usable(plan)
        trainings = [
            fold
            for name, fold in self._trainings or trainings_of([plan], self._run, folds)
            if name == plan.name
        ]
        n_nets = max(len(trainings), 1)
        trained_folds = {fold for fold in trainings if fold is not None}
        # Without training, the clips take the time.
        frozen = self._run.protocol == "frozen"
        total, unit = (int(usable.sum()), "clip") if frozen else (n_nets, "net")
        with Progress(plan.name, total, unit) as bar:
            epochs = EpochNotes(plan.name, bar, n_nets, self._run, self._on_epoch)
            clips = TrainingClips(
                self._manifest, self._media.digests, usable, folds, splits, trained_folds
            )
            for trained in self._nets(plan, clips, epochs):
                self._write_embedding(trained, plan.view, usable, bar if frozen else None)
                if not frozen:
                    bar.step()
                    bar.kept = bar.done - len(epochs.trained)
        self.features.append(plan.name)

    def _nets(
        self, plan: NetSettings, clips: TrainingClips, epochs: EpochNotes
    ) -> Iterable[TrainedNet]:
        """Return the nets that embed: a loaded frozen one, or those that the protocol trains."""
        if self._frozen_nets is not None:
            return [self._frozen_nets.get(plan)]
        return train_nets(
            plan,
            clips,
            self._run,
            batches=lambda net: self._media.batches(net, plan.view),
            jobs=self._work / "nets",
            on_epoch=epochs.note,
        )

    def _write_embedding(
        self,
        trained: TrainedNet,
        view: ViewSettings,
        usable: Mask,
        clips: Progress | None,
    ) -> None:
        """Embed the clips without a current row, with progress on the bar `clips` if given."""
        net, spec, writer = trained.net, trained.spec, self._writer
        clip_of = self._media.clip_of
        keys = self._keys(spec, usable)
        outdated = keys.keys() - writer.current(spec, keys)
        own_spec = outputs_spec(trained, self._manifest)
        own_keys = self._keys(own_spec, usable) if spec.protocol in TRAINED else {}
        # With empty keys, `current` drops the outputs of an earlier run's trained net.
        outdated |= own_keys.keys() - writer.current(own_spec, own_keys)
        kept = len(keys) - len(outdated)
        if clips is not None:
            clips.step(kept)
            clips.kept = kept
        for batch_rows, values in embed_rows(
            net,
            self._media.batches(net, view),
            [row for row, clip_id in clip_of.items() if clip_id in outdated],
            batch_size=self._settings.extract.embed_batch,
            device=pick_device(self._run.device),
            precision=self._run.precision,
            independent=True,
        ):
            outputs = outputs_of(net, values) if own_keys else values
            n_failed = 0
            for row, vector, output in zip(batch_rows, values, outputs, strict=True):
                clip_id = clip_of[row]
                if np.isfinite(vector).all() and np.isfinite(output).all():
                    writer.put(spec, clip_id, keys[clip_id], vector)
                    if own_keys:
                        writer.put(own_spec, clip_id, own_keys[clip_id], output)
                    writer.clear_failures(clip_id, f"embed:{spec.name}")
                else:
                    writer.fail(clip_id, f"embed:{spec.name}", "the embedding is not finite")
                    n_failed += 1
            if clips is not None:
                clips.step(len(batch_rows), failed=n_failed)
        if trained.curve:
            training = "all" if spec.fold is None else f"fold{spec.fold}"
            if spec.protocol == "holdout":
                training = "holdout"
            writer.curve(f"{spec.name}@{training}", trained.curve)

    def _keys(self, spec: FeatureSpec, usable: Mask) -> dict[str, str]:
        """Return the key of each usable clip's row, by clip id."""
        clips = (self._manifest.clips[row] for row in np.flatnonzero(usable))
        return {
            clip.clip_id: spec.key(self._media.digests[clip.clip_id], clip.start, clip.duration)
            for clip in clips
        }


def write_nets(
    features: FeatureWriter,
    nets: Sequence[NetSettings],
    writer: CacheWriter,
    diverged: Mapping[str, TrainingDiverged] | None = None,
) -> list[TrainingDiverged]:
    """Train nets and write their embeddings; return the errors of the nets that diverged.

    All embeddings of a net that diverged are withdrawn, also those of earlier folds. `diverged`
    has the errors of trainings elsewhere, by net.
    """
    errors = []
    for net in nets:
        # Memory blocks of the previous net have other sizes, and would be kept unused.
        return_freed_memory()
        try:
            if diverged and net.name in diverged:
                raise diverged[net.name]
            features.write_embeddings(net, writer.table.folds, writer.table.splits)
        except TrainingDiverged as error:
            for name in (net.name, f"{net.name}-outputs"):
                writer.withdraw(name)
            errors.append(error)
            if net is not nets[-1]:
                tell_note(f"{net.name} diverged; the next nets go on")
    return errors


def tell_device(run: RunSettings, execution: Execution | None = None) -> None:
    """Tell the user which device the nets run on."""
    tell(f"nets run {place_of_nets(run, execution or Execution())}")


def place_of_nets(run: RunSettings, execution: Execution) -> str:
    """Return the phrase for the device that follows "nets run"."""
    if execution.scheduler:
        return f"on the workers of {execution.scheduler}"
    jobs = execution.jobs
    where = describe_device(pick_device(run.device), run.precision, threads_of(jobs))
    processes = f"in up to {jobs} processes, each " if jobs > 1 else ""
    return f"{processes}on {where}"


class EpochNotes:
    """Messages about the epochs of a net and, after a timed epoch, the time that all may take."""

    def __init__(
        self,
        net: str,
        progress: Progress,
        n_nets: int,  # number of trainings
        run: RunSettings,
        on_epoch: Callable[[str], object] | None = None,
    ) -> None:
        self._tell = on_epoch or (lambda text: None)
        self._net = net
        self._progress = progress
        self._n_nets = n_nets
        self._run = run
        self._start: float | None = None
        self._timed = False
        self.trained: set[str] = set()  # labels of trainings; earlier runs have done the others

    def note(self, label: str, epoch: int, epochs: int, val_loss: float) -> None:
        """Report an epoch of a training (from 1); the callback of `train_nets`."""
        self.trained.add(label)
        text = epoch_text(label, epoch, epochs, val_loss)
        self._progress.note(text)
        self._tell(text)
        now = time.monotonic()
        # The first epoch is not typical: kernels are chosen or compiled in it.
        if self._start is not None and not self._timed:
            self._timed = True
            seconds = now - self._start
            device = describe_device(pick_device(self._run.device), self._run.precision)
            total = duration_text(seconds * epochs * self._n_nets)
            nets = f"{self._n_nets} net{'s' * (self._n_nets != 1)}"
            tell(
                f"{self._net}: {duration_text(seconds)} an epoch on {device}: {nets} of {epochs} "
                f"epochs take {total} at most"
            )
        self._start = now

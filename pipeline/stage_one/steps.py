"""Steps of stage one that write to the cache: failures, descriptors and embeddings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mvemo.cache import CacheWriter, FeatureSpec, PartWriter, in_half_precision
from mvemo.cache.spec import TRAINED
from mvemo.extract.descriptors import TIMES, descriptor_spec
from mvemo.extract.errors import TrainingDiverged
from mvemo.extract.nets import NETS
from mvemo.extract.settings import NetSettings
from mvemo.extract.training import data, devices, embedding, protocols
from mvemo.manifests import Clip
from mvemo.manifests.array_types import Bools
from mvemo.pipeline.clips.clip_media import ClipMedia
from mvemo.pipeline.console import messages, progress
from mvemo.pipeline.stage_one.division import Training, trainings_of
from mvemo.pipeline.stage_one.plan import ExtractPlan


@dataclass
class FeatureWriter:
    """Writer of the failures, descriptors and embeddings of a plan's clips."""

    plan: ExtractPlan
    media: ClipMedia
    writer: PartWriter
    trainings: Collection[Training] | None = None  # trainings to do; None for all
    # Called after each epoch with the finished share of a training, and with a line about it.
    on_epoch: Callable[[str | float], object] = lambda state: None
    features: list[str] = field(default_factory=list, init=False)  # names of written features

    @classmethod
    def read(
        cls, plan: ExtractPlan, writer: PartWriter, trainings: Collection[Training] | None = None
    ) -> FeatureWriter:
        """Read the clips of a plan; if `trainings` are given, only the inputs of their nets."""
        descriptors = plan.settings.extract.descriptors if trainings is None else ()
        media = ClipMedia(
            plan.manifest,
            plan.settings,
            plan.work,
            plans=plan.nets,
            descriptors=descriptors,
            require_any=plan.numbers is None,
            numbers=plan.numbers,
        )
        return cls(plan, media, writer, trainings)

    def write_failures(self) -> None:
        """Write the failures of decoding and describing, and clear resolved failures."""
        failed = {failure[:2] for failure in self.media.failures}
        for clip_id in self.media.manifest.clip_ids:
            for stage in ("decode:audio", "decode:video", *self.media.stages):
                if (clip_id, stage) not in failed:
                    self.writer.clear_failures(clip_id, stage)
        for failure in self.media.failures:
            self.writer.fail(*failure)

    def runnable(self) -> list[NetSettings]:
        """Return the nets whose modality some clip has; print a message on the other nets."""
        nets = self.plan.nets
        for modality in self.media.modalities:
            if self.media.absent(modality):
                names = [net.name for net in nets if NETS[net.name].modality == modality]
                if modality == "audio":
                    names += [n for n in self.plan.settings.extract.descriptors if n not in names]
                first = self.media.manifest.clip_ids[0]
                messages.tell(
                    f"{', '.join(names)} left out: no clip has usable {modality} "
                    f"({self.media.reason(first, modality)})"
                )
        return [net for net in nets if not self.media.absent(NETS[net.name].modality)]

    def write_descriptors(self) -> None:
        """Write the descriptors named in the settings that the cache does not have yet."""
        if self.media.absent("audio"):
            return
        settings = self.plan.settings
        for name in settings.extract.descriptors:
            spec = descriptor_spec(name, settings.descriptors)
            # float16 has too few digits for times.
            if settings.extract.sequence_dtype == "float16" and name not in TIMES:
                spec = in_half_precision(spec)
            keys = self._keys(spec, self.media.described)
            for clip_id in keys.keys() - self.writer.current(spec, keys):
                self.writer.put(spec, clip_id, keys[clip_id], self.media.sequence(clip_id, name))
            self.features.append(name)

    def write_embeddings(
        self, net: NetSettings, frozen: protocols.TrainedNet | None = None
    ) -> None:
        """Train a net by the protocol, and write embeddings that the cache does not have yet.

        `frozen` is the net, if it is frozen and already loaded.
        """
        usable, run, table = self.media.usable(net), self.plan.run, self.plan.table
        chosen = self.trainings or trainings_of([net], run.protocol, table.folds)
        trainings = [fold for name, fold in chosen if name == net.name]
        trained_folds = {fold for fold in trainings if fold is not None}
        # Frozen nets are not trained, so the bar counts clips instead of nets.
        is_frozen = run.protocol == "frozen"
        total, unit = (int(usable.sum()), "clip") if is_frozen else (len(trainings), "net")
        with progress.Progress(net.name, total, unit) as bar:
            trained_now = set()

            def note(label: str, epoch: int, epochs: int, val_loss: float) -> None:
                trained_now.add(label)
                for state in (1 / epochs, progress.epoch_text(label, epoch, epochs, val_loss)):
                    bar.report(state)
                    self.on_epoch(state)

            manifest, digests = self.media.manifest, self.media.digests
            split = table.folds, table.splits, trained_folds
            nets = (
                [frozen]
                if frozen
                else protocols.train_nets(
                    net,
                    data.TrainingClips(manifest, digests, usable, *split),
                    run,
                    batches=lambda built: self.media.batches(built, net.view),
                    jobs=self.plan.work / "nets",
                    on_epoch=note,
                )
            )
            for trained in nets:
                self._write_embedding(trained, net, usable, bar if is_frozen else None)
                if not is_frozen:
                    bar.step()
                    kept = bar.done - len(trained_now)
                    if kept > bar.kept:
                        bar.keep(kept)
        self.features.append(net.name)

    def _write_embedding(
        self,
        trained: protocols.TrainedNet,
        settings: NetSettings,
        usable: Bools,
        clips: progress.Progress | None,
    ) -> None:
        """Embed the clips without a current row; count them on the progress bar `clips`."""
        net, spec, writer = trained.net, trained.spec, self.writer
        clip_of = self.media.clip_of
        keys = self._keys(spec, usable)
        outdated = keys.keys() - writer.current(spec, keys)
        own_spec = protocols.outputs_spec(trained, self.media.manifest)
        own_keys = self._keys(own_spec, usable) if spec.protocol in TRAINED else {}
        # A frozen net has no outputs: with empty keys, `current` drops those of an earlier run.
        outdated |= own_keys.keys() - writer.current(own_spec, own_keys)
        kept = len(keys) - len(outdated)
        if clips is not None:
            clips.step(kept)
            clips.keep(kept)
        for batch_rows, values in embedding.embed_rows(
            net,
            self.media.batches(net, settings.view),
            [row for row, clip_id in clip_of.items() if clip_id in outdated],
            batch_size=self.plan.settings.extract.embed_batch,
            device=devices.pick_device(self.plan.run.device),
            precision=self.plan.run.precision,
            independent=True,
        ):
            outputs = embedding.outputs_of(net, values) if own_keys else values
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
            whole = "holdout" if spec.protocol == "holdout" else "all"
            training = whole if spec.fold is None else f"fold{spec.fold}"
            writer.curve(f"{spec.name}@{training}", trained.curve)

    def _keys(self, spec: FeatureSpec, usable: Bools) -> dict[str, str]:
        clips = [self.media.manifest.clips[row] for row in np.flatnonzero(usable)]
        return row_keys(spec, clips, self.media.digests)


def row_keys(
    spec: FeatureSpec, clips: Iterable[Clip], content: Mapping[str, str]
) -> dict[str, str]:
    """Return the row keys of clips by clip id; `content` has the digests of their media."""
    return {c.clip_id: spec.key(content[c.clip_id], c.start, c.duration) for c in clips}


def write_nets(
    features: FeatureWriter,
    nets: Sequence[NetSettings],
    writer: CacheWriter,
    diverged: Mapping[str, TrainingDiverged] | None = None,
) -> list[TrainingDiverged]:
    """Train each net and embed with it; withdraw features of diverged nets; return errors."""
    errors = []
    for net in nets:
        # Memory blocks of the previous net have other sizes and would stay allocated unused.
        devices.return_freed_memory()
        try:
            if diverged and net.name in diverged:
                raise diverged[net.name]
            features.write_embeddings(net)
        except TrainingDiverged as error:
            for name in (net.name, f"{net.name}-outputs"):
                writer.withdraw(name)
            errors.append(error)
            if net is not nets[-1]:
                messages.tell_note(f"{net.name} diverged; the next nets are still trained")
    return errors

"""The steps of stage one over one manifest: digest, decode, train and embed, write."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from mvemo.cache import CacheWriter, FeatureSpec
from mvemo.extract.nets import NETS
from mvemo.extract.nets.base import Net, SequenceInput
from mvemo.extract.store.decoded import DecodedStore, decode_many
from mvemo.extract.store.described import DescribedStore, describe_many
from mvemo.extract.training.batches import RawBatches
from mvemo.extract.training.embedding import embed_rows
from mvemo.extract.training.fine_tuning import pick_device
from mvemo.extract.training.plan import NetPlan
from mvemo.extract.training.protocols import RunSettings, Trained, trained_nets
from mvemo.manifests import Manifest
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.inputs import (
    batches_of,
    decode_jobs,
    decode_request,
    digest_media,
    input_of,
    media_files,
)
from mvemo.pipeline.progress import Progress
from mvemo.pipeline.settings import Settings

MODALITIES = ("audio", "video")


class Stage:
    """What the steps share.

    Parameters
    ----------
    manifest
        All clips.
    settings, run
        Of the run; the latter is what all nets share.
    writer
        Of the cache; open.
    work
        Folder of decoded media and checkpoints.
    """

    def __init__(
        self,
        manifest: Manifest,
        settings: Settings,
        run: RunSettings,
        writer: CacheWriter,
        work: Path,
    ) -> None:
        self.features: list[str] = []
        self._manifest = manifest
        self._settings = settings.extract
        self._descriptors = settings.descriptors
        self._run = run
        self._writer = writer
        self._work = work
        # Clip id to its file's digest, or to why there is none.
        self._content, self._unreadable = self._digest_media()
        # Modality to bool (clips,): decoded and fit to be embedded.
        self._usable: dict[str, NDArray[np.bool_]] = {}
        self._store: DecodedStore | None = None
        # Names of the descriptors to make, in order.
        self._described: dict[str, None] = {}
        self._sequences: DescribedStore | None = None

    def _digest_media(self) -> tuple[dict[str, str], dict[str, str]]:
        with Progress("digest media", len(media_files(self._manifest)), "file") as bar:
            return digest_media(self._manifest, lambda failed: bar.step(failed=int(failed)))

    # --- decoding

    def decode(self, plans: list[NetPlan]) -> list[NetPlan]:
        """Decode every clip once for all nets, and keep why some could not be.

        Returns
        -------
        The plans whose modality some clip has; a modality that no clip has is no failure
        of each clip, but a note.

        Raises
        ------
        BadOption
            Video nets of different frame counts, or nothing could be decoded at all.
        """
        inputs = {plan.name: input_of(plan) for plan in plans}
        self._described = dict.fromkeys(self._settings.descriptors)
        for given in inputs.values():
            if isinstance(given, SequenceInput):
                self._described.update(dict.fromkeys(given.features))
        request = decode_request(inputs, [self._descriptors.sr] if self._described else [])
        store = self._store = DecodedStore(self._work / "decoded", request)
        jobs = decode_jobs(self._manifest, self._content, self._unreadable)
        problems = {c: dict.fromkeys(MODALITIES, why) for c, why in self._unreadable.items()}
        with Progress("decode", len(jobs)) as bar:

            def done(clip_id: str, found: dict[str, str]) -> None:
                problems[clip_id] = found
                bar.step(failed=int(bool(found)))

            decode_many(store, jobs, workers=self._settings.workers, on_done=done)
        wanted = {
            modality: [plan.name for plan in plans if NETS[plan.name].modality == modality]
            for modality in MODALITIES
        }
        wanted["audio"] += [name for name in self._described if name not in wanted["audio"]]
        for modality, names in wanted.items():
            ids = self._manifest.clip_ids
            reasons = [problems.get(clip_id, {}).get(modality, "") for clip_id in ids]
            usable = np.array([not reason for reason in reasons], dtype=np.bool_)
            if not names:
                usable[:] = False
            self._usable[modality] = usable
            absent = bool(names) and not usable.any()
            for clip_id, reason in zip(ids, reasons, strict=True):
                if reason and names and not absent:
                    self._writer.fail(clip_id, f"decode:{modality}", reason)
                else:
                    self._writer.clear_failures(clip_id, f"decode:{modality}")
            if absent:
                click.echo(
                    f"{', '.join(names)} left out: no clip has usable {modality} "
                    f"({reasons[0] if reasons else 'no clips'})",
                    err=True,
                )
        kept = [plan for plan in plans if self._usable[NETS[plan.name].modality].any()]
        if not kept:
            reason = next((f"{c}: {'; '.join(p.values())}" for c, p in problems.items()), "")
            raise BadOption(f"not one clip could be decoded; the first: {reason}")
        return kept

    def describe(self) -> None:
        """Describe the sound of every clip, for the cache and for nets that read it."""
        if not self._described or not self._usable["audio"].any():
            return
        assert self._store is not None
        store = self._sequences = DescribedStore(
            self._store, self._descriptors, list(self._described)
        )
        rows = {clip.clip_id: i for i, clip in enumerate(self._manifest.clips)}
        usable = self._usable["audio"].copy()
        ids = [clip_id for clip_id, row in rows.items() if usable[row]]
        with Progress("describe", len(ids)) as bar:

            def done(clip_id: str, problem: str) -> None:
                if problem:
                    usable[rows[clip_id]] = False
                    self._writer.fail(clip_id, "describe", problem)
                else:
                    self._writer.clear_failures(clip_id, "describe")
                bar.step(failed=int(bool(problem)))

            describe_many(store, ids, workers=self._settings.workers, on_done=done)
        self._usable["sequences"] = usable
        for name in self._settings.descriptors:
            spec = store.specs[name]
            keys = self._keys(spec, usable)
            current = self._writer.current(spec, keys)
            for clip_id in keys.keys() - current:
                self._writer.put(spec, clip_id, keys[clip_id], store.sequence(clip_id, name))
            self.features.append(name)

    def _usable_by(self, plan: NetPlan) -> NDArray[np.bool_]:
        """bool (clips,): clips that a net can be given."""
        if isinstance(input_of(plan), SequenceInput):
            return self._usable["sequences"]
        return self._usable[NETS[plan.name].modality]

    def _batches(self, net: Net) -> RawBatches:
        assert self._store is not None
        return batches_of(net, self._manifest.clip_ids, self._store, self._sequences)

    # --- nets

    def embed(
        self, plan: NetPlan, folds: NDArray[np.int64], splits: NDArray[np.int64] | None = None
    ) -> None:
        """Train a net as the protocol says, embed all clips, and put what is not yet there."""
        usable = self._usable_by(plan)
        jobs = len(np.unique(folds)) if self._run.protocol == "crossfit" else 1
        with Progress(plan.name, jobs, "net") as bar:
            for trained in trained_nets(
                plan,
                self._manifest,
                folds,
                usable,
                self._content,
                self._batches,
                self._run,
                self._work / "nets",
                splits=splits,
                on_epoch=lambda label, epoch, epochs, loss: bar.note(
                    f"{label} epoch {epoch}/{epochs}"
                    + (f", validation loss {loss:.3f}" if np.isfinite(loss) else "")
                ),
                on_report=lambda text: click.echo(text, err=True),
            ):
                failed = self._embed_one(trained, usable)
                bar.step(failed=failed)
        self.features.append(plan.name)

    def _embed_one(self, trained: Trained, usable: NDArray[np.bool_]) -> int:
        """Embed the clips that lack a current row; number of those that failed."""
        net, spec, writer = trained.net, trained.spec, self._writer
        clips = self._manifest.clips
        keys = self._keys(spec, usable)
        current = writer.current(spec, keys)
        rows = [i for i, clip in enumerate(clips) if clip.clip_id in keys.keys() - current]
        failed = 0
        for chosen, values in embed_rows(
            net,
            self._batches(net),
            rows,
            batch_size=self._settings.embed_batch,
            device=pick_device(self._run.device),
            precision=self._run.precision,
        ):
            for row, vector in zip(chosen, values, strict=True):
                clip_id = clips[row].clip_id
                if np.isfinite(vector).all():
                    writer.put(spec, clip_id, keys[clip_id], vector)
                    writer.clear_failures(clip_id, f"embed:{spec.name}")
                else:
                    writer.fail(clip_id, f"embed:{spec.name}", "the embedding is not finite")
                    failed += 1
        if trained.curve:
            which = "all" if spec.fold is None else f"fold{spec.fold}"
            if spec.protocol == "holdout":
                which = "holdout"
            writer.curve(f"{spec.name}@{which}", trained.curve)
        return failed

    def _keys(self, spec: FeatureSpec, usable: NDArray[np.bool_]) -> dict[str, str]:
        """Clip id to the key of its row, of clips that can be had."""
        return {
            clip.clip_id: spec.key(self._content[clip.clip_id], clip.start, clip.duration)
            for clip, there in zip(self._manifest.clips, usable, strict=True)
            if there
        }

"""Decoded sound, pictures and descriptors of one manifest, made once for all nets of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mvemo.extract.nets.base import AudioInput, Net, SequenceInput
from mvemo.extract.store.decoded import DecodedStore, decode_many
from mvemo.extract.store.described import DescribedStore, describe_many
from mvemo.extract.training.batches import RawBatches
from mvemo.extract.training.plan import NetPlan
from mvemo.manifests import Manifest
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.inputs import (
    batches_of,
    decode_jobs,
    decode_request,
    digest_media,
    input_of,
)
from mvemo.pipeline.progress import Progress
from mvemo.pipeline.settings import Settings


class StudyMedia:
    """What nets and classical models are given, for the rows of one manifest.

    Parameters
    ----------
    manifest
        All clips.
    settings
        Of the run.
    work
        Folder of the working cache, shared with ``mvemo extract`` and other studies.
    plans
        Nets that will read it.
    descriptors
        Names of descriptors that are read beside those that nets ask for.

    Raises
    ------
    BadOption
        Not one clip could be decoded, or video nets of different frame counts.
    """

    def __init__(
        self,
        manifest: Manifest,
        settings: Settings,
        work: Path,
        *,
        plans: Sequence[NetPlan] = (),
        descriptors: Sequence[str] = (),
    ) -> None:
        self.manifest = manifest
        self.problems: dict[str, str] = {}
        self._settings = settings
        inputs = {plan.name: input_of(plan) for plan in plans}
        names = dict.fromkeys(descriptors)
        for given in inputs.values():
            if isinstance(given, SequenceInput):
                names.update(dict.fromkeys(given.features))
        request = decode_request(inputs, [settings.descriptors.sr] if names else [])
        self._store = DecodedStore(work / "decoded", request)
        self._there = {
            kind: np.ones(len(manifest), dtype=np.bool_) for kind in ("audio", "video", "sequences")
        }
        self.content, unreadable = digest_media(manifest)
        self.problems.update(unreadable)
        for there in self._there.values():
            there[[clip_id in unreadable for clip_id in manifest.clip_ids]] = False
        self._decode()
        self._described = DescribedStore(self._store, settings.descriptors, list(names))
        if names:
            self._describe()

    def _decode(self) -> None:
        jobs = decode_jobs(self.manifest, self.content, self.problems)
        rows = {clip_id: row for row, clip_id in enumerate(self.manifest.clip_ids)}
        with Progress("decode", len(jobs)) as bar:

            def done(clip_id: str, found: dict[str, str]) -> None:
                for kind, reason in found.items():
                    self._there[kind][rows[clip_id]] = False
                    self.problems[clip_id] = f"{kind}: {reason}"
                bar.step(failed=int(bool(found)))

            decode_many(self._store, jobs, workers=self._settings.extract.workers, on_done=done)
        if not (self._there["audio"] | self._there["video"]).any():
            first = next(iter(self.problems.items()), ("", ""))
            raise BadOption(f"not one clip could be decoded; the first: {': '.join(first)}")

    def _describe(self) -> None:
        rows = {clip_id: row for row, clip_id in enumerate(self.manifest.clip_ids)}
        audio = self._there["audio"]
        self._there["sequences"] = there = audio.copy()
        with Progress("describe", int(audio.sum())) as bar:

            def done(clip_id: str, problem: str) -> None:
                if problem:
                    there[rows[clip_id]] = False
                    self.problems[clip_id] = problem
                bar.step(failed=int(bool(problem)))

            describe_many(
                self._described,
                [clip_id for clip_id, row in rows.items() if audio[row]],
                workers=self._settings.extract.workers,
                on_done=done,
            )

    def usable(self, plan: NetPlan) -> NDArray[np.bool_]:
        """bool (clips,): clips that the plan's net can be given."""
        given = input_of(plan)
        if isinstance(given, SequenceInput):
            return self.described
        return self._there["audio" if isinstance(given, AudioInput) else "video"]

    def left_out(self, there: NDArray[np.bool_], where: str = "") -> tuple[str, ...]:
        """A note on the clips that are not `there`, bool (clips,), with the first reason."""
        lost = [c for c, kept in zip(self.manifest.clip_ids, there, strict=True) if not kept]
        if not lost:
            return ()
        reason = self.problems.get(lost[0], "not decoded")
        return (
            f"{len(lost)} of {len(there)} {where or 'clips'} could not be used and are in no "
            f"score; the first, {lost[0]}: {reason}.",
        )

    @property
    def described(self) -> NDArray[np.bool_]:
        """bool (clips,): clips that have descriptors."""
        return self._there["sequences"]

    def batches(self, net: Net) -> RawBatches:
        """The reader of a net's input, by row."""
        return batches_of(net, self.manifest.clip_ids, self._store, self._described)

    def seconds(self) -> dict[str, float]:
        """Clip id to the length of its sound; clips without sound are left out."""
        sr = max(self._store.request.sample_rates)
        return {
            clip_id: len(self._store.waveform(clip_id, sr)) / sr
            for clip_id, there in zip(self.manifest.clip_ids, self._there["audio"], strict=True)
            if there
        }

    def statistics(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Mean, then standard deviation, over the frames of descriptors.

        Returns
        -------
        float64 (clips, 2 * dims), NaN rows for clips without descriptors.
        """
        rows: list[NDArray[np.float64] | None] = []
        for clip_id, there in zip(self.manifest.clip_ids, self.described, strict=True):
            if not there:
                rows.append(None)
                continue
            frames = self._described.joined(clip_id, names).astype(np.float64)
            rows.append(np.concatenate([frames.mean(axis=0), frames.std(axis=0)]))
        width = next((len(row) for row in rows if row is not None), 0)
        return np.array([np.full(width, np.nan) if row is None else row for row in rows])

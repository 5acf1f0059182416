"""Decoded sound, pictures and descriptors of a manifest's clips."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.errors import ClipFailed
from mvemo.extract.media.request import FrameSampling, MediaProblem
from mvemo.extract.nets import AudioInput, Net, SequenceInput, VideoInput, input_of
from mvemo.extract.settings import NetSettings, ViewSettings
from mvemo.extract.store import decoded, folders
from mvemo.extract.training.data import RawBatches
from mvemo.manifests import Manifest
from mvemo.manifests.array_types import F32, Bools
from mvemo.manifests.errors import BadOption
from mvemo.pipeline.clips.media_files import MediaDigests, digest_media
from mvemo.pipeline.console.messages import tell_note
from mvemo.pipeline.console.progress import Progress
from mvemo.pipeline.settings import Settings

Reasons = tuple[tuple[str, str, str], ...]  # (clip id, stage or modality, reason)


def media_request(
    plans: Sequence[NetSettings], descriptors: Sequence[str], settings: DescriptorSettings
) -> tuple[folders.DecodeRequest, list[str]]:
    """Return the request for all nets, views and descriptors, and the names of the descriptors."""
    rates, pictures, names = set(), set(), dict.fromkeys(descriptors)
    for plan in plans:
        net_input = input_of(plan)
        if isinstance(net_input, AudioInput):
            rates.add(net_input.sr)
        elif isinstance(net_input, VideoInput):
            pictures.add(_sampling(net_input, plan.view))
        else:
            names.update(dict.fromkeys(net_input.features))
    if names:
        rates.add(settings.sr)
    by_name = sorted(pictures, key=lambda sampling: sampling.name)
    return folders.DecodeRequest(tuple(sorted(rates)), tuple(by_name), settings.level), list(names)


def _sampling(net_input: VideoInput, view: ViewSettings) -> FrameSampling:
    """Return the frames of all windows that a net reads."""
    return FrameSampling(net_input.n_frames, net_input.size, view.views, view.layout, view.rate)


def decode_jobs(manifest: Manifest, digests: MediaDigests) -> list[folders.DecodeJob]:
    return [
        folders.DecodeJob(
            clip_id=clip.clip_id,
            path=manifest.media_path(clip),
            content=digests.content[clip.clip_id],
            start=clip.start,
            duration=clip.duration,
            stamp=digests.stamps[clip.clip_id],
        )
        for clip in manifest.clips
        if clip.clip_id in digests.stamps
    ]


class ClipMedia:
    """Inputs of nets and classical models for a manifest's clips, which are decoded only once."""

    def __init__(
        self,
        manifest: Manifest,
        settings: Settings,
        work: Path,  # folder of the working cache, which runs and studies share
        *,
        plans: Sequence[NetSettings] = (),  # nets that will read the clips
        descriptors: Sequence[str] = (),  # names of descriptors, in addition to those of the nets
        require_any: bool = True,  # True to raise BadOption if no clip can be decoded
        # For a part of a manifest: row of each clip in the whole manifest.
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.manifest = manifest
        # True for a part of a manifest: other parts may have a modality that this part lacks.
        self._is_part = numbers is not None
        # Clip id for each row of the whole manifest; batches are read by these rows.
        rows = range(len(manifest)) if numbers is None else numbers
        self.clip_of = dict(zip(rows, manifest.clip_ids, strict=True))
        self._decoding = settings.extract.decoding
        self._fail_fast = settings.extract.fail_fast
        self._rows = {clip_id: row for row, clip_id in enumerate(manifest.clip_ids)}
        request, names = media_request(plans, descriptors, settings.descriptors)
        self.modalities = request.modalities
        self.stages = [f"decode:{kind}" for kind in self.modalities] + ["describe"] * bool(names)
        # For each modality, the problems of the clips that do not have it, by clip id.
        self._problems: dict[str, dict[str, MediaProblem]] = {kind: {} for kind in self.modalities}
        # Reason why the descriptors of a clip failed, by clip id.
        self._undescribed: dict[str, str] = {}
        self._store = decoded.DecodedStore(work / "decoded", request)
        self._sequences = decoded.DescribedStore(self._store, settings.descriptors, names)
        digests = digest_media(manifest)
        for of in self._problems.values():
            unreadable = digests.unreadable.items()
            of.update((clip, MediaProblem(reason, passing=True)) for clip, reason in unreadable)
        # Digests of the files' bytes by clip id; empty for unreadable files.
        self.digests: Mapping[str, str] = digests.content
        self._decode(digests)
        if require_any and all(map(self.absent, self.modalities)):
            first = next(filter(self.reason, manifest.clip_ids), "")
            raise BadOption(f"no clip could be decoded; the first, {first}: {self.reason(first)}")
        if names:
            self._describe()
        # `failures` has (clip id, stage, reason), in order of the clips. `missing` has (clip id,
        # modality, reason) of clips with only the other modality, which stage two can predict.
        self.failures, self.missing = self._sort_problems()

    # --- available inputs

    def absent(self, modality: str) -> bool:
        """Return True if no clip has the modality; this is not a failure of the clips."""
        return not (self._is_part or self._has(modality).any())

    def usable(self, plan: NetSettings) -> Bools:
        """Return a mask of the clips that have the input for a net, bool (clips,)."""
        net_input = input_of(plan)
        if isinstance(net_input, SequenceInput):
            return self.described
        return self._has("audio" if isinstance(net_input, AudioInput) else "video")

    @property
    def described(self) -> Bools:
        """Mask of the clips that have descriptors, bool (clips,)."""
        lost = self._undescribed if "describe" in self.stages else self._rows
        return self._has("audio") & self._outside(lost)

    def _has(self, modality: str) -> Bools:
        return self._outside(self._problems.get(modality, self._rows))

    def _outside(self, lost: Collection[str]) -> Bools:
        return np.array([clip_id not in lost for clip_id in self._rows], dtype=np.bool_)

    def reason(self, clip_id: str, modality: str = "") -> str:
        """Return the reason why a clip lacks the modality (by default, any input), or ''."""
        if modality:
            return str(self._problems[modality].get(clip_id, ""))
        reasons = (f"{m}: {of[clip_id]}" for m, of in self._problems.items() if clip_id in of)
        return next(reasons, self._undescribed.get(clip_id, ""))

    @property
    def settled(self) -> bool:
        """True if another run would not retry any failed clip.

        Clips without a file are settled: a later run notices when their files appear.
        """
        failed = (clip for clip in self.manifest.clips if self.passing(clip.clip_id))
        return not any(self.manifest.media_path(clip).exists() for clip in failed)

    def passing(self, clip_id: str) -> bool:
        """Return True if a clip's failure may be temporary, such as a timeout."""
        found = [of[clip_id] for of in self._problems.values() if clip_id in of]
        return clip_id in self._undescribed or any(problem.passing for problem in found)

    def seconds(self) -> dict[str, float]:
        """Return the length in seconds of each clip's sound, except for clips without sound."""
        sr = max(self._store.request.sample_rates, default=0)
        return {
            clip_id: len(self._store.array(clip_id, sr)) / sr
            for clip_id in self._rows
            if sr and clip_id not in self._problems["audio"]
        }

    # --- readers

    def batches(self, net: Net, view: ViewSettings | None = None) -> RawBatches:
        """Return a reader of a net's inputs by row; without `view`, of a single window per clip."""
        view, net_input, clip_of = view or ViewSettings(), net.input, self.clip_of
        store, sequences = self._store, self._sequences
        if isinstance(net_input, SequenceInput):
            names = net_input.features
            return RawBatches(lambda row: sequences.joined(clip_of[row], names), net_input, view)
        wanted = net_input.sr if isinstance(net_input, AudioInput) else _sampling(net_input, view)
        return RawBatches(lambda row: store.array(clip_of[row], wanted), net_input, view)

    def sequence(self, clip_id: str, name: str) -> F32:
        return self._sequences.sequence(clip_id, name)

    # --- steps

    def _decode(self, digests: MediaDigests) -> None:
        jobs = decode_jobs(self.manifest, digests)
        notes = defaultdict[str, list[int]](list)
        with Progress("decode", len(jobs)) as bar:

            def on_clip(clip_id: str, found: Mapping[str, MediaProblem]) -> None:
                problems = dict(found)
                if note := problems.pop(folders.NOTE, None):
                    notes[note.reason].append(self._rows[clip_id])
                for modality, problem in problems.items():
                    self._problems[modality][clip_id] = problem
                failed = [f"{k}: {p.reason}" for k, p in problems.items() if not p.missing]
                bar.step(failed=int(bool(failed)))
                self._end_at_failure(clip_id, "; ".join(failed))

            decoded.decode_many(
                self._store, jobs, self._decoding, on_clip=on_clip, on_kept=bar.keep
            )
        for note, rows in notes.items():
            others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
            tell_note(f"{self.manifest.clips[min(rows)].path}{others}: {note}")

    def _describe(self) -> None:
        clip_ids = [clip_id for clip_id in self._rows if clip_id not in self._problems["audio"]]
        if not clip_ids:
            return
        with Progress("describe", len(clip_ids)) as bar:

            def on_clip(clip_id: str, reason: str) -> None:
                if reason:
                    self._undescribed[clip_id] = reason
                bar.step(failed=int(bool(reason)))
                self._end_at_failure(clip_id, reason)

            decoded.describe_many(
                self._sequences, clip_ids, self._decoding, on_clip=on_clip, on_kept=bar.keep
            )

    def _end_at_failure(self, clip_id: str, reason: str) -> None:
        if reason and self._fail_fast:
            raise ClipFailed(
                f"{clip_id}: {reason}: the first failure ended the run (--fail-fast); earlier "
                "results are kept"
            )

    def _sort_problems(self) -> tuple[Reasons, Reasons]:
        failures, missing = [], []
        problems = {m: of for m, of in self._problems.items() if not self.absent(m)}
        for clip_id in self._rows:
            has_any = any(clip_id not in of for of in problems.values())
            for modality, of in problems.items():
                problem = of.get(clip_id)
                if problem and problem.missing and has_any:
                    missing.append((clip_id, modality, problem.reason))
                elif problem:
                    failures.append((clip_id, f"decode:{modality}", problem.reason))
            if clip_id in self._undescribed:
                failures.append((clip_id, "describe", self._undescribed[clip_id]))
        return tuple(failures), tuple(missing)

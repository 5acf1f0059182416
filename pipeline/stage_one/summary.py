"""Summary of a run of stage one, and the error for trainings that diverged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mvemo.cache.failures import failures_by_reason
from mvemo.extract.errors import TrainingDiverged
from mvemo.extract.settings import NetSettings
from mvemo.pipeline.work_folder import measure_work


@dataclass(frozen=True)
class ExtractSummary:
    """Result of a run of stage one."""

    path: Path  # feature cache
    clips: int  # number of clips in the manifest
    features: tuple[str, ...]  # names of features in the cache
    failures: tuple[tuple[str, str, str], ...]  # (clip id, stage, reason)
    # (clip id, modality, reason) of clips that have only the other modality; not a failure.
    missing: tuple[tuple[str, str, str], ...] = ()
    # Notes on omitted nets, and on clips that are longer than a net's input.
    notes: tuple[str, ...] = ()
    work: Path | None = None  # working folder whose size is shown
    # True if the same run again would not try any failed clip again.
    settled: bool = False

    def text(self) -> str:
        """Return the text for the terminal: notes, missing modalities, failures, the file."""
        lines = [f"note: {note}" for note in self.notes]
        for modality in ("audio", "video"):
            clips = [(clip, why) for clip, kind, why in self.missing if kind == modality]
            if clips:
                lines.append(
                    f"{len(clips)} of {self.clips} clips without {modality}, which counts as "
                    f"missing and not as failed; the first, {clips[0][0]}: {clips[0][1]}"
                )
        if self.failures:
            shown = 20
            lines.append(f"{len(self.failures)} failures, kept in the cache, by reason:")
            kinds = failures_by_reason(self.failures)
            lines += [f"  {kind.text()}" for kind in kinds[:shown]]
            if len(kinds) > shown:
                lines.append(f"  and {len(kinds) - shown} more reasons: mvemo cache info")
        if self.work is not None:
            lines.append(
                f"{self.work} takes {measure_work(self.work).text()}; 'mvemo cache clean-work "
                f"{self.work}' frees what decoding can make again"
            )
        lines.append(f"{self.clips} clips, features {', '.join(self.features)}: {self.path}")
        return "\n".join(lines)


def divergence(
    diverged: Sequence[TrainingDiverged],
    features: Sequence[str],
    plans: Sequence[NetSettings],
    out: Path,
) -> TrainingDiverged:
    """Return one error for all nets that diverged, with advice."""
    finished = [plan.name for plan in plans if plan.name in features]
    advice = "; ".join(error.advice for error in diverged)
    if finished:
        advice += (
            f", or leave out what diverged, --nets {','.join(finished)}; {out} has the features "
            f"of {', '.join(finished)}, which are not trained again"
        )
    return TrainingDiverged("; ".join(error.problem for error in diverged), advice)

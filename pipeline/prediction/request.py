"""Request for predictions of clips, and its answer, for commands and notebooks alike.

Feature files are predicted without the media packages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvemo.manifests.errors import BadOption

if TYPE_CHECKING:
    from mvemo.fuse.conformal import Asked
    from mvemo.fuse.final.clip_prediction import ClipPrediction, Record
    from mvemo.fuse.final.model import FinalModel
    from mvemo.pipeline.prediction.feature_maker import FeatureMaker
    from mvemo.pipeline.prediction.new_clips import NewClip, PredictSettings
    from mvemo.pipeline.stage_one.division import Shard

# Value of `PredictRequest.modality` -> modalities to read.
MODALITIES: dict[str, tuple[str, ...]]
MODALITIES = {"audio": ("audio",), "video": ("video",), "both": ("audio", "video")}


@dataclass(frozen=True)
class PredictRequest:
    """Clips to predict, with all options of the prediction."""

    inputs: Sequence[str]  # files, folders, name patterns and lists, or one feature file (.h5)
    model_name: str | None = None  # name or folder of the model; None for the default model
    modality: str = "both"  # one of `MODALITIES`
    weights: Mapping[str, Path] = field(default_factory=dict)  # file of weights by net
    device: str = "auto"
    coverage: Asked | None = None
    columns: Mapping[str, str] = field(default_factory=dict)  # columns of lists, by our names
    catalogue: Path | None = None  # file that keeps the clips' features
    shard: Shard | None = None  # part of the clips to predict
    jobs: int = 1  # number of processes on this machine
    scheduler: str = ""  # address of a Dask scheduler, whose workers predict

    @property
    def features(self) -> Path | None:
        """The feature file to predict, or None."""
        files = [Path(entry) for entry in self.inputs if entry.lower().endswith(".h5")]
        return files[0] if files else None


def predict(
    request: PredictRequest,
    on_clip: Callable[[FinalModel, ClipPrediction], object] | None = None,
) -> tuple[FinalModel, list[ClipPrediction]]:
    """Predict clips; call `on_clip` with each prediction as soon as it is made."""
    if request.features is not None:
        from mvemo.pipeline.prediction.predictions import predict_features

        model, found = predict_features(
            request.model_name, request.features, MODALITIES[request.modality], request.coverage
        )
    else:
        from mvemo.pipeline.prediction.new_clips import warm_up

        is_spread = request.jobs > 1 or bool(request.scheduler)
        later = request.catalogue is not None or request.shard is not None or is_spread
        clips, folder, settings = clips_and_settings(request, later=later)
        if request.shard is not None:
            from mvemo.pipeline.prediction.spread import of_shard

            clips = of_shard(clips, request.shard, folder)
        if not all(clip.problem for clip in clips):
            if later and request.catalogue is None and not is_spread:
                warm_up(folder, settings)
            from mvemo.pipeline.prediction.run import predict_files

            spread = (request.jobs, request.scheduler) if is_spread else None
            return predict_files(folder, clips, settings, request.catalogue, on_clip, spread)
        model, found = _unreadable(folder, clips, settings)
    if on_clip is not None:
        for prediction in found:
            on_clip(model, prediction)
    return model, found


def clips_and_settings(
    request: PredictRequest, *, later: bool = False
) -> tuple[list[NewClip], Path, PredictSettings]:
    """Return the clips, the model's folder and the settings; download missing weights.

    With `later`, call `warm_up` before clips are read.
    """
    from mvemo.pipeline.models.boxed import pick_model
    from mvemo.pipeline.prediction import new_clips

    clips = new_clips.find_clips(request.inputs, request.columns)
    coverage, modality = request.coverage, request.modality
    modalities = new_clips.modalities_of(clips) if modality == "both" else (modality,)
    settings = new_clips.PredictSettings(modalities, request.weights, request.device, coverage)
    # Neither torch nor weights are needed to say that no clip can be read.
    is_read = not all(clip.problem for clip in clips)
    is_now = is_read and not later
    is_open = not is_read or (request.model_name is None and modality == "both")
    if is_now:
        new_clips.import_torch(settings)
    pictures = new_clips.have_pictures(clips) if is_open else [modality == "video"]
    folder = pick_model(request.model_name, pictures)
    if coverage is not None and is_read:
        from mvemo.fuse.final.model_files import load_model

        load_model(folder, coverage)
    if is_now:
        new_clips.fetch_weights(folder, settings)
    return clips, folder, settings


def timelines(
    request: PredictRequest, windows: Mapping[str, Any], to: Path
) -> Iterator[tuple[FinalModel, str, list[Record]]]:
    """Write the timelines of clips to a folder, by the `TimelineSettings` in `windows`.

    See `write_timelines`. If no clip can be read, the reasons are yielded without importing
    PyTorch.
    """
    clips, folder, settings = clips_and_settings(request)
    if all(clip.problem for clip in clips):
        from mvemo.pipeline.prediction.predictions import unpredicted

        model, found = _unreadable(folder, clips, settings)
        return ((model, *unpredicted(p.path, p.error)) for p in found)
    from mvemo.pipeline.prediction.timeline import TimelineSettings, write_timelines

    return write_timelines(folder, clips, settings, TimelineSettings(**windows), to)


def open_clip(request: PredictRequest) -> tuple[FeatureMaker, NewClip]:
    """Return the only clip of a request, and the maker of its features, whose nets are loaded."""
    clips, folder, settings = clips_and_settings(request)
    if len(clips) != 1 or clips[0].problem:
        problem = clips[0].problem or "expected one media file"
        raise BadOption(f"{request.inputs[0]}: {problem}")
    from mvemo.pipeline.prediction.feature_maker import FeatureMaker

    maker = FeatureMaker(folder, settings)
    maker.features()
    return maker, clips[0]


def _unreadable(
    folder: Path, clips: Sequence[NewClip], settings: PredictSettings
) -> tuple[FinalModel, list[ClipPrediction]]:
    """Return the model, and predictions with only the error, without importing PyTorch."""
    from mvemo.fuse.final.clip_prediction import ClipPrediction
    from mvemo.fuse.final.model_files import load_model

    model = load_model(folder, settings.coverage)
    return model, [ClipPrediction(clip.file, error=clip.problem) for clip in clips]

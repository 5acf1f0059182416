"""Explanation of a prediction by occlusion: the clip is predicted again without each stretch.

Occlusion over time follows Zeiler and Fergus 2014, "Visualizing and understanding convolutional
networks", section 4.2. For nets that pool over pieces of a clip, the pieces of the stretch are
left out and nothing is embedded again. For other nets, the sound of the stretch becomes silence,
and its frames become the mean of the other frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mvemo.extract.arrays import F64
from mvemo.fuse.final.model import FeatureKey, FinalModel, predict_clips, standardise_folders
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.errors import BadOption
from mvemo.pipeline.prediction import page
from mvemo.pipeline.prediction.batches import clip_seconds
from mvemo.pipeline.prediction.embedding import FeatureMaker
from mvemo.pipeline.prediction.formats import format_of
from mvemo.pipeline.prediction.inputs import NewClip
from mvemo.pipeline.prediction.passes import ClipPass, Sketch
from mvemo.pipeline.prediction.predictions import Prediction, legend
from mvemo.pipeline.prediction.run import predict_vectors
from mvemo.pipeline.prediction.streams import Span, StreamPlan

# Length of the longest clip that is explained: each step is one more prediction.
MOST_SECONDS = 600.0
TITLES = {"audio": "sound", "video": "pictures"}
# Number of frames on the page.
N_FRAMES = 8


@dataclass(frozen=True)
class ExplainSettings:
    """Settings of an explanation.

    Parameters
    ----------
    step, width
        Hop and length of the stretches that are left out, in seconds.
    output
        Class, tag or target to explain; None for the predicted one.

    Raises
    ------
    BadOption
        A number is out of range.
    """

    step: float = 1.0
    width: float = 3.0
    output: str | None = None

    def __post_init__(self) -> None:
        if not 0.25 <= self.step <= 60:
            raise BadOption(f"--step {self.step:g}: from 0.25 to 60 seconds")
        if not self.step <= self.width <= 60:
            raise BadOption(f"--width {self.width:g}: from --step, {self.step:g}, to 60 seconds")


@dataclass(frozen=True)
class Explanation:
    """Contribution of each stretch of a clip to its prediction."""

    prediction: Prediction  # prediction of the whole clip
    seconds: float  # length of the clip
    output: str  # explained class, tag or target
    times: F64  # middle of each stretch in seconds, float64 (n,)
    # Evidence (`Format.evidence`) that is lost without the sound (``audio``) or the pictures
    # (``video``) of each stretch, float64 (n,). If negative, it speaks against the output.
    effects: Mapping[str, F64]
    sketch: Sketch

    def strongest(self, modality: str, most: int = 5, apart: float = 2.0) -> list[int]:
        """Return at most `most` rows of the strongest stretches, `apart` seconds or more apart."""
        effect = self.effects[modality]
        chosen: list[int] = []
        for row in np.argsort(-effect, kind="stable").tolist():
            far = all(abs(self.times[row] - self.times[other]) >= apart for other in chosen)
            if effect[row] > 0 and far and len(chosen) < most:
                chosen.append(row)
        return chosen


def explain_clip(
    maker: FeatureMaker,
    clip: NewClip,
    modalities: tuple[str, ...],
    settings: ExplainSettings,
) -> Explanation:
    """Predict a clip, and predict it again without each of its stretches."""
    classes = maker.model.classes
    if settings.output is not None and settings.output not in classes:
        raise BadOption(f"--of {settings.output!r}: one of {', '.join(classes)}")
    seconds = clip_seconds(clip)
    if seconds > MOST_SECONDS:
        raise BadOption(
            f"{clip.file}: {seconds:.0f} s long: at most {MOST_SECONDS:g} s can be explained; "
            "see 'mvemo predict --timeline' for longer ones"
        )
    window = (0.0, seconds)
    # Use the single frames that `mvemo predict` reads: more frames may change the prediction.
    plan = StreamPlan(seconds, (window,))
    streams = maker.streams(modalities, plan)
    clip_pass = ClipPass(clip.path, clip.start, clip.duration, plan, streams, modalities)
    clip_pass.sketch.keep_sound = True
    ((_, vectors),) = clip_pass.windows(forget=False)
    prediction = predict_vectors(maker, clip.file, vectors, clip_pass.problems)
    if prediction.predictor is None:
        raise BadOption(f"{clip.file}: {prediction.problem}")
    written = format_of(maker.model)
    if settings.output is None:
        output = written.target_output(prediction.predictor, prediction.outputs)
    else:
        output = classes.index(settings.output)
    times = np.arange(settings.step / 2, seconds, settings.step)
    effects = _effects(maker, clip_pass, prediction, vectors, output, times, settings)
    return Explanation(prediction, seconds, classes[output], times, effects, clip_pass.sketch)


def _effects(
    maker: FeatureMaker,
    clip_pass: ClipPass,
    prediction: Prediction,
    vectors: Mapping[FeatureKey, F64],
    output: int,
    times: F64,
    settings: ExplainSettings,
) -> dict[str, F64]:
    """Return the `effects` of an `Explanation`."""
    predictor = prediction.predictor
    assert predictor is not None
    written = format_of(maker.model)
    whole = written.evidence(prediction.outputs, output)
    needed = {key: vector for key, vector in vectors.items() if key[0] in predictor.features}
    effects: dict[str, F64] = {}
    for modality in predictor.modalities:
        lost = np.zeros(len(times))
        for row, time in enumerate(times):
            stretch: Span = (time - settings.width / 2, time + settings.width / 2)
            left = {**needed, **clip_pass.without(modality, stretch, needed)}
            rows = {key: vector[None] for key, vector in left.items()}
            scaled = standardise_folders(maker.model, rows, [prediction.file])
            outputs = predict_clips(maker.model, predictor, scaled)[0]
            lost[row] = whole - written.evidence(outputs, output)
        effects[modality] = lost
    return effects


def explanation_html(model: FinalModel, explanation: Explanation) -> str:
    """Return an explanation as one self-contained HTML page, with the sound."""
    most = max((float(np.abs(e).max()) for e in explanation.effects.values()), default=0.0) or 1.0
    curves = [
        {
            "name": TITLES[modality],
            "colour": page.COLOURS[i],
            "points": page.polyline(explanation.times, e, explanation.seconds, (-most, most)),
        }
        for i, (modality, e) in enumerate(explanation.effects.items())
    ]
    prediction = explanation.prediction
    assert prediction.predictor is not None
    return (
        page.environment()
        .get_template("explain.html")
        .render(
            explanation=explanation,
            title=Path(prediction.file).name,
            headline=format_of(model).headline(prediction.predictor, prediction.outputs),
            curves=curves,
            seconds=_strongest(explanation),
            frames=_frames(explanation),
            waveform=page.waveform_path(explanation.sketch),
            ticks=page.ticks(explanation.seconds),
            audio=page.sound_url(explanation.sketch),
            notes=prediction.notes,
            legend=legend(model, [prediction]),
            width=page.WIDTH,
            height=page.HEIGHT,
            wave_height=page.WAVE_HEIGHT,
        )
    )


def explanation_text(model: FinalModel, explanation: Explanation) -> str:
    """Return the text for the terminal: the prediction and its strongest seconds."""
    prediction = explanation.prediction
    assert prediction.predictor is not None
    headline = format_of(model).headline(prediction.predictor, prediction.outputs)
    rows = [["around", "by its", "evidence"]]
    rows += [
        [page.clock(entry["time"]), entry["what"], f"{entry['effect']:.3f}"]
        for entry in _strongest(explanation)
    ]
    lines = [f"{prediction.file}: {headline}", f"what speaks for {explanation.output}:"]
    return "\n".join([*lines, *align_columns(rows, left={1})])


def _strongest(explanation: Explanation) -> list[dict[str, Any]]:
    """Return the seconds of each modality that speak most for the output."""
    rows = []
    for modality in explanation.effects:
        for row in explanation.strongest(modality):
            effect = explanation.effects[modality][row]
            rows.append(
                {
                    "what": TITLES[modality],
                    "time": float(explanation.times[row]),
                    "effect": float(effect),
                }
            )
    return sorted(rows, key=lambda entry: -entry["effect"])


def _frames(explanation: Explanation) -> list[dict[str, Any]]:
    """Return thumbnails of the times at which the pictures speak most for the output."""
    if "video" not in explanation.effects:
        return []
    pictures = explanation.sketch.thumbnails
    times = np.array([time for time, _ in pictures])
    frames = []
    for row in explanation.strongest("video", N_FRAMES, apart=1.0):
        if len(times):
            nearest = int(np.abs(times - explanation.times[row]).argmin())
            effect = float(explanation.effects["video"][row])
            url = page.picture_url(pictures[nearest][1], quality=85)
            frames.append({"time": float(times[nearest]), "effect": effect, "url": url})
    return frames

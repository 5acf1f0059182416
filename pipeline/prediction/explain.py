"""Explanation of a prediction by occlusion: the clip is predicted without each time range.

Occlusion over time follows Zeiler and Fergus 2014, "Visualizing and understanding convolutional
networks", section 4.2. For nets that pool over pieces of a clip, the pieces in the time range
are left out and nothing is embedded again. For other nets, the sound in the range becomes silence,
and its frames become the mean of the other frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from mvemo.extract.media.request import IN_WORDS
from mvemo.fuse.final.clip_prediction import ClipPrediction
from mvemo.fuse.final.formats import format_of
from mvemo.fuse.final.model import FinalModel
from mvemo.manifests.array_types import F64
from mvemo.manifests.errors import BadOption
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.console.messages import verbosity
from mvemo.pipeline.prediction import new_clips, page, predictions, run, windows, wording
from mvemo.pipeline.prediction.feature_maker import FeatureMaker

# Maximum length of a clip to explain, in seconds: each step needs another prediction.
MOST_SECONDS = 600.0
# Maximum number of frames on the page.
N_FRAMES = 8


@dataclass(frozen=True)
class ExplainSettings:
    """Settings of an explanation."""

    step: float = 1.0  # seconds from one left-out time range to the next
    width: float = 3.0  # length of a time range in seconds
    output: str | None = None  # class, tag or target to explain; None for the predicted one

    def __post_init__(self) -> None:
        if not 0.25 <= self.step <= 60:
            raise BadOption(f"--step {self.step:g}: expected 0.25 to 60 seconds")
        if not self.step <= self.width <= 60:
            raise BadOption(
                f"--width {self.width:g}: expected {self.step:g} (--step) to 60 seconds"
            )


@dataclass(frozen=True)
class Explanation:
    """Contribution of each time range of a clip to its prediction."""

    prediction: ClipPrediction  # prediction of the whole clip
    summary: str  # the prediction in a few words
    seconds: float  # length of the clip
    output: str  # explained class, tag or target
    times: F64  # middle of each time range in seconds, float64 (n,)
    # By modality, loss of evidence (`Format.evidence`) if the sound or the pictures of each time
    # range are left out, float64 (n,). Negative values are evidence against the output.
    effects: Mapping[str, F64]
    sketch: page.Sketch

    def strongest(self, modality: str, most: int = 5, apart: float = 2.0) -> list[int]:
        """Return the indices of the `most` strongest time ranges that are `apart` seconds apart."""
        effect = self.effects[modality]
        chosen: list[int] = []
        for row in np.argsort(-effect, kind="stable").tolist():
            far = all(abs(self.times[row] - self.times[other]) >= apart for other in chosen)
            if effect[row] > 0 and far and len(chosen) < most:
                chosen.append(row)
        return chosen

    def stretches(self) -> list[tuple[float, str, float]]:
        """Return (time, sound or pictures, effect) of the strongest ranges, strongest first."""
        rows = [
            (float(self.times[row]), IN_WORDS[modality], float(effect[row]))
            for modality, effect in self.effects.items()
            for row in self.strongest(modality)
        ]
        return sorted(rows, key=lambda entry: -entry[2])


def explain_clip(
    maker: FeatureMaker,
    clip: new_clips.NewClip,
    settings: ExplainSettings,
    progress: windows.Progress = lambda share: None,
) -> Explanation:
    """Predict a clip, and predict it again without each of its time ranges."""
    classes = maker.model.classes
    if settings.output is not None and settings.output not in classes:
        raise BadOption(f"--of {settings.output!r}: expected one of {', '.join(classes)}")
    seconds = new_clips.clip_seconds(clip)
    if seconds > MOST_SECONDS:
        raise BadOption(
            f"{clip.file}: is {seconds:.0f} s long, but at most {MOST_SECONDS:g} s can be "
            "explained: use 'mvemo predict --timeline' for longer clips"
        )
    window = (0.0, seconds)
    # Read the frames that `mvemo predict` reads: other frames may change the prediction.
    plan = windows.WindowPlan(seconds, (window,))
    with maker.open(clip, plan, lambda share: progress(share / 2)) as read:
        vectors, sketch = read.vectors(window), read.sketch(keep_sound=True)
        prediction = run.predict_window(maker, read, clip.file, vectors)
        if prediction.predictor is None:
            raise BadOption(f"{clip.file}: {prediction.error}")
        predictor = prediction.predictor
        written = format_of(maker.model)
        output = (
            written.target_output(predictor, prediction.outputs)
            if settings.output is None
            else classes.index(settings.output)
        )
        # A clip shorter than half a step has a single time range.
        first = min(settings.step, seconds) / 2
        times = np.arange(first, seconds, settings.step)
        needed = {k: v for k, v in vectors.items() if k[0] in predictor.features}
        whole = written.evidence(prediction.outputs, output)
        half, n_ranges = settings.width / 2, len(times) * len(predictor.modalities)
        effects = {modality: np.zeros(len(times)) for modality in predictor.modalities}
        for i, (modality, row) in enumerate(product(effects, range(len(times)))):
            progress(0.5 + i / n_ranges / 2)
            span = (times[row] - half, times[row] + half)
            keys = [key for key in needed if read.features[key].modality == modality]
            changed = needed | read.vectors(window, span, keys)
            outputs = predictions.predict_vectors(
                maker.model, predictor, prediction, changed
            ).outputs
            effects[modality][row] = whole - written.evidence(outputs, output)
    summary = written.summary(predictor, prediction.outputs)
    return Explanation(prediction, summary, seconds, classes[output], times, effects, sketch)


def explanation_html(model: FinalModel, explanation: Explanation) -> str:
    """Return an explanation as a self-contained HTML page, including the sound."""
    most = max(float(np.abs(e).max()) for e in explanation.effects.values()) or 1.0
    curves = [
        {
            "name": IN_WORDS[modality],
            "colour": page.COLOURS[i],
            "points": page.polyline(explanation.times, e, explanation.seconds, (-most, most)),
        }
        for i, (modality, e) in enumerate(explanation.effects.items())
    ]
    prediction = explanation.prediction
    return page.render(
        "explain.html",
        prediction.path,
        explanation.seconds,
        explanation.sketch,
        output=explanation.output,
        summary=explanation.summary,
        curves=curves,
        stretches=explanation.stretches(),
        frames=_frames(explanation),
        notes=prediction.notes,
        legend=wording.legend(model, [prediction]),
    )


def explanation_text(explanation: Explanation) -> str:
    """Return the text for the terminal: the prediction and its strongest seconds."""
    prediction = explanation.prediction
    rows = [
        (page.clock(time), what, f"{effect:.3f}") for time, what, effect in explanation.stretches()
    ]
    return "\n".join(
        [
            f"{prediction.path}: {explanation.summary}",
            f"strongest evidence for {explanation.output}:",
            *align_columns([("around", "in its", "evidence"), *rows], left={1}),
            *(f"note: {note}" for note in prediction.notes if verbosity() != "quiet"),
        ]
    )


def _frames(explanation: Explanation) -> list[dict[str, Any]]:
    """Return the thumbnails nearest to the strongest time ranges of the pictures."""
    pictures = explanation.sketch.thumbnails
    if "video" not in explanation.effects or not pictures:
        return []
    times = np.array([time for time, _ in pictures])
    frames = []
    for row in explanation.strongest("video", N_FRAMES, apart=1.0):
        time, picture = pictures[int(np.abs(times - explanation.times[row]).argmin())]
        effect, url = explanation.effects["video"][row], page.picture_url(picture, quality=85)
        frames.append({"time": time, "effect": effect, "url": url})
    return frames

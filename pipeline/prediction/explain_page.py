"""Page of an explanation: the seconds and the frames that drove the prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mvemo.fuse.final.model import FinalModel
from mvemo.manifests.text_table import align_columns
from mvemo.pipeline.prediction import page
from mvemo.pipeline.prediction.explain import Explanation
from mvemo.pipeline.prediction.formats import format_of
from mvemo.pipeline.prediction.output import legend

TITLES = {"audio": "sound", "video": "pictures"}
# Number of frames on the page.
N_FRAMES = 8


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

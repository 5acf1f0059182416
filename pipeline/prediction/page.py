"""Parts of the pages of timelines and explanations: curves, waveform, pictures, sound.

A page is one file that loads nothing, and all text is escaped. Drawings contain no text and are
scaled to the page's width, so that labels outside them stay readable on a phone.
"""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mvemo.extract.media.sound_files import write_sound
from mvemo.fuse.report.text import page_templates
from mvemo.manifests.array_types import F32, F64, U8

# Seconds per bar of the waveform, and number of bars that are computed at a time.
BAR_SECONDS, BARS_AT_ONCE = 0.1, 600
# Height and width of a thumbnail in pixels, and their largest number.
THUMBNAIL, MOST_THUMBNAILS = 96, 60
TEMPLATES = Path(__file__).with_name("templates")
# Colours for colour-blind readers (Okabe and Ito 2008), followed by four further colours.
COLOURS = (
    *("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#8c6d31", "#7b4173", "#637939", "#5254a3"),
)
# Size of a drawing in SVG units; the page scales it.
WIDTH, HEIGHT = 1000.0, 200.0
# Largest number of bars of a waveform, and the height of its drawing.
MOST_BARS, WAVE_HEIGHT = 500, 60.0


class Sketch:
    """Waveform, sound and thumbnails of a clip."""

    def __init__(
        self,
        y: F32,  # sound, float32 (samples,); empty without sound
        sr: int,  # sampling rate in Hz
        gain: float,  # factor of the sound, which is taken out
        thumbnails: Sequence[tuple[float, U8]],  # (time in seconds, picture), ascending
        *,
        keep_sound: bool,
    ) -> None:
        self.sr = sr
        self.thumbnails = thumbnails
        # All samples, or none if the sound is not kept.
        self.sound: F32 = y / np.float32(gain) if keep_sound else y[:0]
        size = max(round(BAR_SECONDS * sr), 1)
        bars = y[: len(y) // size * size].reshape(-1, size)
        peaks, power = [np.zeros(0)], [np.zeros(0)]
        for first in range(0, len(bars), BARS_AT_ONCE):
            part = bars[first : first + BARS_AT_ONCE] / np.float32(gain)
            peaks.append(np.abs(part).max(axis=1))
            power.append(np.square(part).mean(axis=1))
        self.peaks = np.concatenate(peaks)  # largest magnitude in each bar
        self.power = np.concatenate(power)  # mean square of each bar

    def loudness(self, start: float, stop: float) -> float:
        """Return the loudness of a time range in dB of full scale; -inf without sound."""
        bars = self.power[int(start / BAR_SECONDS) : max(math.ceil(stop / BAR_SECONDS), 1)]
        mean = float(np.mean(bars)) if len(bars) else 0.0
        return 10.0 * math.log10(mean) if mean > 0 else -math.inf


def thumbnail_times(seconds: float) -> F64:
    """Return the times of a clip's thumbnails in seconds."""
    count = min(MOST_THUMBNAILS, max(1, round(seconds)))
    return (np.arange(count) + 0.5) * seconds / count


def render(template: str, file: str, seconds: float, sketch: Sketch, **values: object) -> str:
    """Return a page on a clip as one self-contained HTML text, with all text escaped."""
    templates = page_templates(TEMPLATES)
    templates.filters["clock"] = clock
    return templates.get_template(template).render(
        file=file,
        title=Path(file).name,
        seconds=seconds,
        waveform=waveform_path(sketch),
        ticks=ticks(seconds),
        audio=sound_url(sketch),
        width=WIDTH,
        height=HEIGHT,
        wave_height=WAVE_HEIGHT,
        **values,
    )


def clock(seconds: float) -> str:
    """Format a time in seconds like a media player, such as 1:02:03."""
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def ticks(seconds: float) -> list[float]:
    """Return round times in seconds for the ticks of an axis from 0, in at most 7 steps."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
    step = next((s for s in steps if seconds / s <= 7), steps[-1])
    return [float(t) for t in np.arange(0.0, seconds + 1e-9, step)]


def polyline(
    times: Sequence[float] | F64,
    values: Sequence[float] | F64,
    seconds: float,
    span: tuple[float, float],
) -> str:
    """Return the SVG points of a curve; `span` holds the values at the bottom and top edges."""
    low, high = span
    x = WIDTH * np.asarray(times) / seconds
    y = HEIGHT * (1.0 - (np.asarray(values) - low) / ((high - low) or 1.0))
    points = zip(x, y.clip(-5.0, HEIGHT + 5.0), strict=True)
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)


def waveform_path(sketch: Sketch) -> str:
    """Return an SVG path of the waveform's outline, in a box of `WIDTH` x `WAVE_HEIGHT`."""
    peaks = sketch.peaks
    if not len(peaks):
        return ""
    bars = min(MOST_BARS, len(peaks))
    edges = np.linspace(0, len(peaks), bars + 1).astype(int)
    heights = np.maximum.reduceat(peaks, edges[:-1])
    heights = heights / max(float(heights.max()), 1e-6) * (WAVE_HEIGHT / 2 - 1)
    x = (np.arange(bars) + 0.5) * WIDTH / bars
    outline = zip([*x, *x[::-1]], [*-heights, *heights[::-1]], strict=True)
    return "M" + "L".join(f"{a:.1f},{WAVE_HEIGHT / 2 + h:.1f}" for a, h in outline) + "Z"


def picture_url(picture: U8, quality: int = 70) -> str:
    """Return a picture, uint8 (height, width, 3) in RGB, as a data URL."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return _data_url("image/jpeg", encoded.tobytes())


def sound_url(sketch: Sketch) -> str:
    """Return the sound as a data URL; empty if it was not kept."""
    if not len(sketch.sound):
        return ""
    buffer = io.BytesIO()
    # Low quality is enough to recognise a place in the clip.
    step = max(1, round(sketch.sr / 22050))
    y = sketch.sound
    smooth = y[: len(y) // step * step].reshape(-1, step).mean(axis=1, dtype=np.float64)
    write_sound(buffer, smooth, sketch.sr // step, format="OGG", subtype="VORBIS")
    return _data_url("audio/ogg", buffer.getvalue())


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

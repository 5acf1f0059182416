"""Sound of a clip: audio files read by libsndfile, and waveforms resampled block by block."""

import math
import tempfile
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
import soxr

from mvemo.extract.media import formats, loudness, sound_files
from mvemo.extract.media.request import (
    CUT_OFF,
    NO_VIDEO,
    ClipRequest,
    Decoded,
    MediaProblem,
    check_length,
    starts_after_end,
)
from mvemo.manifests.array_types import F32

# A waveform is silent if half of its range is below this: -80 dB relative to full scale.
SILENCE_PEAK = 10.0 ** (-80.0 / 20.0)
# The channels cancel each other if their sum has less than this share of the channels' energy. The
# share is 1 for unrelated channels, and 2/5 for wide stereo whose sides are 6 dB above its middle.
# It is 1/6 for a channel and its inverse that is 5.4 dB softer; lossy codecs leave below 1/100.
CANCELLING = 1 / 6
# Seconds of audible sound that decide whether the channels cancel each other.
JUDGED_SECONDS = 20
# Loud lossy sound exceeds full scale by a few decibels; more than 12 dB indicate another scale.
MAX_PEAK = 4.0
# Maximum size of a clip's waveforms in memory, in bytes: about 6 h at 16 kHz.
MAX_BYTES = 3 << 29
# Maximum size of a clip's waveforms on disk, in bytes: about 3 h at 44.1 and 16 kHz together.
MAX_SPOOLED_BYTES = 3 << 30
# Maximum length of sound, in seconds; longer sound indicates a jump of time stamps.
MAX_SECONDS = 24 * 3600.0
# Samples per rate kept in memory before they are written to disk: 9 min at 16 kHz.
_IN_MEMORY = 1 << 23
# Samples of silence created at a time.
_BLOCK = 1 << 20
# Formats that mark or state the end of their data, which libsndfile does not check.
_STATING_END = ("ogg", "au", "w64")
# Formats that state the layout of more than two channels, which libsndfile does not pass on.
_STATING_LAYOUT = ("wav", "wavex", "rf64", "w64", "flac", "caf", "aiff")
# Smallest gap or overlap of sound, in seconds, that is corrected; smaller ones are rounding.
MIN_GAP = 0.05
# NumPy type and full scale of each sample format of the decoders.
_SAMPLE_FORMATS: dict[str, tuple[type[np.generic], float]] = {
    "u8": (np.uint8, 2.0**7),
    "s16": (np.int16, 2.0**15),
    "s32": (np.int32, 2.0**31),
    "s64": (np.int64, 2.0**63),
    "flt": (np.float32, 1.0),
    "dbl": (np.float64, 1.0),
}


class _Track:
    """Sound at one rate, kept in memory, or in a file if it is long."""

    def __init__(self, sr: int, rate: int, spool: Path | None) -> None:
        self.n_samples, self._spool = 0, spool
        self._resampler = None if rate == sr else soxr.ResampleStream(sr, rate, 1, dtype="float32")
        self._blocks: list[F32] = []
        self._file: IO[bytes] | None = None

    def add(self, block: F32, *, last: bool = False) -> None:
        if self._resampler is not None:
            block = self._resampler.resample_chunk(block, last=last)
        if not len(block):
            return
        self.n_samples += len(block)
        self._blocks.append(np.ascontiguousarray(block, dtype=np.float32))
        if self._spool is not None and self.n_samples > _IN_MEMORY:
            if self._file is None:
                self._spool.mkdir(parents=True, exist_ok=True)
                # The file stays open, because the mapped waveform needs it.
                self._file = tempfile.TemporaryFile(dir=self._spool)  # noqa: SIM115
            for samples in self._blocks:
                self._file.write(samples.data)
            self._blocks.clear()

    def joined(self, gain: float) -> F32:
        if self._file is None:
            y = np.concatenate(self._blocks)
        else:
            self._file.flush()
            y = np.memmap(self._file, np.float32, "r+")
        if gain != 1:
            y *= np.float32(gain)
        return y


class Waveforms:
    """Mono sound of a clip at the rates of a request; without rates, it is only judged."""

    def __init__(self, sr: int, request: ClipRequest, channel: int | None) -> None:
        self.sr = sr
        self._channel, self._level = channel, request.level
        self.loudness: float = -math.inf  # integrated, in LUFS after `finish`, if it is measured
        self._meter = loudness.LoudnessMeter(sr) if request.sample_rates else None
        self._max_bytes = MAX_BYTES if request.spool is None else MAX_SPOOLED_BYTES
        self.n_samples: int = 0  # number of added samples, at the source's rate
        self._tracks = {rate: _Track(sr, rate, request.spool) for rate in request.sample_rates}
        self._low, self._high = np.inf, -np.inf
        self._n_not_finite = 0
        # Statistics of the weighted channels that `channel` depends on: number of samples, sums,
        # and sums of products.
        self._n_judged = 0
        self._sums, self._products = np.zeros(1), np.zeros((1, 1))

    @property
    def is_silent(self) -> bool:
        """True if the added sound is silent, or there is none."""
        return (self._high - self._low) / 2 < SILENCE_PEAK

    @property
    def is_judged(self) -> bool:
        """True if more sound does not change `channel`."""
        return self._n_judged >= JUDGED_SECONDS * self.sr

    @property
    def channel(self) -> int | None:
        """First loud channel, if the channels cancel each other in their mean; otherwise None."""
        with np.errstate(invalid="ignore"):
            offsets = np.outer(self._sums, self._sums) / max(self._n_judged, 1)
            covariances = self._products - offsets
        energies, rounding = covariances.diagonal(), 1e-5 * offsets.diagonal().max()
        audible = energies.max() > max(self._n_judged * (SILENCE_PEAK / 100) ** 2, rounding)
        if audible and covariances.sum() < CANCELLING * energies.sum():
            return int(np.argmax(energies >= energies.max() / 2))
        return None

    def add_channels(self, rows: F32, weights: F32) -> None:
        """Append the weighted sum of all channels, or one channel; float32 (channels, samples)."""
        single = None if self._channel is None else rows[: self._channel + 1][-1]
        rows = rows * weights[:, None] if len(rows) > 1 else rows
        self.add(rows.sum(axis=0) if single is None else single)
        loud = rows.size and float(rows.max() - rows.min()) / 2 >= SILENCE_PEAK
        if self.is_judged or not loud:
            return
        self._n_judged += rows.shape[1]
        count, more = len(rows), max(len(rows) - len(self._sums), 0)
        self._sums, self._products = (np.pad(x, (0, more)) for x in (self._sums, self._products))
        self._sums[:count] += rows.sum(axis=1)
        self._products[:count, :count] += rows @ rows.T

    @property
    def too_long(self) -> str:
        return (
            f"the sound is too long: more than {self.n_samples} samples at {self.sr} Hz need over "
            f"{self._max_bytes / 2**30:g} GiB at {list(self._tracks)} Hz: split the clip with "
            "'mvemo manifest segment'"
        )

    def has_room(self, n_samples: int) -> bool:
        """Return True if `n_samples` more samples stay within the limits of size or length."""
        seconds = (self.n_samples + n_samples) / self.sr
        return seconds <= MAX_SECONDS and 4.0 * seconds * sum(self._tracks) <= self._max_bytes

    def add(self, block: F32) -> None:
        """Append samples, float32 (samples,); full scale is 1."""
        if len(block) == 0:
            return
        low, high = float(block.min()), float(block.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            self._n_not_finite += int(np.count_nonzero(~np.isfinite(block)))
        self._low, self._high = min(self._low, low), max(self._high, high)
        self.n_samples += len(block)
        if self._meter is not None:
            self._meter.add(block)
        for track in self._tracks.values():
            track.add(block)

    def add_silence(self, n_samples: int) -> None:
        """Append zeros, which the check for silence ignores."""
        low, high = self._low, self._high
        for first in range(0, n_samples, _BLOCK):
            self.add(np.zeros(min(_BLOCK, n_samples - first), dtype=np.float32))
        self._low, self._high = low, high

    def problem(self) -> MediaProblem | None:
        if self.n_samples == 0:
            return MediaProblem("no sound can be decoded")
        if self._n_not_finite:
            return MediaProblem(f"{self._n_not_finite} samples are NaN or infinite")
        peak = max(self._high, -self._low)
        if self.is_silent:
            if self._low == self._high:
                silence = f"all samples are {self._low + 0.0:.4g}"
            elif peak < SILENCE_PEAK:
                silence = f"peak {20 * np.log10(peak):.0f} dBFS"
            else:
                silence = f"all samples are about {(self._low + self._high) / 2:.4g}"
            return MediaProblem(f"silent: {silence}", missing=True)
        if peak > MAX_PEAK:
            return MediaProblem(
                f"the largest sample is {peak:.4g}, expected a full scale of 1 (the file may hold "
                "integers as floats): rescale the samples to [-1, 1]"
            )
        return None

    def finish(self) -> tuple[dict[int, F32], MediaProblem | None]:
        """Return the waveforms by sampling rate, float32 (samples,), or {} and the problem."""
        for rate, track in self._tracks.items():
            track.add(np.zeros(0, dtype=np.float32), last=True)
            if not track.n_samples:
                reason = f"the sound is too short: {self.n_samples} samples at {self.sr} Hz"
                return {}, MediaProblem(f"{reason} give 0 samples at {rate} Hz")
        if self._meter is not None:
            self.loudness = self._meter.integrated
        gain = loudness.gain_to(self._level, self.loudness)
        return {rate: track.joined(gain) for rate, track in self._tracks.items()}, None


def decode_audio_file(path: Path, request: ClipRequest, channel: int | None = None) -> Decoded:
    """Decode an audio file; on ValueError or LibsndfileError, try the container reader."""
    problems = {"video": NO_VIDEO} if request.pictures else {}
    if not request.sample_rates:
        with soundfile.SoundFile(path):
            return Decoded(problems=problems)
    sound: Waveforms | None = None
    problem: MediaProblem | None = None
    n_frames, stated, kind = 0, 0.0, ""
    for file in sound_files.open_parts(path):
        sr, kind = file.samplerate, file.format.lower()
        if file.channels > 2 and kind in _STATING_LAYOUT:
            raise ValueError("the container reader knows the layout of the channels")
        if file.frames == 0:
            raise ValueError("no length is stated")
        sound = sound or Waveforms(sr, request, channel)
        first = max(round(request.start * sr) - n_frames, 0)
        remaining = file.frames - first
        if request.duration is not None:
            remaining = min(remaining, round(request.duration * sr) - sound.n_samples)
        n_frames += file.frames
        stated += file.frames / sr * sound_files.stated_length_ratio(file.extra_info)
        if sr != sound.sr:
            problem = MediaProblem(f"the sampling rate changes from {sound.sr} to {sr} Hz")
        else:
            problem = _read_blocks(file, first, remaining, sound)
        if problem is not None:
            break
    assert sound is not None
    seconds = sound.n_samples / sound.sr
    if problem is None and round(request.start * sound.sr) >= n_frames:
        problem = starts_after_end(request.start, "sound ends", n_frames / sound.sr)
    elif channel is None and sound.channel is not None:
        return decode_audio_file(path, request, channel=sound.channel)
    expected = stated - request.start if request.duration is None else request.duration
    problem = problem or sound.problem() or check_length(seconds, expected)
    states_end = kind in _STATING_END and request.duration is None
    if problem is None and states_end and formats.is_cut_off(path, kind):
        problem = CUT_OFF
    waveforms: dict[int, F32] = {}
    if problem is None:
        waveforms, problem = sound.finish()
    if problem is not None:
        return Decoded(problems={**problems, "audio": problem})
    return Decoded(waveforms, {}, seconds, problems, channel_note(channel), sound.loudness)


def channel_note(channel: int | None) -> str:
    """Return a note about the channel that is read; empty for the mean of all channels."""
    return "" if channel is None else f"the channels cancel out: only channel {channel + 1} is read"


def _read_blocks(
    file: soundfile.SoundFile, first: int, remaining: int, sound: Waveforms
) -> MediaProblem | None:
    names: Sequence[str] = ["NONE"] * file.channels
    if file.format == "OGG":  # Vorbis and Opus have an order of their own
        names = loudness.VORBIS_CHANNELS.get(file.channels, names)
    size, weights = max(_BLOCK // file.channels, 1), loudness.mono_weights(names)
    file.seek(min(first, file.frames))
    while remaining > 0:
        samples = file.read(min(size, remaining), dtype="float32", always_2d=True)
        if len(samples) == 0:
            break
        if not sound.has_room(len(samples)):
            return MediaProblem(sound.too_long)
        sound.add_channels(np.ascontiguousarray(samples.T), weights)
        remaining -= len(samples)
    return None


class SoundCollector:
    """Mono waveforms of a clip (one `channel` or the mean of all), joined from decoded frames."""

    def __init__(self, request: ClipRequest, channel: int | None = None) -> None:
        self._request, self._options = request, (request, channel)
        self.sound: Waveforms | None = None  # None before the first frame
        # Layout, and samples (channels, samples), of frames that are not in `sound` yet.
        self._blocks: list[tuple[str, F32]] = []
        self._n_waiting = 0  # number of samples in `_blocks`
        self._weights: dict[str, F32] = {}  # of the channels, by layout
        self.missing_seconds: float = 0.0  # gaps after the first sound
        self.end: float = 0.0  # end of the last decoded frame in seconds, even before the clip
        self.error: str = ""  # reason why the sound cannot be used

    @property
    def seconds(self) -> float:
        """Seconds from the clip's start to the end of its last sound."""
        return self.sound.n_samples / self.sound.sr if self.sound else 0.0

    def add(self, frames: Sequence[tuple[float, Any]]) -> None:
        """Append decoded frames, given as (start time in seconds, frame) in order."""
        for when, frame in frames:
            if not self.error:
                self._add_frame(when, frame)
        self._flush()

    def _add_frame(self, when: float, frame: Any) -> None:
        if self.sound is None:
            self.sound = Waveforms(frame.sample_rate, *self._options)
        sound, sr = self.sound, self.sound.sr
        if frame.sample_rate != sr:
            self.error = f"the sampling rate changes from {sr} to {frame.sample_rate} Hz"
            return
        self.end = when + frame.samples / sr
        length = sound.n_samples + self._n_waiting
        first = round((when - self._request.start) * sr)
        if abs(first - length) <= MIN_GAP * sr and length:
            first = length
        n_left = frame.samples
        if self._request.duration is not None:
            n_left = min(n_left, round(self._request.duration * sr) - first)
        n_left -= max(length - first, 0)
        if n_left <= 0:
            return
        if not sound.has_room(self._n_waiting + max(first - length, 0) + n_left):
            at, to = length / sr, first / sr
            if first > length:
                self.error = f"the sound's time stamps jump from {at:.1f} to {to:.0f} s"
            else:
                self.error = sound.too_long
            return
        if first > length:
            self._flush()
            sound.add_silence(first - length)
            self.missing_seconds += (first - length) / sr if length else 0.0
        skip, layout = max(length - first, 0), frame.layout
        if layout.name not in self._weights:
            names = [channel.name for channel in layout.channels]
            self._weights[layout.name] = loudness.mono_weights(names)
        self._blocks.append((layout.name, _channels(frame)[:, skip : skip + n_left]))
        self._n_waiting += n_left

    def _flush(self) -> None:
        if self.sound is not None:
            for layout, blocks in groupby(self._blocks, itemgetter(0)):
                rows = np.concatenate([block for _, block in blocks], axis=1)
                self.sound.add_channels(rows, self._weights[layout])
        self._blocks, self._n_waiting = [], 0

    def problem(self) -> MediaProblem | None:
        if self.error or self.sound is None:
            return MediaProblem(self.error or "no sound can be decoded")
        return self.sound.problem()


def _channels(frame: Any) -> F32:
    """Return a frame's samples, float32 (channels, samples); full scale is 1."""
    dtype, full_scale = _SAMPLE_FORMATS[frame.format.name.removesuffix("p")]
    if frame.format.is_planar:
        # Decoders pad the end of each plane.
        rows = np.array([np.frombuffer(p, dtype, frame.samples) for p in frame.planes])
    else:
        n_channels = len(frame.layout.channels)
        rows = np.frombuffer(frame.planes[0], dtype, frame.samples * n_channels)
        rows = rows.reshape(-1, n_channels).T
    scaled = rows.astype(np.float32) * np.float32(1.0 / full_scale)
    return scaled - np.float32(1.0) if dtype == np.uint8 else scaled

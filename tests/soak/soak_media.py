"""Media of many kinds, sound and damaged: each is decoded, or a failure of its own clip."""

import random
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from media_samples import film, sine
from soak_mutations import mutate

# Container's ending, video codec, its pixels, audio codec; None for none.
_CONTAINERS = (
    ("mp4", "mpeg4", "yuv420p", "aac"), ("mov", "mpeg4", "yuv420p", "pcm_s16le"),
    ("mkv", "mpeg4", "yuv420p", "flac"), ("mkv", "mjpeg", "yuvj420p", "pcm_s16le"),
    ("mkv", "ffv1", "yuv420p", "libvorbis"), ("avi", "mpeg4", "yuv420p", "mp2"),
    ("avi", "mjpeg", "yuvj420p", "pcm_s16le"), ("mpg", "mpeg2video", "yuv420p", "mp2"),
    ("ts", "mpeg2video", "yuv420p", "mp2"), ("flv", "flv", "yuv420p", "pcm_s16le"),
    ("wmv", "wmv2", "yuv420p", "wmav2"), ("webm", "libvpx", "yuv420p", "libopus"),
    ("mp4", None, "", "aac"), ("mkv", None, "", "libopus"), ("mkv", "mpeg4", "yuv420p", None),
    ("mp4", "mpeg4", "yuv420p", None), ("ogv", "libtheora", "yuv420p", "libvorbis"),
)  # fmt: skip
_RATES = (8000, 22050, 44100)
RATE = Fraction(1, 25)  # of pictures
# Ways in which an undamaged file is damaged: functions of its content and of a random generator.
_DAMAGE = {
    "cut": lambda content, draw: content[: draw.randrange(len(content) + 1)],
    "tail": lambda content, draw: content + draw.randbytes(5000),
    "zeros": lambda content, draw: _with_zeros(content, len(content) // 4),
    "changed": lambda content, draw: mutate(content, draw) if content else content,
    "twice": lambda content, draw: content + content,
    "head_lost": lambda content, draw: content[draw.randrange(1, 200) :],
}
WORKERS = 2


def make_media(folder, seed):
    """Write files of at least 120 kinds: formats, rates, channels, and each kind of damage."""
    paths = [*_sounds(folder), *_videos(folder), *_odd(folder)]
    for number, path in enumerate([*paths]):
        draw = random.Random(f"{seed}{path.name}")
        for damage in draw.sample([*_DAMAGE], 2 if number % 2 else 1):
            changed = path.with_name(f"{path.stem}-{damage}{path.suffix}")
            changed.write_bytes(_DAMAGE[damage](path.read_bytes(), draw))
            paths.append(changed)
    return paths


def _with_zeros(content, quarter):
    """Replace the middle half of a content by zeros."""
    return content[:quarter] + bytes(2 * quarter) + content[3 * quarter :]


def _tone(n, channels):
    wave = 0.3 * np.sin(np.arange(n) / 20.0)
    return np.repeat(wave[:, None], channels, axis=1)


def _sounds(folder):
    wav = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM")
    kinds = [*(("wav", subtype) for subtype in wav), ("flac", "PCM_16")]
    kinds += [("flac", "PCM_24"), ("ogg", "VORBIS"), ("ogg", "OPUS"), ("aiff", "PCM_16")]
    kinds += [("au", "PCM_16"), ("caf", "PCM_16"), ("w64", "PCM_16"), ("mp3", "MPEG_LAYER_III")]
    for number, (ending, subtype) in enumerate(kinds):
        rate = 48000 if subtype == "OPUS" else _RATES[number % 3]
        path = folder / f"sound-{ending}-{subtype}.{ending}"
        try:
            soundfile.write(path, _tone(rate // 2, 1 + number % 2), rate, subtype=subtype)
        except (soundfile.LibsndfileError, ValueError):
            continue
        yield path
    for name, samples, rate, channels in (
        ("empty", 0, 8000, 1), ("one", 1, 8000, 1), ("eight", 4000, 8000, 8),
        ("slow", 40, 8, 1), ("fast", 9000, 384000, 2),
    ):  # fmt: skip
        path = folder / f"sound-{name}.wav"
        soundfile.write(path, _tone(samples, channels), rate)
        yield path
    for name, value in (("nan", np.nan), ("infinite", np.inf), ("loud", 1e30), ("silent", 0.0)):
        path = folder / f"sound-{name}.wav"
        soundfile.write(path, np.full(4000, value, np.float32), 8000, subtype="FLOAT")
        yield path


def _videos(folder):
    for number, (ending, video, pixels, audio) in enumerate(_CONTAINERS):
        path = folder / f"video-{number:02d}-{video}-{audio}.{ending}"
        sr = 48000 if audio == "libopus" else 44100
        options = {"sound": sine(0.5, sr), "sr": sr, "audio_codec": audio} if audio else {}
        try:
            shown = {"codec": video, "pix_fmt": pixels, "time_base": RATE}
            film(path, 6 * bool(video), **shown, **options)
        except (av.FFmpegError, ValueError, OSError):
            # FFmpeg was built without this encoder.
            path.unlink(missing_ok=True)
            continue
        yield path


def _odd(folder):
    contents = {
        "text.mp3": b"this is a text\n" * 50,
        "nothing.mp4": b"",
        "one_byte.wav": b"R",
        "zeros.mkv": bytes(5000),
        "noise.avi": random.Random(0).randbytes(9000),
        "list.m3u8": b"#EXTM3U\n#EXTINF:2,\n/etc/passwd\n",
        "concat.mp4": b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        "riff.wav": b"RIFF\xff\xff\xff\xffWAVEfmt \x10\x00\x00\x00\x01\x00\x02\x00" + bytes(30),
        "page.webm": b"<html><body>404</body></html>",
        "archive.mp3": b"PK\x03\x04" + bytes(200),
        "sdp.ts": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        "image%03d.mp4": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }
    for name, content in contents.items():
        path = folder / f"odd-{name}"
        path.write_bytes(content)
        yield path


def soak(tally, seed):
    """Decode all kinds in one run, and note who ended it."""
    from mvemo.cache import content_digest
    from mvemo.extract.media.request import FrameSampling
    from mvemo.extract.store.decoded import DecodedStore, DecodeSettings, decode_many
    from mvemo.extract.store.folders import DecodeJob, DecodeRequest

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_media(folder, seed)
        random.Random(seed).shuffle(paths)
        request = DecodeRequest(sample_rates=(16000,), pictures=(FrameSampling(4, 32),))
        store = DecodedStore(folder / "work", request)
        ended = {}
        jobs = [DecodeJob(path.name, path, content_digest(path)) for path in paths]
        start = time.monotonic()
        try:
            decode_many(
                store,
                jobs,
                DecodeSettings(workers=WORKERS),
                on_clip=lambda clip, problems: ended.update(
                    {clip: all(p.missing for p in problems.values())}
                ),
            )
        except Exception as error:
            tally.fault("media", f"the run ended: {type(error).__name__}: {error}")
        n_whole, seconds = sum(ended.values()), time.monotonic() - start
        print(f"{len(jobs)} media files: {seconds:.0f} s, {n_whole} without a failure")
        tally.add("kinds of media", len(jobs))
        for path in paths:
            if path.name not in ended:
                tally.fault("media", f"{path.name} was neither decoded nor failed")

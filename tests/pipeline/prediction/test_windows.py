"""Vectors of windows made piece by piece are those of the windows by themselves."""

import numpy as np
import pytest
import soundfile
import torch
from stage_samples import write_video

from mvemo.cache import FeatureSpec
from mvemo.extract.descriptors import DescriptorSettings, describe
from mvemo.extract.media.reading import decode_clip
from mvemo.extract.media.request import FrameSampling
from mvemo.extract.nets import build_net
from mvemo.extract.settings import ViewSettings
from mvemo.fuse.features import DEFAULT_STATISTICS, STATISTICS, sequence_statistics
from mvemo.pipeline.prediction.new_clips import NewClip
from mvemo.pipeline.prediction.windows import WindowPlan, feature_of, read_windows

SECONDS, SR = 9.0, 16000
PLAIN = ViewSettings()
SETTINGS = DescriptorSettings(level=0.0, sr=SR, n_fft=1024, hop_length=512)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Nine seconds at 10 frames a second, each of its own grey; noise that grows louder."""
    path = tmp_path_factory.mktemp("streams") / "clip.mkv"
    rng = np.random.default_rng(0)
    y = rng.uniform(-1, 1, round(SECONDS * SR)) * np.linspace(0.1, 0.9, round(SECONDS * SR))
    greys = [np.full((48, 64, 3), 2 * i + 20, np.uint8) for i in range(round(SECONDS * 10))]
    write_video(path, greys, 10, y, SR)
    return path


def spec_of(net, view=PLAIN):
    """The feature of a net; without a net, two descriptors."""
    if net is None:
        names = ["mfcc", "chroma"]
        params = {"order": names, "statistics": [STATISTICS[n] for n in DEFAULT_STATISTICS]}
        return FeatureSpec("lld", "audio", "vector", 64, "statistics of descriptors", 1, params)
    params = {"width": 1.0, "options": {}, "precision": "float32", "view": view.record()}
    return FeatureSpec("x", net.modality, "vector", 1, f"net:{net.name}", 1, params)


def vectors_of(path, plan, net, view=PLAIN, modalities=("audio", "video")):
    """The vectors of all windows, and a sketch."""
    features = {("x", None): feature_of(spec_of(net, view), net, plan)}
    clip = NewClip("x", path)
    with read_windows(clip, plan, features, SETTINGS, modalities, lambda share: None) as read:
        found = [read.vectors(window).get(("x", None)) for window in plan.windows]
        return found, read.sketch(keep_sound=False)


def frames_of(path, sampling, start=0.0, duration=None):
    decoded = decode_clip(
        path, start=start, duration=duration, sample_rates=(), pictures=(sampling,)
    )
    return decoded.frames[sampling]


def sound_of(path, start=0.0, duration=None):
    decoded = decode_clip(path, start=start, duration=duration, sample_rates=(SR,), pictures=())
    return decoded.waveforms[SR]


def embed(net, raw):
    with torch.inference_mode():
        return net.embed(net.prepare(torch.from_numpy(raw[None])))[0].numpy()


@pytest.mark.parametrize("outputs", ["units", "deviation,tags,front"])
def test_patches_of_sound_are_shared(video, outputs):
    net = build_net("musicnn", 6, width=0.05, outputs=outputs, seconds=SECONDS).eval()
    # Windows of whole patches: both have the second one.
    patch = net.piece_input().step
    plan = WindowPlan(SECONDS, ((0.0, 2 * patch), (patch, 3 * patch)))
    made, _ = vectors_of(video, plan, net)
    # By itself a window's first frame begins with silence in place of the sound before it.
    expected = embed(net, sound_of(video, 0.0, 2 * patch))
    np.testing.assert_allclose(made[0], expected, atol=2e-3 * np.abs(expected).max())
    with torch.inference_mode():
        whole = net.prepare(torch.from_numpy(sound_of(video)[None]))
        expected = net.embed(whole[:, 1:3])[0].numpy()
    np.testing.assert_allclose(made[1], expected, rtol=1e-4, atol=1e-5)


def test_frames_are_those_of_the_window(video):
    net = build_net("effnet", 6, width=0.05, size=32, n_frames=4).eval()
    plan = WindowPlan(SECONDS, ((0.0, 4.0), (2.0, 6.0), (5.0, 9.0)))
    made, _ = vectors_of(video, plan, net)
    expected = embed(net, frames_of(video, FrameSampling(9, 32))[2:6])
    np.testing.assert_allclose(made[1], expected, rtol=1e-4, atol=1e-5)


def test_views_of_a_rate_are_the_frames_around_their_middle(video):
    net = build_net("c3d", 6, width=0.05, size=32, n_frames=4, scale="unit").eval()
    view = ViewSettings(views=3, rate=2.0, pooling="mean+std")
    plan = WindowPlan(SECONDS, ((0.0, SECONDS),), view_step=3.0)
    # Views of two seconds around 1.5, 4.5 and 7.5 s.
    ((vector,), _) = vectors_of(video, plan, net, view)
    sampling = FrameSampling(4, 32)
    views = [embed(net, frames_of(video, sampling, start, 2.0)) for start in (0.5, 3.5, 6.5)]
    expected = np.concatenate([np.mean(views, axis=0), np.std(views, axis=0)])
    np.testing.assert_allclose(vector, expected, rtol=1e-3, atol=1e-5)


def test_statistics_of_descriptors_are_those_of_the_frames_inside(video):
    plan = WindowPlan(SECONDS, ((0.0, 4.0), (3.0, 7.0), (5.0, SECONDS)))
    made, sketch = vectors_of(video, plan, None)
    values = describe(sound_of(video), SETTINGS, ["mfcc", "chroma", "times"])
    for vector, (start, stop) in zip(made, plan.windows, strict=True):
        inside = (values["times"][:, 0] >= start) & (values["times"][:, 0] < stop)
        parts = [sequence_statistics(values[name][inside]) for name in ("mfcc", "chroma")]
        np.testing.assert_allclose(vector, np.concatenate(parts), rtol=1e-4, atol=1e-4)
    assert len(sketch.peaks) == 90
    assert sketch.loudness(8.0, 9.0) > sketch.loudness(0.0, 1.0) + 10


def test_nets_that_read_a_clip_as_a_whole_read_each_window(video):
    sound = build_net("music1d", 6, width=0.1, seconds=3.0).eval()
    pictures = build_net("c3d", 6, width=0.05, size=32, n_frames=4, scale="unit").eval()
    plan = WindowPlan(SECONDS, ((0.0, 3.0), (2.0, 5.0)))
    frames = frames_of(video, FrameSampling(4, 32), 2.0, 3.0)
    for net, raw in ((sound, sound_of(video, 2.0, 3.0)), (pictures, frames)):
        made, _ = vectors_of(video, plan, net)
        np.testing.assert_allclose(made[1], embed(net, raw), rtol=1e-3, atol=1e-4)


def test_a_short_clip_is_one_piece(tmp_path):
    soundfile.write(tmp_path / "short.wav", 0.1 * np.sin(np.arange(4000)), SR)
    net = build_net("musicnn", 6, width=0.05, seconds=3.0).eval()
    plan = WindowPlan(0.25, ((0.0, 0.25),))
    ((vector,), _) = vectors_of(tmp_path / "short.wav", plan, net)
    raw = np.full(48000, np.nan, np.float32)
    raw[:4000] = sound_of(tmp_path / "short.wav")
    np.testing.assert_allclose(vector, embed(net, raw), rtol=1e-3, atol=1e-4)


def test_pieces_may_overlap_around_the_middles_of_short_windows(video):
    net = build_net("musicnn", 6, width=0.05, seconds=SECONDS).eval()
    patch = net.piece_input().raw.samples
    windows = tuple((i / 2, (i + 1) / 2) for i in range(18))
    made, _ = vectors_of(video, WindowPlan(SECONDS, windows, piece_step=0.5), net)
    y = np.pad(sound_of(video), patch)
    for i in (0, 7, 17):
        # The patch around the middle of the window; silence before the start and after the end.
        start = patch + i * SR // 2 - (patch - SR // 2) // 2
        with torch.inference_mode():
            piece = torch.from_numpy(y[start : start + patch][None])
            expected = net.pool_pieces(net.embed_pieces(piece)).numpy()
        np.testing.assert_allclose(made[i], expected, rtol=1e-3, atol=1e-4)
    frames = build_net("effnet", 6, width=0.05, size=32, n_frames=4).eval()
    made, _ = vectors_of(video, WindowPlan(SECONDS, windows, piece_step=0.5), frames)
    with torch.inference_mode():
        raw = torch.from_numpy(frames_of(video, FrameSampling(18, 32))[:, None])
        expected = frames.embed_pieces(raw)
    for vector, row in zip(made, expected, strict=True):
        np.testing.assert_allclose(vector, frames.pool_pieces(row[None]), rtol=1e-3, atol=1e-4)

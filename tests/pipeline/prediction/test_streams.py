"""Vectors of windows made piece by piece are those of the windows by themselves."""

from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from stage_samples import write_video

from mvemo.extract.descriptors import DescriptorSettings, describe
from mvemo.extract.errors import BadMedia
from mvemo.extract.media.reading import decode_clip
from mvemo.extract.media.request import FrameSampling
from mvemo.extract.nets import build_net
from mvemo.extract.settings import ViewSettings
from mvemo.fuse.features import sequence_statistics
from mvemo.pipeline.prediction.new_clips import NewClip
from mvemo.pipeline.prediction.passes import ClipPass
from mvemo.pipeline.prediction.streams import Descriptors, StreamPlan, embed_array, net_stream

SECONDS, SR = 9.0, 16000
SETTINGS = DescriptorSettings(sr=SR, n_fft=1024, hop_length=512)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Nine seconds at 10 frames a second, each of its own grey; noise that grows louder."""
    path = tmp_path_factory.mktemp("streams") / "clip.mkv"
    rng = np.random.default_rng(0)
    y = rng.uniform(-1, 1, round(SECONDS * SR)) * np.linspace(0.1, 0.9, round(SECONDS * SR))
    greys = [np.full((48, 64, 3), 2 * i + 20, np.uint8) for i in range(round(SECONDS * 10))]
    write_video(path, greys, 10, y, SR)
    return path


def vectors_of(path, plan, stream, modalities=("audio", "video")):
    clip_pass = ClipPass(NewClip("x", path), plan, {("x", None): stream}, modalities)
    return [vectors.get(("x", None)) for _, vectors in clip_pass.windows()], clip_pass


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
    plan = StreamPlan(SECONDS, ((0.0, 2 * patch), (patch, 3 * patch)))
    stream = net_stream(net, ViewSettings(), plan, SETTINGS)
    made, _ = vectors_of(video, plan, stream)
    # By itself a window's first frame begins with silence in place of the sound before it.
    expected = embed(net, sound_of(video, 0.0, 2 * patch))
    np.testing.assert_allclose(made[0], expected, atol=2e-3 * np.abs(expected).max())
    with torch.inference_mode():
        whole = net.prepare(torch.from_numpy(sound_of(video)[None]))
        expected = net.embed(whole[:, 1:3])[0].numpy()
    np.testing.assert_allclose(made[1], expected, rtol=1e-4, atol=1e-5)


def test_frames_are_those_of_the_window(video):
    net = build_net("effnet", 6, width=0.05, size=32, n_frames=4).eval()
    plan = StreamPlan(SECONDS, ((0.0, 4.0), (2.0, 6.0), (5.0, 9.0)))
    made, _ = vectors_of(video, plan, net_stream(net, ViewSettings(), plan, SETTINGS))
    expected = embed(net, frames_of(video, FrameSampling(9, 32))[2:6])
    np.testing.assert_allclose(made[1], expected, rtol=1e-4, atol=1e-5)


def test_views_of_a_rate_are_the_frames_around_their_middle(video):
    net = build_net("c3d", 6, width=0.05, size=32, n_frames=4, scale="unit").eval()
    view = ViewSettings(views=3, rate=2.0, pooling="mean+std")
    plan = StreamPlan(SECONDS, ((0.0, SECONDS),), view_step=3.0)
    stream = net_stream(net, view, plan, SETTINGS)
    # Views of two seconds around 1.5, 4.5 and 7.5 s.
    np.testing.assert_allclose(stream.times[:4], [0.75, 1.25, 1.75, 2.25])
    assert len(stream.times) == 12
    ((vector,), _) = vectors_of(video, plan, stream)
    sampling = FrameSampling(4, 32)
    views = [embed(net, frames_of(video, sampling, start, 2.0)) for start in (0.5, 3.5, 6.5)]
    expected = np.concatenate([np.mean(views, axis=0), np.std(views, axis=0)])
    np.testing.assert_allclose(vector, expected, rtol=1e-3, atol=1e-5)


def test_statistics_of_descriptors_are_those_of_the_frames_inside(video):
    plan = StreamPlan(SECONDS, ((0.0, 4.0), (3.0, 7.0), (5.0, SECONDS)))
    made, clip_pass = vectors_of(video, plan, Descriptors(["mfcc", "chroma"], SETTINGS))
    values = describe(sound_of(video), SETTINGS, ["mfcc", "chroma", "times"])
    for vector, (start, stop) in zip(made, plan.windows, strict=True):
        inside = (values["times"][:, 0] >= start) & (values["times"][:, 0] < stop)
        parts = [sequence_statistics(values[name][inside]) for name in ("mfcc", "chroma")]
        np.testing.assert_allclose(vector, np.concatenate(parts), rtol=1e-4, atol=1e-4)
    assert len(clip_pass.sketch.peaks) == 90
    assert clip_pass.sketch.loudness(8.0, 9.0) > clip_pass.sketch.loudness(0.0, 1.0) + 10


def test_nets_that_read_a_clip_as_a_whole_read_each_window(video):
    sound = build_net("music1d", 6, width=0.1, seconds=3.0).eval()
    pictures = build_net("c3d", 6, width=0.05, size=32, n_frames=4, scale="unit").eval()
    plan = StreamPlan(SECONDS, ((0.0, 3.0), (2.0, 5.0)))
    frames = frames_of(video, FrameSampling(4, 32), 2.0, 3.0)
    for net, raw in ((sound, sound_of(video, 2.0, 3.0)), (pictures, frames)):
        made, _ = vectors_of(video, plan, net_stream(net, ViewSettings(), plan, SETTINGS))
        np.testing.assert_allclose(made[1], embed(net, raw), rtol=1e-3, atol=1e-4)


def test_what_is_passed_is_forgotten(tmp_path):
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "long.wav", rng.uniform(-0.5, 0.5, 60 * 8000), 8000)
    windows = tuple((float(t), t + 4.0) for t in range(0, 56, 2))
    plan = StreamPlan(60.0, windows)
    stream = Descriptors(["mfcc"], DescriptorSettings(sr=8000, n_fft=1024, hop_length=512))
    clip_pass = ClipPass(NewClip("x", tmp_path / "long.wav"), plan, {("lld", None): stream})
    kept = []
    for _, vectors in clip_pass.windows():
        assert ("lld", None) in vectors
        kept.append(len(stream._values))
    # Four seconds of frames, and what is described ahead of them.
    assert max(kept) < 2 * 8 * 8000 / 512
    assert "video" in clip_pass.problems


def test_a_short_clip_is_one_piece_and_text_is_refused(tmp_path):
    soundfile.write(tmp_path / "short.wav", 0.1 * np.sin(np.arange(4000)), SR)
    net = build_net("musicnn", 6, width=0.05, seconds=3.0).eval()
    plan = StreamPlan(0.25, ((0.0, 0.25),))
    stream = net_stream(net, ViewSettings(), plan, SETTINGS)
    ((vector,), _) = vectors_of(tmp_path / "short.wav", plan, stream)
    raw = np.full(48000, np.nan, np.float32)
    raw[:4000] = sound_of(tmp_path / "short.wav")
    np.testing.assert_allclose(vector, embed(net, raw), rtol=1e-3, atol=1e-4)
    (tmp_path / "text.mp3").write_text("no sound")
    with pytest.raises(BadMedia, match="cannot be read as media"):
        vectors_of(tmp_path / "text.mp3", plan, stream)


def test_input_goes_to_the_device_of_the_net(monkeypatch):
    places: list[str] = []

    def to(x, device):
        places.append(str(device))
        return x

    monkeypatch.setattr(torch.Tensor, "to", to)
    net = SimpleNamespace(
        classifier=SimpleNamespace(weight=SimpleNamespace(device="cuda:0")),
        prepare=lambda x: x,
        embed=lambda x: x + 1,
    )
    assert embed_array(net, np.zeros((1, 2), dtype=np.float32)).tolist() == [[1.0, 1.0]]
    assert places == ["cuda:0"]

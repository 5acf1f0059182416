"""Training and embedding on a GPU beside the same on the processor; skipped where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_net import Plain, Toy, embedded, problem, same, tuned

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.nets import NETS, build_net
from mvemo.extract.nets.parts.sequences import empty_input
from mvemo.extract.settings import TrainSettings
from mvemo.extract.training import devices, embedding, steps
from mvemo.extract.training.data import RawBatches, batches_for
from mvemo.extract.training.trainer import Trainer
from mvemo.manifests.errors import MvemoError
from mvemo.pipeline.settings_files import load_settings

pytestmark = pytest.mark.gpu
SGD = TrainSettings(optimizer="sgd", lr=0.1, epochs=3, patience=0, batch_size=12)
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
DEMO = load_settings("demo").nets
N_CLIPS = 6


@pytest.fixture(autouse=True)
def float32_is_float32():
    """Without TF32, whose ten bits would hide an error of a percent."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def little_memory():
    """Let this process allocate only so many bytes more than it has."""

    def limit(n_bytes):
        torch.cuda.empty_cache()
        whole = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(
            (torch.cuda.memory_allocated() + n_bytes) / whole
        )

    yield limit
    torch.cuda.set_per_process_memory_fraction(1.0)


def demo_net(name):
    torch.manual_seed(0)
    return build_net(name, 6, width=DEMO[name].width, **DEMO[name].options)


def clips_of(net):
    """Random clips: pixels, or sounds and descriptors of unit variance."""
    rng = np.random.default_rng(0)
    empty = empty_input(net.input, "cpu", DescriptorSettings())
    shape = (N_CLIPS, *empty.shape[1:])
    if empty.dtype == torch.uint8:
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return rng.normal(size=shape).astype(np.float32)


def embed(net, device, precision="float32"):
    net, clips = net.to(device), clips_of(net)
    reader = RawBatches(lambda row: clips[row], net.input)
    batches = embedding.embed_rows(
        net, reader, range(N_CLIPS), batch_size=4, device=device, precision=precision
    )
    return np.concatenate([values for _, values in batches])


@pytest.mark.parametrize("name", [name for name in DEMO if name in NETS and DEMO[name].width < 1])
def test_embeddings_are_those_of_the_processor(name):
    expected = embed(demo_net(name), CPU)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(embed(demo_net(name), CUDA), expected, atol=1e-4 * scale)
    np.testing.assert_allclose(embed(demo_net(name), CUDA, "bf16"), expected, atol=5e-2 * scale)


@pytest.mark.parametrize("name", ["music1d", "music2d", "c3d", "i3d", "crnn"])
def test_steps_are_those_of_the_processor(name):
    # In float64, as rounding grows from step to step with few clips to normalise by.
    sides = []
    for device in (CPU, CUDA):
        net = demo_net(name).double()
        for module in net.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        net.prepare = lambda raw, prepare=net.prepare: prepare(raw.float()).double()
        net, clips = devices.place(net, device), clips_of(net)
        rows, labels = list(range(N_CLIPS)), np.arange(N_CLIPS) % 6
        settings = replace(SGD, lr=0.01, epochs=1, batch_size=N_CLIPS)
        job = steps.TrainingJob(name, labels, "multiclass", rows, (), settings, seed=0)
        reader = RawBatches(lambda row, clips=clips: clips[row], net.input)
        trainer = Trainer(net, batches_for(reader, rows, device), job)
        losses = trainer.train_batches([rows] * 2, 0)
        sides.append((losses, {k: v.cpu() for k, v in net.state_dict().items()}))
    (expected, here), (losses, there) = sides
    # Sounds and spectra are prepared in float32.
    tolerance = 1e-9 if name in ("c3d", "i3d") else 1e-4
    assert losses == pytest.approx(expected, rel=tolerance)
    for key, value in here.items():
        if value.is_floating_point():
            scale = float(value.abs().max())
            torch.testing.assert_close(
                there[key], value, rtol=0, atol=max(tolerance * scale, 1e-12)
            )


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(tmp_path, optimizer, monkeypatch):
    monkeypatch.setattr("mvemo.extract.training.trainer.STATE_INTERVAL", -1.0)
    settings = replace(SGD, optimizer=optimizer, lr=0.01)

    def stop(label, epoch, epochs, loss):
        if epoch == 2:
            raise KeyboardInterrupt

    def net():
        torch.manual_seed(0)
        return Toy(3).cuda()

    steps.set_determinism(True)
    try:
        whole, _ = tuned(tmp_path, "whole", settings, net=net())
        with pytest.raises(KeyboardInterrupt):
            tuned(tmp_path, "cut", settings, net=net(), on_epoch=stop)
        resumed, _ = tuned(tmp_path, "cut", settings, net=net())
    finally:
        steps.set_determinism(False)
    assert same(whole, resumed)


def test_a_compiled_step_is_an_eager_one():
    losses = []
    for compiled in (False, True):
        net = Plain().cuda()
        waves, labels = problem()
        reader = RawBatches(lambda row, waves=waves: waves[row], net.input)
        rows = list(range(24))
        job = steps.TrainingJob(
            "toy", labels, "multiclass", rows, (), SGD, seed=0, compiled=compiled
        )
        losses.append(Trainer(net, batches_for(reader, rows, CUDA), job).train_batches([rows], 0))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def large_net():
    """A net of music1d's kind whose batch takes much more than its weights."""
    torch.manual_seed(0)
    return build_net("music1d", 3, width=0.25, seconds=8.0).cuda()


def test_a_batch_that_does_not_fit_is_halved_and_training_goes_on(tmp_path, little_memory):
    clips = np.random.default_rng(0).normal(size=(12, large_net().input.samples))
    data = clips.astype(np.float32), np.arange(12) % 3
    settings = replace(SGD, lr=0.001, epochs=2)
    torch.cuda.reset_peak_memory_stats()
    _, whole = tuned(tmp_path, "whole", settings, n=12, net=large_net(), data=data)
    needed = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    little_memory(int(0.7 * needed))
    with pytest.warns(UserWarning, match=r"does not fit into the device's memory"):
        _, parts = tuned(tmp_path, "parts", settings, n=12, net=large_net(), data=data)
    assert parts["train_loss"] == pytest.approx(whole["train_loss"], rel=0.05)
    little_memory(0)
    with (
        pytest.warns(UserWarning, match="does not fit"),
        pytest.raises((MvemoError, torch.OutOfMemoryError)),
    ):
        tuned(tmp_path, "none", settings, n=12, net=large_net(), data=data)


def test_windows_that_do_not_fit_are_embedded_in_smaller_batches(little_memory):
    net = large_net().eval()
    clips = np.random.default_rng(0).normal(size=(32, net.input.samples)).astype(np.float32)
    reader = RawBatches(lambda row: clips[row], net.input)
    options = {"batch_size": 32, "device": CUDA}
    torch.cuda.reset_peak_memory_stats()
    (_, expected), *_ = embedding.embed_rows(net, reader, range(32), **options)
    needed = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
    little_memory(int(0.6 * needed))
    found = [values for _, values in embedding.embed_rows(net, reader, range(32), **options)]
    np.testing.assert_allclose(np.concatenate(found), expected, rtol=1e-3, atol=1e-4)


def test_independent_embeddings_do_not_depend_on_other_rows():
    net = demo_net("music1d").cuda()
    clips = clips_of(net)
    reader = RawBatches(lambda row: clips[row], net.input)
    every, few = (embedded(net, reader, rows, device=CUDA) for rows in (range(N_CLIPS), [1, 4]))
    assert {row: np.array_equal(few[row], every[row]) for row in few} == {1: True, 4: True}


def test_a_gpu_learns_what_the_processor_learns(tmp_path):
    here, _ = tuned(tmp_path, "cpu", SGD, net=Plain())
    there, _ = tuned(tmp_path, "gpu", SGD, net=Plain().cuda())
    for name, value in here.state_dict().items():
        np.testing.assert_allclose(there.state_dict()[name].cpu(), value, atol=1e-4)

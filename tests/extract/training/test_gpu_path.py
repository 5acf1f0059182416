"""What a GPU is given to do, followed on torch's device ``meta``, which computes nothing.

Shapes, types and devices go through all operations of real trainings; no GPU is needed. What
would have the processor wait for a GPU in the middle of an epoch is an error there (a value
that is fetched), or is noted (a copy to the device that is not told to go on).
"""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mvemo.extract.nets import build_net
from mvemo.extract.nets.parts.cards import VideoInput
from mvemo.extract.settings import RecipeSettings
from mvemo.extract.training import data, devices, steps
from mvemo.extract.training.trainer import Trainer
from mvemo.pipeline.settings_files import load_settings

META = torch.device("meta")
N_CLIPS = 8


class Watch(TorchDispatchMode):
    """Notes copies to the device that the processor waits for."""

    def __init__(self):
        super().__init__()
        self.copies = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            source = args[0] if func is torch.ops.aten._to_copy.default else args[1]
            waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            if waits and source.device != result.device:
                self.copies.append(f"{source.device} to {result.device}, {tuple(source.shape)}")
        return result


def move(net):
    """To the device: what is there in place of each parameter has its layout."""
    for module in net.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            moved = torch.empty_like(parameter, device=META)
            setattr(module, name, nn.Parameter(moved, requires_grad=parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty_like(buffer, device=META))


def trainer_of(net, plan):
    move(net)
    taken, clip = net.input, np.zeros(0, np.float32)
    if isinstance(taken, VideoInput):
        clip = np.zeros((taken.n_frames, taken.size, taken.size, 3), np.uint8)
    batches = data.ResidentBatches(data.RawBatches(lambda row: clip, taken), range(N_CLIPS), META)
    settings = replace(plan.train, epochs=1, iterations=0, patience=0, batch_size=N_CLIPS)
    labels = np.arange(N_CLIPS) % 6
    job = steps.TrainingJob(
        plan.name, labels, "multiclass", range(N_CLIPS), (), settings, 0, "bf16"
    )
    return Trainer(net, batches, job)


@pytest.mark.parametrize("name", ["music1d", "music2d", "c3d", "i3d"])
@pytest.mark.parametrize("recipe", [RecipeSettings(), "best"])
def test_training_on_a_gpu_waits_for_it_once_an_epoch(name, recipe, monkeypatch):
    plan = load_settings("paper").nets[name]
    if recipe == "best":
        recipe = replace(load_settings("best").nets["i3d"].train.recipe, mixup=0.2)
    plan = replace(plan, train=replace(plan.train, patience=0, recipe=recipe))
    # The one look at the losses, when the epoch is over; and there is no mixed precision on it.
    monkeypatch.setattr("mvemo.extract.training.steps.to_floats", lambda losses: losses)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    net = devices.place(build_net(name, 6, width=0.1, **plan.options), torch.device("cpu"))
    trainer = trainer_of(net, plan)
    groups = [list(range(N_CLIPS))] * 3
    with Watch() as watch:
        losses = trainer.train_batches(groups, 0)
    assert [loss.device.type for loss in losses] == ["meta"] * 3
    # Where the media and the targets of all batches lie.
    assert watch.copies == [f"cpu to meta, ({3 * N_CLIPS},)"] * 2

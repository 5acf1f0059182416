"""A net for pictures: mean colour of each frame, and a layer on top."""

from dataclasses import dataclass

import torch
from torch import nn

from mvemo.extract import BuiltNet, NetCard, NetOptions, TrainSettings, VideoInput, profile
from mvemo.manifests import setting


@dataclass(frozen=True)
class ColoursOptions(NetOptions):
    """Options of `Colours`, which users set as ``nets.colours.options.size=8``."""

    n_frames: int = setting(32, "Number of frames of the input.", ge=1)
    size: int = setting(16, "Height and width of the input in pixels.", ge=2)


@NetCard("colours", ColoursOptions, {"paper": profile(TrainSettings(lr=1e-2, epochs=2))})
class Colours(BuiltNet):
    """Layer over the mean colours of the frames; the embedding is its output."""

    modality = "video"

    @classmethod
    def input_of(cls, options):
        return VideoInput(options.n_frames, options.size)

    @classmethod
    def shared_options(cls, shared):
        return {"n_frames": shared.n_frames}

    def build(self, width):
        dim = max(2, round(8 * width))
        self.hidden = nn.Linear(3 * self.options.n_frames, dim)
        return dim

    def prepare(self, raw):
        # uint8 (batch, frames, height, width, 3) -> float32 (batch, 3 frames)
        return raw.float().mean(dim=(2, 3)).flatten(1) / 255.0

    def embed(self, x):
        return torch.tanh(self.hidden(x))

    def preparation(self):
        return {"colour": "RGB", "range": [0, 1]}

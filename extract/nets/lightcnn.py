"""Lightweight CNN on the mel spectrogram (J22 3.4, Table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from mvemo.extract.nets.parts.mel_cnn import MelCNN
from mvemo.extract.settings import NetSettings, TrainSettings


class LightCNN(MelCNN):
    """Classical CNN with depthwise separable convolutions.

    J22 asks for a net that overfits less on few clips, without describing it. Here each
    convolution except the first is a 3 x 3 convolution of each channel separately, followed
    by a 1 x 1 convolution over channels (Howard et al. 2017). The mean of the last map is the
    embedding, without a fully connected layer. The net has about a tenth of the parameters.
    """

    name: ClassVar[str] = "lightcnn"
    profiles: ClassVar[Mapping[str, NetSettings]] = {
        # J22: segments of 10 s; the paper gives neither optimizer nor learning rate.
        "paper": NetSettings("lightcnn", options={"n_frames": 430}),
        "demo": NetSettings(
            "lightcnn",
            width=0.5,
            options={"n_frames": 172},
            train=TrainSettings(lr=3e-3, epochs=20, patience=6),
        ),
    }

    def make_convolution(self, layer: int, inputs: int, outputs: int) -> nn.Module:
        if layer == 0:
            # A single input channel cannot be separated.
            return super().make_convolution(layer, inputs, outputs)
        return nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
        )

    def make_hidden(self, channels: int) -> nn.Module:
        return nn.Identity()

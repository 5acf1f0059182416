"""Classical CNN on the mel spectrogram (J22 Tables 2-4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mvemo.extract.nets.parts.mel_cnn import MelCNN
from mvemo.extract.settings import NetSettings, TrainSettings


class CNN(MelCNN):
    """J22's classical CNN: 3 x 3 convolutions over all channels and a fully connected layer."""

    name: ClassVar[str] = "cnn"
    profiles: ClassVar[Mapping[str, NetSettings]] = {
        # J22: segments of 10 s; the paper gives neither optimizer nor learning rate.
        "paper": NetSettings("cnn", options={"n_frames": 430}),
        "demo": NetSettings(
            "cnn",
            width=0.25,
            options={"n_frames": 172},
            train=TrainSettings(lr=3e-3, epochs=20, patience=6),
        ),
    }

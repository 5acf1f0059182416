"""CNN on the spectrogram with one output per emotion tag (L17)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from mvemo.extract.nets.parts.mel_cnn import MelCNN
from mvemo.extract.nets.parts.registry import check_options
from mvemo.extract.nets.parts.sequences import band_edges, band_means
from mvemo.extract.settings import NetSettings, TrainSettings


@dataclass(frozen=True)
class SpecCNNOptions:
    """Options of `SpecCNN`.

    Parameters
    ----------
    n_frames
        Number of frames of the input; 1,378 frames are 16 s, the longest segments of CAL500exp,
        at 44.1 kHz and a hop of 512.
    spectrogram_dim
        Number of bins of the spectrogram.
    bands
        Number of bands to which the bins are averaged; a value of at least `spectrogram_dim`
        keeps all bins.
    dropout
        Probability of dropout before the last layer during training.
    """

    n_frames: int = 1378
    spectrogram_dim: int = 513
    bands: int = 128
    dropout: float = 0.3

    def __post_init__(self) -> None:
        check_options(self, "speccnn: ", "n_frames", "spectrogram_dim", "bands")


class SpecCNN(MelCNN):
    """Square convolutions over time and frequency of the spectrogram; one sigmoid per tag.

    L17 (Liu et al. 2017) trains a CNN on music spectrograms, "that contain both the original
    time and frequency domain information", with no other features, for the emotion tags of
    CAL500 and CAL500exp. Only the abstract is available, so the number and the size of the
    layers are those of the classical CNN here. The spectrogram has frames of 23 ms (J22 2.3.1
    names 10 to 30 ms) and is averaged to bands that are one bin wide at low frequencies.

    The outputs are logits; for tags, binary cross-entropy trains a sigmoid on each.
    """

    name: ClassVar[str] = "speccnn"
    descriptor = "spectrogram"
    columns_option = "spectrogram_dim"
    Options = SpecCNNOptions
    profiles: ClassVar[Mapping[str, NetSettings]] = {
        # The abstract of L17 gives neither optimizer nor learning rate.
        "paper": NetSettings("speccnn", options={"n_frames": 1378}),
        "demo": NetSettings(
            "speccnn",
            width=0.25,
            options={"n_frames": 344, "bands": 64},
            train=TrainSettings(lr=3e-3, epochs=20, patience=6),
        ),
    }

    options: SpecCNNOptions  # see `SpecCNNOptions`

    def __init__(
        self, n_outputs: int, *, width: float = 1.0, options: SpecCNNOptions | None = None
    ) -> None:
        super().__init__(n_outputs, width=width, options=options or SpecCNNOptions())
        edges = band_edges(self.options.spectrogram_dim, self.options.bands)
        self._widths = np.diff(edges).tolist()

    @property
    def n_bands(self) -> int:
        return min(self.options.spectrogram_dim, self.options.bands)

    def prepare(self, raw: Tensor) -> Tensor:
        """Average bins to bands.

        float32 (batch, n_frames, spectrogram_dim), in decibels -> (batch, n_frames, bands).
        Frames after the end of a clip stay NaN.
        """
        return band_means(super().prepare(raw), self._widths)

    def preprocessing(self) -> dict[str, Any]:
        bands = "means of bins, widths growing geometrically from one bin"
        return {**super().preprocessing(), "bands": bands}

"""musicnn, a musically motivated tagger (Pons & Serra 2019; Pons et al. 2018)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvemo.extract.descriptors.spectral import MelSettings, mel_filter_bank
from mvemo.extract.nets.parts import base, cards, fast_conv, layers, threads
from mvemo.extract.nets.parts.cards import NetCard, NetOptions, dropout, profile, scaled
from mvemo.manifests.declared import setting
from mvemo.manifests.errors import BadOption

MEL = MelSettings(sr=16000, n_fft=512, hop_length=256, n_mels=96)
# Length of a patch in frames, 3 s.
PATCH = 187
# Factor of the power before the logarithm.
COMPRESSION = 10_000.0
# Default of tf.layers, used by the published graph.
EPSILON = 1e-3
# Sizes of the timbral kernels as (frames, bands), and of the temporal kernels in frames.
TIMBRAL = ((7, 38), (7, 67))
TEMPORAL = (128, 64, 32)
CONTEXT = 7
UNITS = 200
# Names of the parts that an embedding may have.
OUTPUTS = ("units", "deviation", "front", "tags")
# Number of patches that a thread of a CPU embeds in one step.
PATCHES_AT_ONCE = 2
# Number of outputs of the published weights: the most frequent tags of Last.fm.
N_TAGS = 50
# Tensors of a batch normalisation, with their published names.
_NORM_PARTS = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


@dataclass(frozen=True)
class MusicnnOptions(NetOptions):
    seconds: float = setting(
        60.0,
        "Maximum length of the input in seconds; a shorter clip is not padded to it.",
        ge=MEL.n_fft / MEL.sr,
    )
    outputs: str = setting(
        "units",
        "Parts of the embedding, separated by commas. `units`: mean of the 200 units before the "
        "tags. `deviation`: their standard deviation over patches. `front`: mean of their 1,506 "
        "inputs. `tags`: mean probabilities of the 50 tags.",
    )
    dropout: float = dropout(0.5, "before the 200 units and before the classifier")
    norm_momentum: float = cards.norm_momentum()

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.output_names
        if not names or len(set(names)) < len(names) or not set(names) <= set(OUTPUTS):
            raise BadOption(
                f"outputs is {self.outputs!r}: expected some of {', '.join(OUTPUTS)}, separated "
                "by commas and without duplicates"
            )

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.outputs.split(",") if part.strip())


@NetCard(
    "musicnn",
    MusicnnOptions,
    {
        # No paper trains this net on emotions; its authors' learning rate is taken.
        "paper": profile(),
        "demo": profile(cards.DEMO_TRAINING, width=0.25, seconds=4.0, norm_momentum=0.1),
    },
    windows_at_once=1,
    known_files={
        # The file that 'mvemo weights get' writes.
        "7c523bf9e8ccb697275e698af0214b5a082c865ecfafea55d90e0301e2c5b54f": (
            "musicnn, trained on the Million Song Dataset (musicnn 0.1.0)"
        ),
    },
    published=(
        "MSD_musicnn of the package musicnn 0.1.0, converted by 'mvemo weights get musicnn'",
    ),
    package=cards.PretrainedPackage(
        project="musicnn",
        version="0.1.0",
        filename="musicnn-0.1.0-py3-none-any.whl",
        size=29_292_476,
        sha256="f38a4890c648c1ddbb141c5d96d2b0a8cfcd36746002d896989f7b88beb65cfa",
        layout="tensorflow",
        members=(
            "musicnn/MSD_musicnn/.index",
            "musicnn/MSD_musicnn/.data-00000-of-00001",
        ),
        licence="ISC",
        licence_member="musicnn-0.1.0.dist-info/LICENSE.md",
        citation=(
            "J. Pons and X. Serra (2019): musicnn: pre-trained convolutional neural networks "
            "for music audio tagging. Late-breaking/demo session, ISMIR. Trained on the Million "
            "Song Dataset with 50 Last.fm tags."
        ),
    ),
)
class Musicnn(base.WaveformNet):
    """musicnn: timbral and temporal kernels, then dense layers (Pons & Serra 2019, Fig. 1).

    A clip is cut into patches of 3 s. An incomplete last patch is left out, as in the published
    code; a clip shorter than one patch is padded with silence.
    """

    options: MusicnnOptions
    window: Tensor
    filterbank: Tensor

    def build(self, width: float) -> int:
        # These buffers are not saved: they are fixed, and `preparation` describes them.
        self.register_buffer("window", torch.hann_window(MEL.n_fft), persistent=False)
        bank = torch.from_numpy(mel_filter_bank(MEL)).float()
        self.register_buffer("filterbank", bank, persistent=False)
        timbres, rhythms = scaled(204, width), scaled(51, width)
        context, units = scaled(64, width), scaled(UNITS, width)
        self.input_norm: nn.BatchNorm2d = nn.BatchNorm2d(1, eps=EPSILON)
        # The next kernels also learn a scale and a shift. The gradient of the spectrogram,
        # needed only for these two numbers, would take a third of a training step.
        self.input_norm.requires_grad_(False)
        self.timbral: nn.ModuleList = nn.ModuleList(_Front(timbres, kernel) for kernel in TIMBRAL)
        self.temporal: nn.ModuleList = nn.ModuleList(
            _Front(rhythms, (frames, 1)) for frames in TEMPORAL
        )
        front = len(TIMBRAL) * timbres + len(TEMPORAL) * rhythms
        self.context: nn.ModuleList = nn.ModuleList(
            nn.Conv1d(inputs, context, CONTEXT, padding=CONTEXT // 2)
            for inputs in (front, context, context)
        )
        self.context_norms: nn.ModuleList = nn.ModuleList(
            nn.BatchNorm1d(context, eps=EPSILON) for _ in self.context
        )
        pooled = 2 * (front + len(self.context) * context)
        self.pooled_norm: nn.BatchNorm1d = nn.BatchNorm1d(pooled, eps=EPSILON)
        self.dense: nn.Linear = nn.Linear(pooled, units)
        self.dense_norm: nn.BatchNorm1d = nn.BatchNorm1d(units, eps=EPSILON)
        self.tags: nn.Linear = nn.Linear(units, N_TAGS)
        self.dropout: nn.Module = self.classifier_dropout
        dims = {"units": units, "deviation": units, "front": pooled, "tags": N_TAGS}
        self.part_dims: list[int] = [dims[name] for name in self.options.output_names]
        return sum(self.part_dims)

    @classmethod
    def input_of(cls, options: MusicnnOptions) -> cards.AudioInput:
        return cards.AudioInput(MEL.sr, options.seconds, mark_end=True)

    def prepare(self, raw: Tensor) -> Tensor:
        """Map (batch, samples), NaN after a clip's end, to patches (batch, patches, 187, 96).

        Their values are log10(10,000 power + 1). Patches after the end of a clip are NaN.
        """
        raw = raw[:, : self.input.samples]
        samples = raw.isfinite().sum(dim=1)
        # A batch that has only short clips must also have one patch.
        least = (PATCH - 1) * MEL.hop_length
        raw = functional.pad(raw.nan_to_num(0.0), (0, max(0, least - raw.shape[1])))
        x = self._log_mel(raw)
        patches = x.shape[1] // PATCH
        x = x[:, : patches * PATCH].reshape(len(x), patches, PATCH, -1)
        # (batch,): number of patches that the clip fills, at least 1
        full = ((1 + samples // MEL.hop_length) // PATCH).clamp_min(1)
        beyond = torch.arange(patches, device=x.device) >= full[:, None]
        return x.masked_fill(beyond[:, :, None, None], torch.nan)

    def patch_front(self, x: Tensor) -> Tensor:
        """Return maximum and mean over time of all channels: (n, 187, 96) -> (n, 1506)."""
        if self.training or x.device.type != "cpu":
            return self._front(x)
        # The values of more patches do not fit into the cache.
        return threads.map_parts(self._front, torch.split(x, PATCHES_AT_ONCE))

    def _front(self, x: Tensor) -> Tensor:
        x = self.input_norm(x.unsqueeze(1))
        # five of (n, channels, 187) -> (n, 561, 187)
        features = [torch.cat([front(x) for front in (*self.timbral, *self.temporal)], dim=1)]
        for i, (convolution, norm) in enumerate(zip(self.context, self.context_norms, strict=True)):
            y = norm(functional.relu(convolution(features[-1])))
            features.append(y + features[-1] if i else y)
        # (n, 753, 187) -> (n, 753, 2) -> (n, 1506)
        channels = torch.cat(features, dim=1)
        return torch.stack([channels.amax(dim=2), channels.mean(dim=2)], dim=2).flatten(1)

    def _log_mel(self, waveform: Tensor, *, center: bool = True) -> Tensor:
        """Return log mel spectrograms: (batch, samples) -> (batch, frames, 96)."""
        # Half precision would lose the quiet bands.
        with torch.autocast(waveform.device.type, enabled=False):
            power = layers.power_spectrum(waveform, self.window, MEL.hop_length, center=center)
            mel = power.transpose(1, 2) @ self.filterbank  # (batch, frames, 96)
            return (COMPRESSION * mel + 1.0).log10()

    def piece_input(self) -> cards.PieceInput:
        """Return the input of a patch, which begins half a frame early: frames are centred."""
        return cards.PieceInput(
            cards.AudioInput(MEL.sr, ((PATCH - 1) * MEL.hop_length + MEL.n_fft) / MEL.sr),
            step=PATCH * MEL.hop_length / MEL.sr,
            before=MEL.n_fft / 2 / MEL.sr,
        )

    def embed_pieces(self, raw: Tensor) -> Tensor:
        """Map float32 (patches, samples) to (patches, embedding_dim), not yet pooled."""
        return self._patch_values(self.patch_front(self._log_mel(raw, center=False)))

    def pool_pieces(self, values: Tensor) -> Tensor:
        filled = torch.ones(1, len(values), dtype=torch.bool, device=values.device)
        return self._pooled(values, filled)[0]

    def _patch_values(self, front: Tensor) -> Tensor:
        """Return the values of patches before they are pooled: (n, 1506) -> (n, dim)."""
        units = self.patch_units(front)
        of_name = {"front": front, "units": units, "deviation": units}
        if "tags" in self.options.output_names:
            of_name["tags"] = self.tags(units).sigmoid()
        return torch.cat([of_name[name] for name in self.options.output_names], dim=1)

    def _pooled(self, values: Tensor, filled: Tensor) -> Tensor:
        """Pool each part over the patches of a clip: (n, dim) -> (batch, dim)."""
        pools = [_deviation if name == "deviation" else _mean for name in self.options.output_names]
        parts = torch.split(values, self.part_dims, dim=1)
        return torch.cat([pool(part, filled) for pool, part in zip(pools, parts, strict=True)], 1)

    def patch_units(self, front: Tensor) -> Tensor:
        """Return the penultimate layer from the values of `patch_front`: (n, 1506) -> (n, 200)."""
        return self.dense_norm(functional.relu(self.dense(self.dropout(self.pooled_norm(front)))))

    def embed(self, x: Tensor) -> Tensor:
        filled = x[:, :, 0, 0].isfinite()
        return self._pooled(self._patch_values(self.patch_front(x[filled])), filled)

    def preparation(self) -> dict[str, Any]:
        return {
            "sr": self.input.sr,
            "samples": self.input.samples,
            "range": [-1, 1],
            "shorter than a patch": "zero-padded at the end",
            "longer": "cut",
            "mel": {
                "n_fft": MEL.n_fft,
                "hop_length": MEL.hop_length,
                "n_mels": MEL.n_mels,
                "scale and norm": "slaney",
                "window": "hann",
                "frames": "centred, zero-padded",
                "power": 2,
                "compression": f"log10({COMPRESSION:.0f} x + 1)",
            },
            "patch": PATCH,
        }

    def from_published(self, tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
        return {
            published: (name, _torch_axes(tensors[published], name))
            for name, published in _published_names()
            if published in tensors
        }


class _Front(nn.Module):
    """Convolution padded along the frames, ReLU, batch normalisation, maximum over the bands."""

    def __init__(self, outputs: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.sides = ((kernel[0] - 1) // 2, kernel[0] // 2)
        self.convolution = nn.Conv2d(1, outputs, kernel)
        self.norm = nn.BatchNorm2d(outputs, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 1, frames, bands) to (n, outputs, frames)."""
        x = functional.pad(x, (0, 0, *self.sides))
        if self.norm.training:
            return self.norm(functional.relu(self.convolution(x))).amax(dim=3)
        # With fixed statistics, bias, ReLU and norm are monotone, so they can come after the
        # maximum over the bands; a channel with a negative scale has its minimum there.
        sign = torch.where(self.norm.weight < 0, -1.0, 1.0)
        kernel = self.convolution.weight * sign[:, None, None, None]
        fast = torch.is_inference_mode_enabled() and not torch.is_autocast_enabled("cpu")
        if fast and x.device.type == "cpu" and kernel.shape[3] > 1:
            peaks = fast_conv.convolution_peaks(x, kernel)
        else:
            peaks = functional.conv2d(x, kernel).amax(dim=3)
        assert self.convolution.bias is not None
        peaks = peaks * sign[:, None] + self.convolution.bias[:, None]
        return self.norm(functional.relu(peaks).unsqueeze(3)).squeeze(3)


def _mean(values: Tensor, filled: Tensor) -> Tensor:
    """Average (n, dim) over each clip's patches, `filled` (batch, patches) -> (batch, dim)."""
    table = values.new_zeros(*filled.shape, values.shape[1])
    table[filled] = values
    return table.sum(dim=1) / filled.sum(dim=1, keepdim=True)


def _deviation(values: Tensor, filled: Tensor) -> Tensor:
    """Return the standard deviation over the patches of each clip, (batch, dim); see `_mean`."""
    centred = values - _mean(values, filled)[filled.nonzero()[:, 0]]
    return _mean(centred.square(), filled).clamp_min(layers.LEAST_VARIANCE).sqrt()


def _published_names() -> Iterator[tuple[str, str]]:
    """Yield the net's name and the published name of each tensor, in the published order."""
    fronts = ("timbral.0", "timbral.1", "temporal.0", "temporal.1", "temporal.2")
    kernels = [*(f"{front}.convolution" for front in fronts), "context.0", "context.1", "context.2"]
    norms = ["input_norm", *(f"{front}.norm" for front in fronts), "context_norms.0"]
    norms += ["context_norms.1", "context_norms.2", "pooled_norm", "dense_norm"]
    for kind, places, parts in (
        ("conv2d", kernels, {"weight": "kernel", "bias": "bias"}),
        ("dense", ["dense", "tags"], {"weight": "kernel", "bias": "bias"}),
        ("batch_normalization", norms, _NORM_PARTS),
    ):
        for i, place in enumerate(places):
            # The first layer of a kind has no number.
            published = f"{kind}_{i}" if i else kind
            for ours, theirs in parts.items():
                yield f"{place}.{ours}", f"{published}/{theirs}"


def _torch_axes(value: Tensor, name: str) -> Tensor:
    """Return a kernel (frames, bands, inputs, outputs) or a matrix in torch's axis order."""
    if value.dim() == 2:
        return value.T
    if value.dim() != 4:
        return value
    if name.startswith("context."):
        # Published convolutions over time have their channels on the axis of the bands.
        return value.permute(3, 1, 0, 2).squeeze(3)
    return value.permute(3, 2, 0, 1)

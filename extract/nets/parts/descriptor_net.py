"""Base class of nets that read the frames of one descriptor unchanged."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from mvemo.extract.descriptors import dim_of
from mvemo.extract.nets.parts.base import Net
from mvemo.extract.nets.parts.inputs import SequenceInput, SharedSettings
from mvemo.extract.nets.parts.sequences import check_width, frames_of


class DescriptorNet(Net):
    """Base of nets that read `n_frames` frames of one descriptor."""

    modality: ClassVar[Literal["audio", "video"]] = "audio"
    descriptor: ClassVar[str]  # name of the descriptor
    columns_option: ClassVar[str]  # name of the option for its number of columns

    @classmethod
    def input_of(cls, options: Any) -> SequenceInput:
        return SequenceInput((cls.descriptor,), options.n_frames)

    @classmethod
    def shared_options(cls, shared: SharedSettings) -> dict[str, Any]:
        return {cls.columns_option: dim_of(cls.descriptor, shared.descriptors)}

    @classmethod
    def options_for(cls, seconds: float, shared: SharedSettings) -> dict[str, Any]:
        return {"n_frames": frames_of(seconds, shared.descriptors, cls.descriptor)}

    def prepare(self, raw: Tensor) -> Tensor:
        """Return the batch unchanged: (batch, n_frames, columns), NaN after a clip's end."""
        columns = getattr(self.options, self.columns_option)
        check_width(self.name, raw, columns, self.columns_option)
        return raw

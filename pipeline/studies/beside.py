"""Rule for published figures: they stand only next to scores of the published model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mvemo.extract.descriptors import DescriptorSettings
from mvemo.extract.nets import (
    SharedSettings,
    default_settings,
    options_of,
    with_length,
    with_shared_options,
)
from mvemo.extract.settings import NetSettings
from mvemo.fuse.report import published_j22
from mvemo.fuse.report.published import comparable
from mvemo.pipeline.settings import ExtractSettings
from mvemo.pipeline.studies.core import Study

_SHARED = SharedSettings(ExtractSettings().n_frames, DescriptorSettings())


def pl20_beside(study: Study, *plans: NetSettings) -> bool:
    """Return True if figures of PL20 and Z22 may stand next to scores of these nets."""
    return comparable(study.manifest.classes) and _published(study, plans)


def j22_beside(study: Study, *plans: NetSettings, seconds: float = 10.0) -> bool:
    """Return True if figures of J22 may stand next to scores of these nets.

    The nets must read segments of `seconds`. Without nets only the data are checked.
    """
    known = bool(published_j22.known_classes(study.manifest.classes))
    return known and _published(study, plans, seconds)


def _published(study: Study, plans: Sequence[NetSettings], seconds: float = 0.0) -> bool:
    """Return True if labels are not shuffled and nets and descriptors are as in ``paper``."""
    if study.permuted or study.settings.descriptors != _SHARED.descriptors:
        return False
    for plan in plans:
        known = replace(default_settings(plan.name), weights=plan.weights)
        known = with_shared_options(known, _SHARED)
        if seconds:
            known = with_length(known, seconds, _SHARED)
        if (plan.width, plan.view) != (known.width, known.view):
            return False
        if options_of(plan) != options_of(known):
            return False
    return True

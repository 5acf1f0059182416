"""Settings of an evaluation."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from typing import Any

from mvemo.fuse.descriptor_statistics import DEFAULT as DEFAULT_STATISTICS
from mvemo.fuse.descriptor_statistics import check_statistics
from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import FeatureSettings
from mvemo.fuse.heads.head import HeadSettings
from mvemo.fuse.songs import SongRule
from mvemo.manifests import Folds

# Metadata of fields that the caller decides, not a profile.
PER_RUN = {"profile": False}


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of `evaluate`.

    The defaults are those of the commands ``mvemo fuse`` and ``mvemo-cv``.

    Parameters
    ----------
    folds
        Number of folds, or the folds themselves, in the order of the cache's clips
        (`mvemo.manifests.read_folds`); None for the cache's own folds, or six.
    seed
        Seed of new folds and of the permutation. None keeps the cache's folds if their number
        matches; crossfitted features always keep them.
    models
        Names of the models to evaluate; None for all that the features allow, and the stack.
    permute_labels
        Shuffle the labels over the clips first, in whole rows. All scores must then be at
        chance level.
    scale
        Scale of valence and arousal, such as ``1..9``; empty for the cache's.
    allow_leak
        Accept scores of clips by nets that saw them; the results then say so.
    songs
        Rule by which whole songs are decided from their segments (`mvemo.fuse.song_level`);
        None to score the clips themselves.
    repeats
        Number of evaluations, each on other folds; more than one needs features that all folds
        share.
    learning_curve
        Also score heads trained on fewer clips.
    refit
        Also fit each head on all clips, to predict new clips.
    head
        Settings of all heads.
    lld
        Names of descriptor sequences in the cache, whose statistics over time are one more
        feature, ``lld``; empty for none.
    lld_statistics
        Statistics to use: some of ``mean``, ``std``, ``p10`` and ``p90`` (percentiles), and the
        same of differences between frames, ``diff_mean`` to ``diff_p90``.
    within_groups
        Standardise the clips of each group of five or more by the group's own means and
        deviations, without labels (speaker or artist normalisation). New clips must then also
        come as groups.
    memory
        GiB of memory for features; larger features are read again, by blocks of clips, whenever
        heads are fitted (`mvemo.fuse.features.FeatureSettings`).
    stacked
        Add ``integrated-stacked`` (PL20 3.4, read as a head on other heads' outputs), over the
        fusions of one feature per modality, or over the single features if there are fewer than
        two such fusions. With named models, only if it is among them.
    late
        Add ``integrated-late``: the product of the calibrated predictions of the single features
        that a clip has. With named models, only if it is among them.
    missing_modality
        Also score fusions with modalities missing, and predict clips that lack modalities by a
        head of the other features.
    choose_model
        Recommend a model, and estimate its score; the choice among models is also made inside
        the training folds (`mvemo.fuse.crossval.out_of_fold`).
    temperature
        Fit a temperature for each model and fold on inner folds, and also report calibration
        with it (for classes only).
    n_resamples
        Number of resamples of groups for 95 % intervals; 0 for no intervals.

    Raises
    ------
    BadFeatures
        A number is out of range, or the list of models is empty.

    Examples
    --------
    >>> settings = EvaluationSettings(folds=6, head=HeadSettings(C=0.1))
    >>> settings.record()["head"]["C"]
    0.1
    """

    folds: int | Folds | None = field(default=None, metadata=PER_RUN)
    seed: int | None = field(default=None, metadata=PER_RUN)
    models: tuple[str, ...] | None = field(default=None, metadata=PER_RUN)
    permute_labels: bool = field(default=False, metadata=PER_RUN)
    scale: str = field(default="", metadata=PER_RUN)
    allow_leak: bool = field(default=False, metadata=PER_RUN)
    songs: SongRule | None = field(default=None, metadata=PER_RUN)
    repeats: int = field(default=1, metadata=PER_RUN)
    learning_curve: bool = field(default=False, metadata=PER_RUN)
    refit: bool = field(default=False, metadata=PER_RUN)
    head: HeadSettings = field(default_factory=HeadSettings)
    lld: tuple[str, ...] = ()
    lld_statistics: tuple[str, ...] = DEFAULT_STATISTICS
    within_groups: bool = False
    memory: float = 4.0
    stacked: bool = True
    late: bool = True
    missing_modality: bool = True
    choose_model: bool = True
    temperature: bool = True
    n_resamples: int = 1000

    def __post_init__(self) -> None:
        least = {"folds": 2, "seed": 0, "repeats": 1, "n_resamples": 0}
        for name, smallest in least.items():
            value = getattr(self, name)
            if isinstance(value, int) and value < smallest:
                raise BadFeatures(f"{name} is {value}: it must be {smallest} or more")
        if isinstance(self.folds, Folds) and self.repeats > 1:
            raise BadFeatures(
                f"--repeats {self.repeats} needs other folds, but --folds gives these: evaluate "
                "once, or give a number of folds"
            )
        if not self.memory >= 0:
            raise BadFeatures(f"memory is {self.memory}: it must be 0 GiB or more")
        check_statistics(self.lld_statistics)
        if self.models is not None and not self.models:
            raise BadFeatures("models names no model: name one at least, or None for all")

    @property
    def features(self) -> FeatureSettings:
        """Return the settings of the features."""
        return FeatureSettings(self.lld, self.lld_statistics, self.within_groups, self.memory)

    def record(self) -> dict[str, Any]:
        """Return all settings as JSON values; for given folds, their number and digest."""
        values = asdict(self)
        if isinstance(self.folds, Folds):
            digest = hashlib.sha256(self.folds.assignment.tobytes()).hexdigest()
            values["folds"] = {"k": self.folds.k, "digest": digest}
        return values

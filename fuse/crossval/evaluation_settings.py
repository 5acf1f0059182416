"""Settings of an evaluation, and of an estimator of scikit-learn among its models."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.features import FeatureSettings, check_statistics
from mvemo.fuse.heads.head import HeadSettings
from mvemo.fuse.songs import SongRule
from mvemo.manifests import Folds
from mvemo.manifests.declared import check_settings, setting
from mvemo.manifests.errors import BadOption
from mvemo.manifests.plugins import Plugin, plugins

PREFIX = "sklearn:"


@dataclass(frozen=True)
class EstimatorSettings:
    """Estimator that is evaluated among the models.

    Parameters
    ----------
    head
        ``sklearn:MODULE.CLASS``, or the name of a plug-in.
    parameters
        Parameters of the estimator; those with a list of values are tuned.
    """

    head: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name of the model."""
        return self.head.rpartition(".")[2] if self.head.startswith(PREFIX) else self.head

    def failure(self, problem: str) -> BadOption:
        """Return the error that names the head and its problem."""
        return BadOption(f"--head {self.head}: {' '.join(problem.split())}"[:400])

    def load(self) -> Any:
        """Return a new estimator with the parameters that are not tuned.

        Raises
        ------
        BadOption
            The class cannot be imported, is not an estimator, or lacks a parameter.
        """
        factory = self._factory()
        try:
            estimator = factory()
            fixed = {k: v for k, v in self.parameters.items() if not isinstance(v, list)}
            known = estimator.get_params()
            for name in self.parameters:
                if name not in known:
                    listed = ", ".join(sorted(known))
                    raise self.failure(f"unknown parameter {name!r}; expected one of {listed}")
            if known.get("random_state", 0) is None:
                fixed = {"random_state": 0, **fixed}
            return estimator.set_params(**fixed)
        except BadOption:
            raise
        except Exception as error:
            raise self.failure(f"{type(error).__name__}: {error}") from error

    def _factory(self) -> Callable[[], Any]:
        if not self.head.startswith(PREFIX):
            plugin: Plugin | None = plugins("heads").get(self.head)
            if plugin is None:
                known = ", ".join(["sklearn:MODULE.CLASS", *sorted(plugins("heads"))])
                raise self.failure(f"expected one of {known}")
            return plugin.load(lambda value: "" if callable(value) else f"{value!r} is no function")
        module, _, name = self.head.removeprefix(PREFIX).rpartition(".")
        try:
            kind: Callable[[], Any] = getattr(import_module(module), name)
        except Exception as error:
            raise self.failure(f"{type(error).__name__}: {error}") from error
        if not all(hasattr(kind, method) for method in ("fit", "get_params", "set_params")):
            raise self.failure("expected the class of an estimator of scikit-learn")
        return kind

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yield each setting of the parameters with lists of values."""
        from sklearn.model_selection import ParameterGrid

        lists = {k: v for k, v in self.parameters.items() if isinstance(v, list)}
        # TOML has no tuples: a list inside a list stands for one.
        yield from ParameterGrid(
            {k: [tuple(x) if isinstance(x, list) else x for x in v] for k, v in lists.items()}
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings(FeatureSettings):
    """Settings of `evaluate`; the defaults are those of ``mvemo fuse`` and ``mvemo-cv``.

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
        1 or True: replace the labels by labels drawn at random in blocks, as a check: all scores
        must then be at chance level. 2 or more (20 for a p-value below .05): evaluate the labels,
        and compare their scores with those of so many random draws (`Results.chance`).
    scale
        Scale of valence and arousal, such as ``1..9``; empty for that of the cache.
    allow_leak
        Accept clips scored by nets that were trained on them; the results are then marked `leaky`.
    songs
        Rule to decide whole songs from their segments (`song_level`); None to score clips.
    repeats
        Number of evaluations, each on different folds; only for features that all folds share.
    learning_curve
        Also score heads trained on fewer clips.
    refit
        Also fit each head on all clips, to predict new clips.
    estimators
        Estimators of scikit-learn that are evaluated, too.
    head, lld, ...
        Settings of the table ``[fuse]``, see docs/settings.md.

    Raises
    ------
    BadFeatures
        A number is out of range, or the list of models is empty.
    """

    folds: int | Folds | None = setting(None, ge=2, profile=False)
    seed: int | None = setting(None, ge=0, profile=False)
    models: tuple[str, ...] | None = setting(None, profile=False)
    permute_labels: int = setting(0, ge=0, profile=False)
    scale: str = setting("", profile=False)
    allow_leak: bool = setting(False, profile=False)
    songs: SongRule | None = setting(None, profile=False)
    repeats: int = setting(1, ge=1, profile=False)
    learning_curve: bool = setting(False, profile=False)
    refit: bool = setting(False, profile=False)
    estimators: tuple[EstimatorSettings, ...] = setting((), profile=False)
    head: HeadSettings = setting(HeadSettings, "Settings of all heads.")
    stacked: bool = setting(True, "Add `integrated-stacked` (PL20 3.4).")
    late: bool = setting(True, "Add `integrated-late`, the product of predictions of features.")
    kernel: bool = setting(True, "Add `kernel` (at most 5,000 clips).")
    layers: bool = setting(True, "Add models that weigh the layers of an encoder, or choose one.")
    missing_modality: bool = setting(True, "Also score and predict clips that lack a modality.")
    choose_model: bool = setting(True, "Recommend a model, and estimate its score.")
    temperature: bool = setting(True, "Also report calibration with a fitted temperature.")
    audit: bool = setting(True, "Also look for faults of the data.")
    n_resamples: int = setting(1000, "Resamples for 95 % intervals; 0 for none.", ge=0)

    def __post_init__(self) -> None:
        check_settings(self)
        if isinstance(self.folds, Folds) and self.repeats > 1:
            raise BadFeatures(
                f"--repeats {self.repeats} needs other folds, but --folds gives fixed folds: leave "
                "out --repeats, or give --folds a number"
            )
        check_statistics(self.lld_statistics)
        if self.models is not None and not self.models:
            raise BadFeatures("models is empty: name at least one model, or give None for all")

    def record(self) -> dict[str, Any]:
        """Return all settings as JSON values; for given folds, their number and digest."""
        values = asdict(self)
        if isinstance(self.folds, Folds):
            digest = hashlib.sha256(self.folds.assignment.tobytes()).hexdigest()
            values["folds"] = {"k": self.folds.k, "digest": digest}
        return values

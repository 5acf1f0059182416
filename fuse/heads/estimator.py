"""Settings of an estimator of scikit-learn that is evaluated among the models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

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

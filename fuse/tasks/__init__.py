"""Tasks: classes, tags or values per clip."""

from mvemo.fuse.errors import BadFeatures
from mvemo.fuse.tasks.base import Task
from mvemo.fuse.tasks.probabilities import Multiclass, Multilabel
from mvemo.fuse.tasks.regression import Regression
from mvemo.manifests.labels import UNLABELLED

TASKS: dict[str, type[Task]] = {
    "multiclass": Multiclass,
    "multilabel": Multilabel,
    "regression": Regression,
}


def task_of(name: str) -> Task:
    """Return the task with this name, as a manifest or a cache states it.

    Parameters
    ----------
    name
        ``multiclass``, ``multilabel`` or ``regression``.

    Raises
    ------
    BadFeatures
        The name is unknown, or the clips have no labels.

    Examples
    --------
    >>> task_of("multilabel").primary_metric
    'roc_auc_macro'
    """
    if name == UNLABELLED:
        raise BadFeatures(
            "these clips have no labels, which heads and scores need: add a column 'label' to the "
            "manifest and run the same 'mvemo extract' or 'mvemo cache import' again; the "
            "features are kept"
        )
    if name not in TASKS:
        raise BadFeatures(f"unknown task {name!r}; expected one of {', '.join(TASKS)}")
    return TASKS[name]()

"""Labels of each task: in cells, as arrays, in strata and in words."""

from pathlib import Path

import numpy as np
import pytest

from mvemo.manifests.errors import Problems
from mvemo.manifests.labels import label_kind

CLASSES = ("calm", "tense")
# Task -> labels of clips as parsed and as an array, their members by class and counts; an array
# with faults, and which of its rows are no label.
TASKS = [
    ("multiclass", [("tense",), ("tense",), ("calm",)], [1, 1, 0], [[0, 0, 1], [1, 1, 0]],
     ["1", "2"], [0, 2, -1, 1], [False, True, True, False]),
    ("multilabel", [("calm", "tense"), (), ("tense",)], [[1, 1], [0, 0], [0, 1]],
     [[1, 0, 0], [1, 0, 1]], ["1", "2"], [[0, 1], [0, 2], [-1, 0]], [False, True, True]),
    ("regression", [(0.5, 1.0), (2.0, 1.0)], [[0.5, 1], [2, 1]], [],
     ["0.5 to 2, mean 1.25", "1 to 1, mean 1"], [[0.5, -9.0], [np.nan, 1.0], [1.0, np.inf]],
     [False, True, True]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "labels", "rows", "members", "counts", "faulty", "invalid"), TASKS
)
def test_arrays(task, labels, rows, members, counts, faulty, invalid):
    kind = label_kind(task)
    array = kind.array(labels, CLASSES)
    np.testing.assert_array_equal(array, rows)
    assert array.dtype == kind.dtype == (np.float64 if kind.numeric else np.int64)
    assert array.shape == kind.shape(len(labels), len(CLASSES))
    assert not kind.invalid(array, len(CLASSES)).any()
    assert kind.array([], CLASSES).shape == kind.shape(0, len(CLASSES))
    found = {name: member.tolist() for name, member in kind.members(array, CLASSES).items()}
    assert found == dict(zip(CLASSES, members, strict=False))
    assert kind.counts(array, CLASSES) == counts
    assert kind.invalid(np.array(faulty), len(CLASSES)).tolist() == invalid


def test_cells_of_labels():
    with pytest.raises(ValueError, match="unknown task 'tagging'; expected one of multiclass, m"):
        label_kind("tagging")
    assert label_kind("regression").format((np.float64(0.1), 2.0), CLASSES) == ["0.1", "2.0"]
    # A tag that is called as another column cannot have a column of its own.
    kind, label = label_kind("multilabel"), ("calm; still", "tense")
    cells = kind.format(label, ("calm; still", "group", "tense"))
    assert kind.parse({"label": cells[0]}, None, Problems(Path("clips.csv")).at(2)) == label


def test_strata():
    # Names stand for themselves; clips without a tag are a stratum of their own.
    np.testing.assert_array_equal(label_kind("multiclass").strata(["b", "a"]), [[0, 1], [1, 0]])
    tags = label_kind("multilabel").strata([[1, 1], [0, 0]])
    np.testing.assert_array_equal(tags, [[1, 1, 0], [0, 0, 1]])
    # Fifths of each of the first two targets.
    values = np.column_stack([np.arange(10.0), -np.arange(10.0), np.zeros(10)])
    strata = label_kind("regression").strata(values)
    assert strata.shape == (10, 10)
    np.testing.assert_array_equal(strata.sum(axis=0), 2)

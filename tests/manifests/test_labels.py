"""Labels of each task: in cells, as arrays, in strata and in words."""

from pathlib import Path

import numpy as np
import pytest

from mvemo.manifests.errors import Problems
from mvemo.manifests.labels import TASKS, label_kind

CLASSES = ("calm", "tense")
# One clip of each: as parsed from its cells, and its row of the array.
LABELS = {
    "multiclass": [(("tense",), 1), (("calm",), 0)],
    "multilabel": [(("calm", "tense"), [1, 1]), ((), [0, 0]), (("tense",), [0, 1])],
    "regression": [((0.1, -2.0), [0.1, -2.0]), ((1e-9, 3.0), [1e-9, 3.0])],
}


def test_tasks():
    with pytest.raises(ValueError, match="unknown task 'tagging'; expected one of multiclass, m"):
        label_kind("tagging")


def test_numbers_of_numpy_are_written_as_numbers():
    assert label_kind("regression").format((np.float64(0.1), 2.0), CLASSES) == ["0.1", "2.0"]


def test_a_tag_with_a_semicolon_reads_back():
    kind, label = label_kind("multilabel"), ("calm; still", "tense")
    # A tag that is called as another column cannot have a column of its own.
    cells = kind.format(label, ("calm; still", "group", "tense"))
    assert kind.parse({"label": cells[0]}, None, Problems(Path("clips.csv")).at(2)) == label


@pytest.mark.parametrize("task", TASKS)
def test_arrays(task):
    kind = label_kind(task)
    labels, rows = zip(*LABELS[task], strict=True)
    array = kind.array(labels, CLASSES)
    np.testing.assert_array_equal(array, rows)
    assert array.dtype == kind.dtype == (np.float64 if kind.numeric else np.int64)
    assert array.shape == kind.shape(len(labels), len(CLASSES))
    assert array.ndim in kind.n_axes
    assert not kind.invalid(array, len(CLASSES)).any()
    assert kind.array([], CLASSES).shape == kind.shape(0, len(CLASSES))


@pytest.mark.parametrize(
    ("task", "labels", "invalid"),
    [
        ("multiclass", [0, 2, -1, 1], [False, True, True, False]),
        ("multilabel", [[0, 1], [0, 2], [-1, 0]], [False, True, True]),
        ("regression", [[0.5, -9.0], [np.nan, 1.0], [1.0, np.inf]], [False, True, True]),
    ],
)
def test_what_is_no_label(task, labels, invalid):
    assert label_kind(task).invalid(np.array(labels), len(CLASSES)).tolist() == invalid


@pytest.mark.parametrize(
    ("task", "labels", "members", "counts"),
    [
        ("multiclass", [1, 1, 0], [[0, 0, 1], [1, 1, 0]], ["1", "2"]),
        ("multilabel", [[1, 1], [0, 1]], [[1, 0], [1, 1]], ["1", "2"]),
        ("regression", [[0.5, 1], [2, 1]], [], ["0.5 to 2, mean 1.25", "1 to 1, mean 1"]),
    ],
)
def test_members_and_counts(task, labels, members, counts):
    kind, array = label_kind(task), np.array(labels)
    found = {name: member.tolist() for name, member in kind.members(array, CLASSES).items()}
    assert found == dict(zip(CLASSES, members, strict=False))
    assert kind.counts(array, CLASSES) == counts


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

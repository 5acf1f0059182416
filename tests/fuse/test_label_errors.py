"""Wrong labels are ranked first, and the stated precision is what planted ones show."""

import numpy as np
import pytest

from mvemo.cache import ClipTable, import_feature, open_cache
from mvemo.fuse.label_errors import find_label_errors, label_doubt


@pytest.mark.parametrize("task", ["multiclass", "multilabel", "regression"])
def test_planted_errors_are_found(tmp_path, task):
    rng, n = np.random.default_rng(0), 300
    hidden = rng.normal(size=(n, 3))
    labels = {
        "multiclass": hidden.argmax(axis=1),
        "multilabel": (hidden > 0).astype(int),
        "regression": hidden,
    }[task].copy()
    wrong = rng.choice(n, 15, replace=False)
    if task == "multiclass":
        labels[wrong] = (labels[wrong] + 1) % 3
    else:
        labels[wrong, 0] = 1 - labels[wrong, 0] if task == "multilabel" else 4 - labels[wrong, 0]
    table = ClipTable(
        "made", task, ("a", "b", "c"), tuple(f"c{i}" for i in range(n)),
        tuple(f"g{i // 2}" for i in range(n)), labels, np.full(n, -1), 0,
    )  # fmt: skip
    values = hidden @ rng.normal(size=(3, 12)) + 0.3 * rng.normal(size=(n, 12))
    import_feature(tmp_path / "f.h5", "timbre", "audio", values.astype("f4"), table=table)
    with open_cache(tmp_path / "f.h5") as cache:
        found = find_label_errors(cache)
    assert found.model == "timbre"
    assert np.isin(found.ranking()[:15], wrong).mean() >= 0.6
    assert found.auroc > (0.85 if task == "regression" else 0.93)
    assert 0.5 <= found.precision <= 1
    assert found.planted == pytest.approx(0.1 * n * (1 if task == "multiclass" else 3), rel=0.4)


def test_the_doubt_is_the_loss_of_the_label():
    outputs = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [np.nan] * 3])
    doubt = label_doubt(np.array([0, 1, 2]), outputs, "softmax")
    np.testing.assert_allclose(doubt[:, 0], -np.log([0.7, 0.1, np.nan]))
    tags = label_doubt(np.array([[1, 0], [0, 1]]), np.array([[0.9, 0.2], [0.4, 0.5]]), "sigmoid")
    np.testing.assert_allclose(tags, -np.log([[0.9, 0.8], [0.6, 0.5]]))

"""Faults in a few made sets are found; `bench/calibration` makes many of each."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest


def load(name):
    path = Path(__file__).parents[1] / "bench" / "calibration" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"calibration_{name}", path)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        spec.loader.exec_module(module)
        # Other tests may import another module of this name.
        patch.delitem(sys.modules, "rows", raising=False)
    return module


audit, labels = load("audit"), load("labels")


@pytest.mark.parametrize("name", audit.FAULTS)
@pytest.mark.parametrize("seed", [3, 5])
def test_faults_are_found(name, seed):
    fault, numeric, _ = audit.FAULTS[name]
    made = audit.made_set(seed, numeric)
    kind, clips = fault(made)
    found = audit.kinds_found(made)
    assert np.isin(clips, found[kind]).mean() >= 0.8 if clips else kind in found
    assert {*found} <= {kind, "label-conflict"}


@pytest.mark.parametrize("name", [*audit.FAULTLESS][:-1])
@pytest.mark.parametrize("seed", range(2))
def test_sets_without_faults_have_no_finding(name, seed):
    assert audit.kinds_found(audit.made_set(seed, **audit.FAULTLESS[name])) == {}


@pytest.mark.parametrize("share", labels.SHARES)
@pytest.mark.parametrize("name", labels.made_sets())
def test_precision_of_doubtful_labels(name, share):
    runs = [labels.stated_and_true(*labels.made_sets()[name], share, seed) for seed in range(2)]
    stated, true, bound = np.mean(runs, axis=0)
    # 36 labels are wrong at 3 %: their own chance is as large as the tolerance.
    assert stated == pytest.approx(true, abs=0.08 if share > 0.03 else 0.12)
    assert share * 0.9 <= bound <= share + 0.15

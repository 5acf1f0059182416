"""What is not imported until it is needed, all in one fresh process: each takes seconds to start.

Every step is stricter for the steps before it: what they import must lack the later
steps' modules as well.
"""

import json
import subprocess
import sys

import pytest

PLACES = ("mvemo.manifests", "mvemo.cache", "mvemo.extract", "mvemo.fuse")
# Seconds to import, or not installed with stage two alone.
HEAVY = ("torch", "torchvision", "librosa", "av", "cv2", "soundfile", "soxr")

# What is done -> modules that are not loaded after it.
STEPS = {
    "import mvemo; dir(mvemo)": ("numpy", "click", "torch"),
    "from mvemo import clip_table, evaluate, extract_features, load, predict": (
        *("torch", "librosa", "sklearn", "matplotlib"),
    ),
    "import mvemo.fuse.report.report_files": (
        *("matplotlib", "jinja2", "torch"),
        # Half of the start of stage two.
        *("sklearn", "scipy.stats"),
    ),
    f"import mvemo.manifests.demo, {', '.join(PLACES)}": HEAVY,
    "from mvemo.pipeline.settings_files import load_fuse_settings; "
    "assert load_fuse_settings('demo', ['nets.i3d.lr=1']).head.C == 0.01": ("torch",),
    # Workers are handed the filter banks.
    "import pickle; import numpy as np; "
    "from mvemo.extract.descriptors import *; "
    "from mvemo.extract.descriptors.spectral import FilterBanks; "
    "banks = FilterBanks(np.ones((1025, 64), np.float32), np.ones((1025, 12), np.float32)); "
    "banks = pickle.loads(pickle.dumps(banks)); "
    "settings = DescriptorSettings(); "
    "names = set(DESCRIPTORS) - {LOUDNESS}; "
    "describe(np.ones(4096, np.float32), settings, names, banks=banks)": (
        *("torch", "librosa", "numba"),
    ),
    # Importing librosa takes a second: its filter banks are made without it.
    "from mvemo.extract.descriptors.spectral import filter_banks; filter_banks(settings)": (
        "librosa",
        "scipy.signal",
    ),
}


@pytest.fixture(scope="module")
def loaded():
    """Of each step, the modules loaded after it that should not be."""
    lines = ["import json, sys", "loaded = []"]
    for step, absent in STEPS.items():
        lines += [step, f"loaded.append([m for m in {absent!r} if m in sys.modules])"]
    code = "\n".join([*lines, "print(json.dumps(loaded))"])
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "step",
    range(len(STEPS)),
    ids=["mvemo", "functions", "report", "packages", "settings", "descriptors", "filter banks"],
)
def test_nothing_is_imported_before_it_is_needed(step, loaded):
    assert loaded[step] == []

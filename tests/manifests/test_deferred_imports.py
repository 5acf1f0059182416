"""Slow modules are imported when something uses them, and not before."""

import json
import subprocess
import sys

import pytest

START = """
import json, sys
from mvemo.manifests.deferred_imports import defer_imports, import_deferred
defer_imports()
def loaded(*names):
    return [name for name in names if name in sys.modules]
"""


def run(code: str) -> list:
    """Return the list that a new process prints."""
    command = [sys.executable, "-c", f"{START}\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_scipy_does_not_import_numpys_compiler():
    code = "import scipy.special; print(json.dumps(loaded('numpy.f2py.crackfortran')))"
    assert run(code) == []


def test_a_use_of_a_placeholder_imports_the_module():
    code = (
        "import numpy as np, scipy.special, scipy.stats\n"
        "x = np.arange(5.0)\n"
        "print(json.dumps([float(scipy.stats.pearsonr(x, x * x)[0]), "
        "float(scipy.special.logsumexp(x)), np.f2py.crackfortran.__name__]))"
    )
    r, total, name = run(code)
    assert r == pytest.approx(0.9589266029707684)
    assert total == pytest.approx(4.451914395937593)
    assert name == "numpy.f2py.crackfortran"


def test_a_submodule_of_a_placeholder_is_imported_once():
    code = (
        "import numpy.f2py\nimport numpy.f2py.crackfortran as one\n"
        "print(json.dumps([one is sys.modules['numpy.f2py'].crackfortran]))"
    )
    assert run(code) == [True]


def test_a_net_embeds_without_torchs_kernels_for_compilers():
    code = (
        "from mvemo.extract.nets import build_net\nimport torch\n"
        "net = build_net('music1d', 6, width=0.25, seconds=4.0).eval()\n"
        "x = net.embed(net.prepare(torch.zeros(1, 64000)))\n"
        "print(json.dumps([len(x), *loaded('torch._decomp', 'torch._prims')]))"
    )
    assert run(code) == [1]


@pytest.mark.parametrize(
    "use",
    [
        # A compiler imports `torch._decomp` by itself.
        "from torch._subclasses.fake_tensor import FakeTensorMode\n"
        "with FakeTensorMode(): y = torch.linalg.qr(torch.ones(3, 3))[0]",
        # Nets of others may use all of torch.
        "import_deferred()\ny = torch.linalg.qr(torch.ones(3, 3, device='meta'))[0]",
    ],
)
def test_tensors_without_values_have_their_kernels(use: str):
    names = "loaded('torch._decomp', 'torch._prims')"
    code = f"import torch\n{use}\nprint(json.dumps([*y.shape, *{names}]))"
    assert run(code) == [3, 3, "torch._decomp", "torch._prims"]


def test_deferring_before_anything_is_imported_can_be_undone():
    code = "import_deferred()\nimport torch\nprint(json.dumps(loaded('torch._decomp')))"
    assert run(code) == ["torch._decomp"]

"""What is said of the weights that a net starts from."""

from pathlib import Path

import pytest

from mvemo.extract.nets.parts.weights import WeightReport
from mvemo.pipeline.starting_weights import tell_weights


@pytest.mark.parametrize(("missing", "n_lines"), [("classifier.weight", 1), ("conv.weight", 2)])
def test_tensors_are_told_if_the_net_needs_them(missing, n_lines, capsys):
    tell_weights(WeightReport(Path("w.npz"), "0" * 64, ("conv.bias",), (missing,)))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "w.npz: weights of your own"
    assert (
        lines[1:]
        == ["note: w.npz: not all that the net needs is in it; --verbose names it"][: n_lines - 1]
    )

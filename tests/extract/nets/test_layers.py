"""The fast exponential linear unit has torch's values and slopes; pooling of equal frames."""

import pytest
import torch
from torch.nn import functional

from mvemo.extract.nets.parts.layers import Elu, mean_and_deviation

SHAPES = [(0,), (1,), (3, 5, 7), (2, 4, 40_001)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-7), (torch.float64, 4e-16)])
def test_values_and_slopes_are_those_of_torch(shape, dtype, tolerance):
    torch.manual_seed(0)
    x = 4 * torch.randn(shape, dtype=dtype)
    gradient = torch.randn(shape, dtype=dtype)
    values, slopes = [], []
    for function in (Elu(), functional.elu):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        y.backward(gradient)
        values.append(y.detach())
        slopes.append(leaf.grad)
    torch.testing.assert_close(*values, rtol=0, atol=tolerance)
    torch.testing.assert_close(*slopes, rtol=4 * tolerance, atol=4 * tolerance)


EXTREMES = [-torch.inf, -200.0, -1e-30, -0.0, 0.0, 1e-30, 200.0, torch.inf, torch.nan]


@pytest.mark.parametrize("x", [torch.tensor(EXTREMES), torch.randn(4, 6, 5).transpose(0, 2)])
def test_extreme_and_strided_input_stays_and_gives_torchs_values(x):
    before = x.clone()
    torch.testing.assert_close(Elu()(x), functional.elu(x), rtol=0, atol=2e-7, equal_nan=True)
    torch.testing.assert_close(x, before, rtol=0, atol=0, equal_nan=True)


def test_half_precision_is_torchs_own():
    x = torch.randn(100).bfloat16()
    assert torch.equal(Elu()(x), functional.elu(x))


def test_equal_frames_have_a_deviation_with_a_gradient():
    frames = torch.ones(2, 3, 4, requires_grad=True)
    pooled = mean_and_deviation(frames)
    assert pooled.shape == (2, 8)
    pooled.sum().backward()
    assert frames.grad.isfinite().all()

"""A linear layer and what may follow it."""

import pytest
import torch
from torch import nn

from leandetr.nn import affine as module
from leandetr.nn.affine import affine


@pytest.mark.parametrize("then", ["none", "relu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_with_its_bias_is_what_it_was(monkeypatch, dtype, then):
    torch.manual_seed(0)
    linear, x = nn.Linear(6, 5).to(dtype), torch.randn(2, 3, 6, dtype=dtype)
    exact = nn.functional.linear(x.double(), linear.weight.double(), linear.bias.double())
    exact = exact.relu() if then == "relu" else exact
    with torch.no_grad():
        fused = affine(x, linear.weight, linear.bias, then)
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda: False)
        plain = affine(x, linear.weight, linear.bias, then)
    near = 1e-6 if dtype == torch.float32 else 2e-2
    for answer in (fused, plain):
        assert answer.dtype == dtype
        torch.testing.assert_close(answer.double(), exact, atol=near, rtol=near)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_has_a_gradient(dtype):
    linear, x = nn.Linear(6, 5).to(dtype), torch.randn(3, 6, dtype=dtype, requires_grad=True)
    answer = affine(x, linear.weight, linear.bias, "relu")
    answer.sum().backward()
    torch.testing.assert_close(linear.bias.grad, (answer > 0).to(dtype).sum(dim=0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_row_gives_no_row(dtype):
    linear = nn.Linear(6, 5).to(dtype).requires_grad_(False)
    empty = torch.empty(0, 6, dtype=dtype)
    assert affine(empty, linear.weight, linear.bias).shape == (0, 5)

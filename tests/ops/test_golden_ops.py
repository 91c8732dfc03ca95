"""The sampling operators against the official core, on every backend."""

import pytest
import torch

from golden_data import cases, load_case
from leandetr import ops

BACKENDS = ("reference", "operator")


def run(case, backend, *, grad):
    t = case.tensors
    shapes = tuple((int(h), int(w)) for h, w in t["spatial_shapes"])
    inputs = [
        t[name].clone().requires_grad_(grad)
        for name in ("value", "sampling_locations", "attention_weights")
    ]
    with ops.use_backend(backend):
        output = ops.deform_attn(inputs[0], shapes, inputs[1], inputs[2])
    return output, inputs


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", cases("ops/*"))
def test_forward_equals_official(name, backend):
    case = load_case(name)
    output, _ = run(case, backend, grad=False)
    torch.testing.assert_close(output, case.tensors["output"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", cases("ops/*"))
def test_gradients_equal_official(name, backend):
    case = load_case(name)
    if "grad_output" not in case.tensors:
        assert name == "ops/edges"  # the derivative jumps on the border: forward only
        return
    output, inputs = run(case, backend, grad=True)
    output.backward(case.tensors["grad_output"])
    for tensor, key in zip(
        inputs, ("value", "sampling_locations", "attention_weights"), strict=True
    ):
        expected = case.tensors[f"grad_{key}"]
        torch.testing.assert_close(tensor.grad, expected, atol=1e-4, rtol=1e-4)

"""The sampling operators against the official core, on every backend and instruction set."""

import pytest
import torch

from golden_data import cases, load_case
from leandetr import ops
from sampling_calls import running, ways


def run(case, way, *, grad):
    t = case.tensors
    shapes = tuple((int(h), int(w)) for h, w in t["spatial_shapes"])
    inputs = [
        t[name].clone().requires_grad_(grad)
        for name in ("value", "sampling_locations", "attention_weights")
    ]
    with running(way):
        output = ops.deform_attn(inputs[0], shapes, inputs[1], inputs[2])
        if grad:
            output.backward(t["grad_output"])
    return output, inputs


@ways
@pytest.mark.parametrize("name", cases("ops/*"))
def test_forward_equals_official(name, way):
    case = load_case(name)
    output, _ = run(case, way, grad=False)
    torch.testing.assert_close(output, case.tensors["output"], atol=1e-5, rtol=0)


@ways
@pytest.mark.parametrize("name", cases("ops/*"))
def test_gradients_equal_official(name, way):
    case = load_case(name)
    if "grad_output" not in case.tensors:
        assert name == "ops/edges"  # the derivative jumps on the border: forward only
        return
    _, inputs = run(case, way, grad=True)
    for tensor, key in zip(
        inputs, ("value", "sampling_locations", "attention_weights"), strict=True
    ):
        expected = case.tensors[f"grad_{key}"]
        torch.testing.assert_close(tensor.grad, expected, atol=1e-4, rtol=1e-4)

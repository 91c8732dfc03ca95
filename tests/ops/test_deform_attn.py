"""Multi-scale deformable attention: its own laws, on both backends."""

import pytest
import torch
from hypothesis import given
from torch.utils.flop_counter import FlopCounterMode

from leandetr import ops
from leandetr.errors import LeanDetrError
from leandetr.ops.deform_attn import flat, paired
from sampling import BACKENDS, Sizes, sizes
from sampling_calls import draw


def inputs(at, dtype=torch.float64, *, grad=False):
    """Value, locations, weights."""
    return [tensor.requires_grad_(grad) for tensor in draw("deform", at, dtype)]


def call(backend, value, shapes, where, weight):
    with ops.use_backend(backend):
        return ops.deform_attn(value, shapes, where, weight)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_the_function(backend):
    at = Sizes(width=2, points=1)

    def function(value, where, weight):
        return call(backend, value, at.shapes, where, weight)

    assert torch.autograd.gradcheck(function, inputs(at, grad=True))


@given(at=sizes())
def test_operator_equals_reference(at):
    answers = []
    torch.manual_seed(at.tokens)
    value, where, weight = inputs(at)
    for backend in BACKENDS:
        leaves = [tensor.clone().requires_grad_() for tensor in (value, where, weight)]
        output = call(backend, leaves[0], at.shapes, *leaves[1:])
        output.square().sum().backward()
        answers.append([output, *(leaf.grad for leaf in leaves)])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
def test_low_precision_values_are_sampled_at_the_precision_of_the_locations(backend):
    at = Sizes(queries=5, width=8)
    value, where, weight = inputs(at, torch.float32)
    low = value.bfloat16().requires_grad_()
    output = call(backend, low, at.shapes, where, weight)
    assert output.dtype == torch.bfloat16
    exact = call(backend, low.detach().float(), at.shapes, where, weight)
    assert torch.equal(output, exact.bfloat16())  # rounded once, at the end
    output.float().sum().backward()
    assert low.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("nothing", ["images", "queries"])
def test_no_query_gives_no_answer(backend, nothing):
    at = Sizes(**{nothing: 0})
    value, where, weight = inputs(at, grad=True)
    output = call(backend, value, at.shapes, where, weight)
    assert output.shape == (at.images, at.queries, at.heads * at.width)
    output.sum().backward()
    assert not value.grad.any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides_do_not_matter(backend):
    at = Sizes(images=2)
    straight = inputs(at)
    strided = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in straight]
    assert not any(tensor.is_contiguous() for tensor in strided)
    results = []
    for value, where, weight in (straight, strided):
        value.requires_grad_()
        output = call(backend, value, at.shapes, where, weight)
        output.transpose(1, 2).contiguous().transpose(1, 2).square().sum().backward()
        results.append((output, value.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_a_sample_in_the_middle_of_a_cell_is_its_value():
    value = torch.arange(6.0).reshape(1, 6, 1, 1)
    where = torch.tensor([[0.5 / 3, 0.25], [2.5 / 3, 0.75]]).reshape(1, 2, 1, 1, 1, 2)
    found = ops.deform_attn(value, ((2, 3),), where, torch.ones(1, 2, 1, 1, 1))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 5.0]))


def test_a_sample_outside_counts_as_zero():
    value = torch.ones(1, 6, 1, 1)
    where = torch.tensor([[-0.5, 0.5], [0.0, 0.5], [0.5, 1.0], [1.0, 1.0]])
    found = ops.deform_attn(
        value, ((2, 3),), where.reshape(1, 4, 1, 1, 1, 2), torch.ones(1, 4, 1, 1, 1)
    )
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 0.5, 0.5, 0.25]))


def test_counted_operations_are_five_multiply_adds_a_sampled_channel():
    at = Sizes(images=2, queries=3, heads=2, width=4, points=2)
    value, where, weight = inputs(at, grad=True)
    sampled = 2 * 3 * 2 * 2 * 2 * 4  # images, queries, heads, levels, points, width
    with FlopCounterMode(display=False) as counter:
        output = call("operator", value, at.shapes, where, weight)
    assert counter.get_total_flops() == 2 * 5 * sampled
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert counter.get_total_flops() == 4 * 5 * sampled


def test_second_derivatives_are_refused_or_right():
    at = Sizes(queries=1, heads=1, width=2, points=1)
    leaves = inputs(at, grad=True)
    output = call("operator", leaves[0], at.shapes, *leaves[1:])
    first = torch.autograd.grad(output.square().sum(), leaves, create_graph=True)
    with pytest.raises(LeanDetrError, match=r"first derivatives only.*use_backend\('reference'\)"):
        first[0].sum().backward()

    def function(value, where, weight):
        return call("reference", value, at.shapes, where, weight)

    assert torch.autograd.gradgradcheck(function, inputs(at, grad=True))


@given(at=sizes())
def test_shapes_survive_the_schema_of_the_operator(at):
    assert paired(flat(at.shapes)) == at.shapes

"""Key-aware deformable attention: its own laws, on both backends."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import sampling_calls
from leandetr import ops
from leandetr.errors import LeanDetrError
from sampling import BACKENDS, Sizes, sizes
from sampling_calls import draw

keys = pytest.mark.parametrize("shared", [True, False], ids=["shared-key", "own-key"])


def inputs(at, shared, dtype=torch.float64, *, grad=False):
    """Query, (own key,) value, locations."""
    drawn = draw("shared-key" if shared else "own-key", at, dtype)
    return [tensor.requires_grad_(grad) for tensor in drawn]


def call(backend, shapes, *given):
    """With three tensors the value is the key."""
    with ops.use_backend(backend):
        return sampling_calls.call("shared-key" if len(given) == 3 else "own-key", shapes, *given)


@keys
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_the_function(backend, shared):
    at = Sizes(width=2, points=1)
    leaves = inputs(at, shared, grad=True)
    assert torch.autograd.gradcheck(lambda *given: call(backend, at.shapes, *given), leaves)


@given(at=sizes(), shared=st.booleans())
def test_operator_equals_reference(at, shared):
    torch.manual_seed(at.tokens)
    drawn, answers = inputs(at, shared), []
    for backend in BACKENDS:
        leaves = [tensor.clone().requires_grad_() for tensor in drawn]
        output = call(backend, at.shapes, *leaves)
        output.square().sum().backward()
        answers.append([output, *(leaf.grad for leaf in leaves)])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_shared_key_is_an_own_key_with_the_same_values(backend):
    at = Sizes()
    query, value, where = inputs(at, shared=True)
    shared = call(backend, at.shapes, query, value, where)
    separate = call(backend, at.shapes, query, value.clone(), value, where)
    torch.testing.assert_close(shared, separate)


@keys
@pytest.mark.parametrize("backend", BACKENDS)
def test_low_precision_values_are_sampled_at_the_precision_of_the_locations(backend, shared):
    at = Sizes(queries=5, width=8)
    *given, where = inputs(at, shared, torch.float32)
    low = [tensor.bfloat16().requires_grad_() for tensor in given]
    output = call(backend, at.shapes, *low, where)
    assert output.dtype == torch.bfloat16
    exact = call(backend, at.shapes, *(tensor.detach().float() for tensor in low), where)
    torch.testing.assert_close(output.float(), exact, atol=0.05, rtol=0.02)
    output.float().sum().backward()
    assert all(tensor.grad.dtype == torch.bfloat16 for tensor in low)


@keys
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("nothing", ["images", "queries"])
def test_no_query_gives_no_answer(backend, nothing, shared):
    at = Sizes(**{nothing: 0})
    leaves = inputs(at, shared, grad=True)
    output = call(backend, at.shapes, *leaves)
    assert output.shape == (at.images, at.queries, at.heads * at.width)
    output.sum().backward()
    assert not any(leaf.grad.any() for leaf in leaves)


@keys
@pytest.mark.parametrize("backend", BACKENDS)
def test_strides_do_not_matter(backend, shared):
    at = Sizes(images=2)
    straight = inputs(at, shared)
    strided = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in straight]
    assert not any(tensor.is_contiguous() for tensor in strided)
    results = []
    for leaves in (straight, strided):
        leaves[0].requires_grad_()
        output = call(backend, at.shapes, *leaves)
        output.transpose(1, 2).contiguous().transpose(1, 2).square().sum().backward()
        results.append((output, leaves[0].grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_weights_follow_the_likeness_of_query_and_key():
    """One query between two cells of the same level, asked for the first."""
    key = torch.tensor([[4.0, 0.0], [0.0, 4.0]]).reshape(1, 2, 1, 2)
    value = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)
    query = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    where = torch.tensor([[0.25, 0.5], [0.75, 0.5]]).reshape(1, 1, 1, 1, 2, 2)
    found = ops.key_aware_attn(query, key, value, ((1, 2),), where)
    expected = torch.tensor([4 / 2**0.5, 0.0]).softmax(dim=0)
    torch.testing.assert_close(found.flatten(), expected)


def test_samples_outside_have_logit_zero_and_stay_in_the_softmax():
    value = torch.ones(1, 1, 1, 1)
    where = torch.tensor([[0.5, 0.5], [-3.0, 0.5]]).reshape(1, 1, 1, 1, 2, 2)
    found = ops.key_aware_attn(torch.zeros(1, 1, 1, 1), value, value, ((1, 1),), where)
    torch.testing.assert_close(found, torch.full((1, 1, 1), 0.5))


@pytest.mark.parametrize(("shared", "multiply_adds"), [(True, 6), (False, 10)])
def test_counted_operations_are_the_documented_ones(shared, multiply_adds):
    at = Sizes(images=2, queries=3, heads=2, width=4, points=2)
    sampled = 2 * 3 * 2 * 2 * 2 * 4  # images, queries, heads, levels, points, width
    leaves = inputs(at, shared, grad=True)
    with FlopCounterMode(display=False) as counter:
        output = call("operator", at.shapes, *leaves)
    assert counter.get_total_flops() == 2 * multiply_adds * sampled
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert counter.get_total_flops() == 4 * multiply_adds * sampled


@keys
def test_second_derivatives_are_refused_or_right(shared):
    at = Sizes(queries=1, heads=1, width=2, points=1)
    leaves = inputs(at, shared, grad=True)
    output = call("operator", at.shapes, *leaves)
    first = torch.autograd.grad(output.square().sum(), leaves, create_graph=True)
    with pytest.raises(LeanDetrError, match="first derivatives only"):
        first[0].sum().backward()

    def function(*given):
        return call("reference", at.shapes, *given)

    assert torch.autograd.gradgradcheck(function, leaves)

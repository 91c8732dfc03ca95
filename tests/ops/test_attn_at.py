"""The fused operators: location arithmetic and softmax inside, on both backends."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from leandetr import ops
from leandetr.ops.reference_at import locate, share_out
from sampling import BACKENDS, Sizes, queries
from sampling_calls import call, draw, value_index

forms = pytest.mark.parametrize("width", [2, 4], ids=["point", "box"])
sharing = pytest.mark.parametrize("shared", [False, True], ids=["own", "shared-offsets"])
kinds = pytest.mark.parametrize("kind", ["deform-at", "shared-key-at", "own-key-at"])


def inputs(at, kind, width=2, *, shared=False):
    """What `run` takes, ready for gradients."""
    drawn = draw(kind, at, wide=width, shared=shared)
    return [tensor.requires_grad_() for tensor in drawn]


def run(kind, backend, at, *given):
    with ops.use_backend(backend):
        return call(kind, at.shapes, *given)


@forms
@sharing
@kinds
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_the_function(backend, kind, width, shared):
    at = Sizes(queries=1, width=2, points=2)
    leaves = inputs(at, kind, width, shared=shared)
    assert torch.autograd.gradcheck(lambda *given: run(kind, backend, at, *given), leaves)


@forms
@sharing
@kinds
def test_operator_equals_reference(kind, width, shared):
    at, answers = Sizes(images=2, queries=3), []
    drawn = inputs(at, kind, width, shared=shared)
    for backend in BACKENDS:
        leaves = [tensor.detach().clone().requires_grad_() for tensor in drawn]
        output = run(kind, backend, at, *leaves)
        output.square().sum().backward()
        answers.append([output, *(leaf.grad for leaf in leaves)])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other)


@forms
def test_fused_is_plain_at_located_points(width):
    at = Sizes(images=2, queries=3)
    value, reference, where, logit = (t.detach() for t in inputs(at, "deform-at", width))
    fused = ops.deform_attn_at(value, at.shapes, reference, where, logit)
    located = locate(reference, where, at.shapes)
    plain = ops.deform_attn(value, at.shapes, located, share_out(logit, at.points))
    torch.testing.assert_close(fused, plain)
    query = queries(at)
    fused = ops.key_aware_attn_at(query, None, value, at.shapes, reference, where)
    plain = ops.key_aware_attn(query, value, value, at.shapes, located)
    torch.testing.assert_close(fused, plain)


@kinds
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reference_at_rest_gets_no_gradient(backend, kind):
    at = Sizes()
    leaves = inputs(at, kind)
    still = value_index(kind) + 1
    leaves[still].requires_grad_(requires_grad=False)
    run(kind, backend, at, *leaves).sum().backward()
    assert [leaf.grad is None for leaf in leaves] == [i == still for i in range(len(leaves))]


@pytest.mark.parametrize(
    ("kind", "multiply_adds"), [("deform-at", 5), ("shared-key-at", 6), ("own-key-at", 10)]
)
def test_counted_operations_are_those_of_the_plain_operators(kind, multiply_adds):
    at = Sizes(images=2, queries=3, heads=2, width=4, points=2)
    sampled = 2 * 3 * 2 * 2 * 2 * 4  # images, queries, heads, levels, points, width
    leaves = inputs(at, kind, shared=True)
    with FlopCounterMode(display=False) as counter:
        output = run(kind, "operator", at, *leaves)
    assert counter.get_total_flops() == 2 * multiply_adds * sampled
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert counter.get_total_flops() == 4 * multiply_adds * sampled

"""The fused operators: location arithmetic and softmax inside, on both backends."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from leandetr import ops
from leandetr.errors import LeanDetrError
from leandetr.ops.deform_attn import flat
from leandetr.ops.reference_at import locate, share_out
from sampling import BACKENDS, Sizes, logits, offsets, queries, references, tokens

forms = pytest.mark.parametrize("width", [2, 4], ids=["point", "box"])
sharing = pytest.mark.parametrize("shared", [False, True], ids=["own", "shared-offsets"])
kinds = pytest.mark.parametrize("kind", ["deform", "shared-key", "own-key"])


def inputs(at, kind, width=2, *, shared=False, dtype=torch.float64):
    """What `call` takes, ready for gradients."""
    where = (references(at, width, dtype), offsets(at, dtype, shared=shared))
    made = {
        "deform": lambda: (tokens(at, dtype), *where, logits(at, dtype)),
        "shared-key": lambda: (queries(at, dtype), tokens(at, dtype), *where),
        "own-key": lambda: (queries(at, dtype), tokens(at, dtype), tokens(at, dtype), *where),
    }[kind]()
    return [tensor.requires_grad_() for tensor in made]


def call(kind, backend, at, *given):
    with ops.use_backend(backend):
        if kind == "deform":
            return ops.deform_attn_at(given[0], at.shapes, *given[1:])
        query, *key, value, reference, where = given
        own = key[0] if key else value
        return ops.key_aware_attn_at(query, own, value, at.shapes, reference, where)


@forms
@sharing
@kinds
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_the_function(backend, kind, width, shared):
    at = Sizes(queries=1, width=2, points=2)
    leaves = inputs(at, kind, width, shared=shared)
    assert torch.autograd.gradcheck(lambda *given: call(kind, backend, at, *given), leaves)


@forms
@sharing
@kinds
def test_operator_equals_reference(kind, width, shared):
    at, answers = Sizes(images=2, queries=3), []
    drawn = inputs(at, kind, width, shared=shared)
    for backend in BACKENDS:
        leaves = [tensor.detach().clone().requires_grad_() for tensor in drawn]
        output = call(kind, backend, at, *leaves)
        output.square().sum().backward()
        answers.append([output, *(leaf.grad for leaf in leaves)])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other)


@forms
def test_fused_is_plain_at_located_points(width):
    at = Sizes(images=2, queries=3)
    value, reference, where, logit = (t.detach() for t in inputs(at, "deform", width))
    fused = ops.deform_attn_at(value, at.shapes, reference, where, logit)
    located = locate(reference, where, at.shapes)
    plain = ops.deform_attn(value, at.shapes, located, share_out(logit, at.points))
    torch.testing.assert_close(fused, plain)
    query = queries(at)
    fused = ops.key_aware_attn_at(query, None, value, at.shapes, reference, where)
    plain = ops.key_aware_attn(query, value, value, at.shapes, located)
    torch.testing.assert_close(fused, plain)


@kinds
def test_operators_keep_the_promises_of_an_operator(kind):
    at, sides, known = Sizes(), flat(Sizes().shapes), torch.ops.leandetr
    if kind == "deform":
        value, *rest = inputs(at, kind)
        given = [value, sides, *rest]
        forward, backward = known.deform_attn_at, known.deform_attn_at_backward
    else:
        query, *key, value, reference, where = inputs(at, kind)
        given = [query, key[0] if key else None, value, sides, reference, where]
        forward, backward = known.key_aware_attn_at, known.key_aware_attn_at_backward
    torch.library.opcheck(forward.default, tuple(given))
    grad = torch.randn(at.images, at.queries, at.heads * at.width, dtype=torch.float64)
    still = [each.detach() if isinstance(each, torch.Tensor) else each for each in given]
    for moves in (True, False):
        torch.library.opcheck(backward.default, (grad, *still, moves))


@kinds
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_reference_at_rest_gets_no_gradient(backend, kind):
    at = Sizes()
    leaves = inputs(at, kind)
    still = 1 if kind == "deform" else len(leaves) - 2
    leaves[still].requires_grad_(requires_grad=False)
    call(kind, backend, at, *leaves).sum().backward()
    assert [leaf.grad is None for leaf in leaves] == [i == still for i in range(len(leaves))]


@kinds
def test_second_derivatives_are_refused(kind):
    leaves = inputs(Sizes(), kind)
    output = call(kind, "operator", Sizes(), *leaves)
    first = torch.autograd.grad(output.square().sum(), leaves, create_graph=True)
    with pytest.raises(LeanDetrError, match="first derivatives only"):
        first[0].sum().backward()


@pytest.mark.parametrize(
    ("kind", "multiply_adds"), [("deform", 5), ("shared-key", 6), ("own-key", 10)]
)
def test_counted_operations_are_those_of_the_plain_operators(kind, multiply_adds):
    at = Sizes(images=2, queries=3, heads=2, width=4, points=2)
    sampled = 2 * 3 * 2 * 2 * 2 * 4  # images, queries, heads, levels, points, width
    leaves = inputs(at, kind, shared=True)
    with FlopCounterMode(display=False) as counter:
        output = call(kind, "operator", at, *leaves)
    assert counter.get_total_flops() == 2 * multiply_adds * sampled
    with FlopCounterMode(display=False) as counter:
        output.sum().backward()
    assert counter.get_total_flops() == 4 * multiply_adds * sampled

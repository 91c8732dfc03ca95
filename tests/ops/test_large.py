"""Tensors of more than 2^31 elements, most of which nobody touches: `make test-slow` only.

Memory that was asked for and never written to costs nothing; what is written is at the far end.
"""

import psutil
import pytest
import torch

from sampling import Sizes
from sampling_calls import VARIANTS, call, draw, running, value_index

BILLIONS = 2**31
LAST = Sizes(queries=3, heads=2, width=32, points=2, shapes=((1, 1), (3, 4)))
"""What is looked at of a map whose first level is huge: its second level."""
HUGE = ((8192, 4096), (3, 4))
pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(not VARIANTS, reason="the CPU kernels are not built"),
]
variants = pytest.mark.parametrize("variant", VARIANTS)
best = VARIANTS[-1:]


def need(gibibytes):
    """Skip where other programs would be driven out of memory."""
    free = psutil.virtual_memory().available / 2**30
    if free < gibibytes:
        pytest.skip(f"needs {gibibytes} GiB of free memory; there are {free:.0f}")


def look_past_the_first_level(kind, drawn):
    last = value_index(kind)
    past = drawn[last + 1] if kind.endswith("-at") else drawn[last + 1].transpose(2, 3)
    past[:, :, 0] = 7.0


def enlarged(maps):
    """The same map with a huge first level."""
    tokens = HUGE[0][0] * HUGE[0][1]
    whole = torch.empty(1, tokens + 12, *maps.shape[2:], dtype=maps.dtype)
    assert whole[:, :tokens].numel() >= BILLIONS
    whole[:, tokens:] = maps[:, 1:]
    return whole


@pytest.mark.parametrize(
    ("variant", "kind"),
    [
        *((variant, kind) for variant in VARIANTS for kind in ("deform", "shared-key")),
        *((variant, kind) for variant in best for kind in ("deform-at", "shared-key-at")),
    ],
)
def test_values(variant, kind):
    need(8)
    drawn = draw(kind, LAST, torch.float32)
    last = value_index(kind)
    drawn[last] = drawn[last].bfloat16()
    look_past_the_first_level(kind, drawn)
    with running(variant):
        wanted = call(kind, LAST.shapes, *drawn)
        drawn[last] = enlarged(drawn[last])
        found = call(kind, HUGE, *drawn)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("variant", best)
@pytest.mark.parametrize("kind", ["deform", "shared-key"])
def test_gradients_of_values(variant, kind):
    need(14)
    drawn = draw(kind, LAST, torch.float32)
    last = value_index(kind)
    look_past_the_first_level(kind, drawn)
    grads = []
    with running(variant):
        for shapes in (LAST.shapes, HUGE):
            given = list(drawn)
            if shapes == HUGE:
                given[last] = enlarged(given[last])
            leaves = [tensor.detach().requires_grad_() for tensor in given]
            call(kind, shapes, *leaves).square().sum().backward()
            grads.append([leaf.grad for leaf in leaves])
    by_value = [each.pop(last) for each in grads]
    assert torch.equal(by_value[1][:, -12:], by_value[0][:, 1:])
    assert not by_value[1][:, :-12:4093].any()
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


@variants
def test_locations(variant):
    """Many queries of one head: the last one looks where nobody else does."""
    need(10)
    few = Sizes(queries=1, heads=1, width=1, points=64, shapes=((5, 5),))
    value, where, weight = draw("deform", few, torch.float32)
    count = 2**24 + 1
    places = torch.empty(1, count, 1, 1, 64, 2, dtype=torch.bfloat16)
    shares = torch.empty(1, count, 1, 1, 64, dtype=torch.bfloat16)
    assert places.numel() > BILLIONS
    places[:, -1], shares[:, -1] = where[:, 0], weight[:, 0]
    with running(variant):
        wanted = call("deform", few.shapes, value, places[:, -1:], shares[:, -1:])
        found = call("deform", few.shapes, value, places, shares)
    assert torch.equal(found[:, -1:], wanted)


@variants
def test_answers(variant):
    """The last query's answer lies beyond the billions."""
    need(10)
    few = Sizes(queries=1, heads=1, width=32, points=1, shapes=((5, 5),))
    value, where, weight = (t.bfloat16() for t in draw("deform", few, torch.float32))
    count = 2**26 + 1
    places = where.expand(1, count, 1, 1, 1, 2).clone()
    shares = torch.empty(1, count, 1, 1, 1, dtype=torch.bfloat16)
    shares[:, 0], shares[:, -1] = 0.5, weight[:, 0]
    with running(variant):
        wanted = call("deform", few.shapes, value, where, weight)
        found = call("deform", few.shapes, value, places, shares)
    assert found.numel() > BILLIONS
    assert torch.equal(found[:, -1:], wanted)

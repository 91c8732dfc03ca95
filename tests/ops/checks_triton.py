"""The Triton kernels against the reference: what `test_triton.py` runs in a process of its own.

With TRITON_INTERPRET=1 Triton's interpreter runs the kernels on the CPU, some hundred thousand
times slower than a GPU: sizes are tiny, and all but the tiniest are `make test-slow`. Without it
the same table runs on a GPU, and more.
"""

import os

import pytest
import torch

from golden_data import cases, load_case
from leandetr import ops
from leandetr.ops import reference, triton_deform, triton_key_aware, triton_launch
from sampling import Sizes, locations, queries, tokens, weights

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
TINY = Sizes(queries=3, heads=1, width=3, points=1)
TABLE = {
    "tiny": TINY,
    "odd": Sizes(queries=17, heads=2, width=3, points=2),
    "one-level": Sizes(images=2, queries=5, heads=1, width=8, points=3, shapes=((5, 3),)),
    "wide-heads": Sizes(queries=2, heads=1, width=96, points=1, shapes=((4, 4), (2, 2), (1, 1))),
}
GPU_TABLE = {
    f"width-{width}": Sizes(2, 300, 8, width, 4, ((25, 34), (13, 17), (7, 9), (4, 5)))
    for width in (16, 24, 32, 64, 128)
}
FORMS = ("ready", "points", "boxes", "shared-offsets")
pytestmark = pytest.mark.filterwarnings(  # NumPy warns where a GPU just yields some number
    "ignore:invalid value encountered:RuntimeWarning"
)
gpu_only = pytest.mark.skipif(INTERPRETED, reason="the interpreter is no GPU")
SIZES = TABLE if INTERPRETED else TABLE | GPU_TABLE


def sized(**known):
    """Runs a test at each size; the interpreter usually at the first only."""
    slow = [pytest.mark.exhaustive] if INTERPRETED else []
    rows = [
        pytest.param(at, id=name, marks=slow if number else [])
        for number, (name, at) in enumerate(known.items())
    ]
    return pytest.mark.parametrize("at", rows)


table = sized(**SIZES)


@pytest.fixture(autouse=True)
def _device():
    with torch.device(DEVICE):
        torch.manual_seed(0)
        yield


def located(shapes, around, offsets):
    """The arithmetic of Deformable DETR, written once more."""
    centre, size = around[:, :, None, :, None, :2], around[:, :, None, :, None, 2:]
    if around.shape[-1] == 2:
        sides = torch.tensor([[w, h] for h, w in shapes], dtype=offsets.dtype)
        return centre + offsets / sides[:, None]
    return centre + offsets / offsets.shape[4] * size * 0.5


def around(at, form, dtype):
    """Reference points or boxes, and offsets from them."""
    wide = 4 if form == "boxes" else 2
    own = 1 if form == "shared-offsets" else len(at.shapes)
    points = torch.rand(at.images, at.queries, len(at.shapes), wide, dtype=dtype)
    return points, torch.randn(at.images, at.queries, at.heads, own, at.points, 2, dtype=dtype)


def deform(at, form, dtype=torch.float64):
    """Kernels, their reference, and inputs of `deform_attn` in one of its forms."""
    value = tokens(at, dtype)
    if form == "ready":
        given = (value, locations(at, dtype), weights(at, dtype))
        kernels = (triton_deform.forward, triton_deform.backward)
        return kernels, lambda v, *rest: reference.deform_attn(v, at.shapes, *rest), given

    def expected(value, points, offsets, logits):
        shares = logits.softmax(-1).unflatten(-1, (len(at.shapes), at.points))
        return reference.deform_attn(value, at.shapes, located(at.shapes, points, offsets), shares)

    logits = 3 * torch.randn(
        at.images, at.queries, at.heads, len(at.shapes) * at.points, dtype=dtype
    )
    kernels = (triton_deform.forward_at, triton_deform.backward_at)
    return kernels, expected, (value, *around(at, form, dtype), logits)


def key_aware(at, form, shared, dtype=torch.float64):
    """The same of `key_aware_attn`; a shared key is None."""
    key = None if shared else tokens(at, dtype)
    given = (queries(at, dtype), key, tokens(at, dtype))
    if form == "ready":

        def expected(query, key, value, places):
            own = value if key is None else key
            return reference.key_aware_attn(query, own, value, at.shapes, places)

        kernels = (triton_key_aware.forward, triton_key_aware.backward)
        return kernels, expected, (*given, locations(at, dtype))

    def expected_at(query, key, value, points, offsets):
        own, places = value if key is None else key, located(at.shapes, points, offsets)
        return reference.key_aware_attn(query, own, value, at.shapes, places)

    kernels = (triton_key_aware.forward_at, triton_key_aware.backward_at)
    return kernels, expected_at, (*given, *around(at, form, dtype))


def compare(at, kernels, expected, given, *, first, **close):
    """Output and all gradients; `first` inputs come before the shapes."""
    forward, backward = kernels
    arguments = (*given[:first], at.shapes, *given[first:])
    leaves = [None if t is None else t.detach().clone().requires_grad_() for t in given]
    answer = expected(*leaves)
    grad = torch.randn_like(answer)
    torch.testing.assert_close(forward(*arguments), answer.detach(), **close)
    wanted = torch.autograd.grad(answer, [leaf for leaf in leaves if leaf is not None], grad)
    grads = zip(backward(grad, *arguments), leaves, strict=True)
    found = [one for one, leaf in grads if leaf is not None]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, **close)


@table
@pytest.mark.parametrize("form", FORMS)
def test_deform_attn_equals_reference(at, form):
    compare(at, *deform(at, form), first=1)


@table
@pytest.mark.parametrize("shared", [True, False], ids=["shared-key", "own-key"])
@pytest.mark.parametrize("form", ["ready", "points", "boxes"])
def test_key_aware_attn_equals_reference(at, form, shared):
    compare(at, *key_aware(at, form, shared), first=3)


@sized(tiny=TINY, one_level=TABLE["one-level"])
def test_single_precision_is_as_good_as_the_reference(at):
    compare(at, *deform(at, "boxes", torch.float32), first=1)
    compare(at, *key_aware(at, "points", True, torch.float32), first=3)


@sized(tiny=TINY, usual=Sizes(queries=5, heads=2, width=8))
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_is_rounded_once_at_the_end(low, at):
    value, where, weight = (t.to(low) for t in (tokens(at), locations(at), weights(at)))
    where = where.float()
    exact = reference.deform_attn(value.float(), at.shapes, where, weight.float())
    found = triton_deform.forward(value, at.shapes, where, weight)
    assert found.dtype == low
    torch.testing.assert_close(found, exact.to(low))
    grads = triton_deform.backward(found, value, at.shapes, where, weight)
    wanted = reference.deform_attn_backward(
        found.float(), value.float(), at.shapes, where, weight.float()
    )
    for one, other, given in zip(grads, wanted, (value, where, weight), strict=True):
        assert one.dtype == given.dtype
        torch.testing.assert_close(one, other.to(one.dtype))


@sized(tiny=TINY, usual=Sizes(queries=3, heads=1, width=8))
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
def test_key_aware_attn_in_low_precision(low, at):
    query, value, where = (t.to(low) for t in (queries(at), tokens(at), locations(at)))
    single = value.float()
    exact = reference.key_aware_attn(query.float(), single, single, at.shapes, where.float())
    found = triton_key_aware.forward(query, None, value, at.shapes, where)
    assert found.dtype == low
    torch.testing.assert_close(found, exact.to(low))
    grads = triton_key_aware.backward(found, query, None, value, at.shapes, where)
    assert [grads[i].dtype for i in (0, 2, 3)] == 3 * [low]
    wanted = reference.key_aware_attn_backward(
        found.float(), query.float(), None, single, at.shapes, where.float()
    )
    for index in (0, 2, 3):
        torch.testing.assert_close(grads[index], wanted[index].to(low), atol=1e-3, rtol=1e-2)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", cases("ops/*"))
def test_golden(name):
    t = {key: tensor.to(DEVICE) for key, tensor in load_case(name).tensors.items()}
    if INTERPRETED and t["output"].numel() > 500:
        pytest.skip("too large for the interpreter; a GPU runs it")
    shapes = tuple((int(h), int(w)) for h, w in t["spatial_shapes"])
    given = (t["value"], shapes, t["sampling_locations"], t["attention_weights"])
    found = triton_deform.forward(*given)
    torch.testing.assert_close(found, t["output"], atol=1e-5, rtol=0)
    if "grad_output" in t:
        grads = triton_deform.backward(t["grad_output"], *given)
        names = ("value", "sampling_locations", "attention_weights")
        for one, key in zip(grads, names, strict=True):
            torch.testing.assert_close(one, t[f"grad_{key}"], atol=1e-4, rtol=1e-4)


def test_nothing_outside_is_ever_read():
    """Every value infinite: samples out of reach, on the border and lost are still zero."""
    value = torch.full((1, 6, 1, 4), torch.inf)
    lost = 9.0 if INTERPRETED else torch.nan  # which the interpreter cannot clamp
    far = [[-0.5, 0.5], [1e30, 0.5], [0.5, -1e30], [torch.inf, 0.5], [0.5, lost], [2.0, 2.0]]
    where = torch.tensor(far).reshape(1, 1, 1, 1, 6, 2)
    found = triton_deform.forward(value, ((2, 3),), where, torch.ones(1, 1, 1, 1, 6))
    assert torch.equal(found, torch.zeros(1, 1, 4))
    asked = torch.ones(1, 1, 1, 4)
    assert torch.equal(triton_key_aware.forward(asked, None, value, ((2, 3),), where), found)


def test_infinite_values_come_through_as_in_the_reference():
    """What a sample touches counts, whatever its weight: zero times infinity is no number."""
    value = torch.ones(1, 6, 1, 1)
    value[0, 1] = torch.inf
    where = torch.tensor([[1.0 / 3, 0.25], [2.5 / 3, 0.25], [-4.0, 0.25]])
    where = where.reshape(1, 3, 1, 1, 1, 2)
    for weight in (torch.ones(1, 3, 1, 1, 1), torch.zeros(1, 3, 1, 1, 1)):
        found = triton_deform.forward(value, ((2, 3),), where, weight)
        wanted = reference.deform_attn(value, ((2, 3),), where, weight)
        torch.testing.assert_close(found, wanted, equal_nan=True)


@pytest.mark.parametrize("nothing", ["images", "queries"])
def test_no_query_gives_no_answer(nothing):
    at = Sizes(**{nothing: 0})
    compare(at, *deform(at, "ready"), first=1)
    compare(at, *deform(at, "boxes"), first=1)
    compare(at, *key_aware(at, "points", True), first=3)
    compare(at, *key_aware(at, "ready", False), first=3)


def test_a_level_without_pixels_holds_zeros():
    full, bare = Sizes(shapes=((3, 4),), points=2), Sizes(shapes=((3, 4), (0, 5)), points=1)
    value, where, weight = tokens(full), locations(full), weights(full)
    inside = where[:, :, :, :, :1]
    wanted = reference.deform_attn(value, full.shapes, inside, weight[..., :1])
    both = torch.cat((inside, inside), dim=3)
    shares = torch.cat((weight[..., :1], weight[..., 1:]), dim=3)
    torch.testing.assert_close(triton_deform.forward(value, bare.shapes, both, shares), wanted)
    grads = triton_deform.backward(wanted, value, bare.shapes, both, shares)
    assert not grads[1][:, :, :, 1].any()
    assert not grads[2][:, :, :, 1].any()
    assert grads[1].isfinite().all()


@sized(tiny=Sizes(images=2, queries=1, heads=1, points=1), usual=Sizes(images=2))
def test_strides_do_not_matter(at):
    kernels, expected, given = deform(at, "points")
    strided = [t.transpose(0, -1).contiguous().transpose(0, -1) for t in given]
    assert not any(t.is_contiguous() for t in strided)
    compare(at, kernels, expected, strided, first=1)
    kernels, expected, given = key_aware(at, "ready", False)
    strided = [t.transpose(0, -1).contiguous().transpose(0, -1) for t in given]
    compare(at, kernels, expected, strided, first=3)


@sized(tiny=TINY, usual=Sizes(images=2, heads=1, points=1))
def test_wide_offsets_lead_to_the_same_places(monkeypatch, at):
    monkeypatch.setattr(triton_launch, "SMALL", 0)
    compare(at, *deform(at, "boxes"), first=1)
    compare(at, *key_aware(at, "points", False), first=3)


@sized(
    tiny=Sizes(queries=6, heads=1, width=4, points=1, shapes=((2, 2),)),
    usual=Sizes(queries=12, heads=1, width=4, shapes=((2, 2),)),
)
def test_ordered_sums_know_no_order(monkeypatch, at):
    """Asked for determinism, the value's gradient is the same to the bit, whoever comes first."""
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    order = torch.randperm(at.queries)
    value, where, weight = (t.float() for t in (tokens(at), locations(at), weights(at)))
    grad = torch.randn(1, at.queries, 4)
    straight = triton_deform.backward(grad, value, at.shapes, where, weight)
    shuffled = triton_deform.backward(
        grad[:, order], value, at.shapes, where[:, order], weight[:, order]
    )
    assert torch.equal(straight[0], shuffled[0])
    wanted = reference.deform_attn_backward(grad, value, at.shapes, where, weight)
    torch.testing.assert_close(straight, wanted)
    compare(at, *key_aware(at, "boxes", True), first=3)
    compare(at, *key_aware(at, "ready", False), first=3)
    grad[0, 3, 1] = torch.nan
    lost = triton_deform.backward(grad, value, at.shapes, where, weight)
    assert lost[0].isnan().all()


@gpu_only
@pytest.mark.parametrize("shared", [True, False], ids=["shared-key", "own-key"])
def test_operators_choose_the_kernels(shared):
    """Through the public functions: dispatch, autograd and gradients against the reference."""
    at = GPU_TABLE["width-32"]
    answers = []
    value, key, query = tokens(at), tokens(at), queries(at)
    where, weight = locations(at), weights(at)
    for backend in ("auto", "reference"):
        leaves = [t.detach().clone().requires_grad_() for t in (value, key, query, where, weight)]
        with ops.use_backend(backend):
            one = ops.deform_attn(leaves[0], at.shapes, *leaves[3:])
            own = leaves[0] if shared else leaves[1]
            two = ops.key_aware_attn(leaves[2], own, leaves[0], at.shapes, leaves[3])
        (one.square().sum() + two.square().sum()).backward()
        answers.append([one, two, *(leaf.grad for leaf in leaves if leaf.grad is not None)])
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other)


@gpu_only
def test_more_values_than_32_bits_count():
    """A value of 2^31 elements and some, whose last image is read right."""
    images, shapes = 65, ((1024, 1024),)
    value = torch.zeros(images, 1024 * 1024, 1, 32, dtype=torch.bfloat16)
    assert value.numel() > 2**31
    value[-1] = torch.randn_like(value[-1])
    where, weight = torch.rand(images, 7, 1, 1, 3, 2), torch.rand(images, 7, 1, 1, 3)
    found = triton_deform.forward(value, shapes, where, weight)
    wanted = reference.deform_attn(value[-1:], shapes, where[-1:], weight[-1:])
    torch.testing.assert_close(found[-1:], wanted)
    assert not found[:-1].any()

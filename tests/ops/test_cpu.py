"""The CPU kernels: every instruction set that runs here against the reference."""

import multiprocessing

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sampling_calls
from leandetr import ops
from leandetr.errors import LeanDetrError
from leandetr.ops import backend, cpu, pool
from leandetr.ops.cpu_library import Library
from sampling import Sizes, locations, sizes, tokens, weights
from sampling_calls import VARIANTS, call

pytestmark = pytest.mark.skipif(cpu.LIBRARY is None, reason="the CPU kernels are not built")
KINDS = ("deform", "deform-at", "shared-key", "own-key", "shared-key-at")
TABLE = {
    "usual": Sizes(queries=7, width=32, points=4, shapes=((7, 5), (4, 3), (2, 2), (1, 1))),
    "narrow": Sizes(images=2, queries=3, width=1, points=1),
    "odd": Sizes(images=2, queries=5, heads=3, width=11, points=3),
    "compiled-16": Sizes(queries=40, width=16, shapes=((3, 3),)),
    "compiled-64": Sizes(queries=40, width=64, shapes=((3, 3),)),
    "wide": Sizes(queries=4, width=80),
    "few-queries": Sizes(queries=1, width=32, shapes=((20, 30),)),
    "empty-level": Sizes(queries=3, width=32, shapes=((3, 2), (0, 4), (2, 0))),
    "no-queries": Sizes(queries=0, width=32),
}


@pytest.fixture(params=VARIANTS or ("none",))
def variant(request, monkeypatch):
    monkeypatch.setattr(cpu.LIBRARY, "variant", request.param)
    return request.param


def draw(kind, at, dtype):
    """The tensors of a call; one kind is inside boxes with shared offsets, the rest is plain."""
    boxes = kind == "deform-at"
    return sampling_calls.draw(kind, at, dtype, wide=4 if boxes else 2, shared=boxes)


def answers(name, kind, shapes, drawn):
    """Output and gradients."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in drawn]
    with ops.use_backend(name):
        output = call(kind, shapes, *leaves)
    generator = torch.Generator().manual_seed(1)
    pull = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    output.backward(pull.to(output.dtype))
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def compare(kind, at, dtype, **tolerance):
    """Kernel in `dtype` against the reference in double precision."""
    drawn = [tensor.to(dtype) for tensor in draw(kind, at, torch.float64)]
    exact = answers("reference", kind, at.shapes, [tensor.double() for tensor in drawn])
    for one, other in zip(answers("auto", kind, at.shapes, drawn), exact, strict=True):
        assert one.dtype == dtype
        scale = 1 + (other.abs().max() if other.numel() else 0)
        torch.testing.assert_close(one.double() / scale, other / scale, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("case", TABLE)
@pytest.mark.parametrize("kind", KINDS)
def test_kernel_equals_reference(variant, kind, case, dtype):
    tolerance = 1e-12 if dtype == torch.float64 else 3e-5
    compare(kind, TABLE[case], dtype, atol=tolerance, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@given(at=sizes(), width=st.integers(1, 70))
def test_kernel_equals_reference_at_any_size(kind, at, width):
    at = Sizes(at.images, at.queries, at.heads, width, at.points, at.shapes)
    compare(kind, at, torch.float64, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", ["usual", "odd", "wide"])
@pytest.mark.parametrize("kind", ["deform", "shared-key", "own-key"])
def test_low_precision_storage_costs_rounding_only(variant, kind, case, dtype):
    """Locations stay single: a cell has fewer steps in half precision than the comparison."""
    at = TABLE[case]
    drawn = draw(kind, at, torch.float32)
    low = [*(tensor.to(dtype) for tensor in drawn[:-1]), drawn[-1]]
    if kind == "deform":
        low[1] = drawn[1]
    exact = answers("reference", kind, at.shapes, [tensor.double() for tensor in low])
    for one, other in zip(answers("auto", kind, at.shapes, low), exact, strict=True):
        scale = 1 + other.abs().max()
        torch.testing.assert_close(one.double() / scale, other / scale, atol=1e-2, rtol=0)


@pytest.mark.parametrize("strange", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
@pytest.mark.parametrize("kind", ["deform", "shared-key", "own-key"])
def test_strange_locations_stay_inside_memory_and_answer_as_the_reference(variant, kind, strange):
    at = TABLE["usual"]
    drawn = list(draw(kind, at, torch.float32))
    where = 1 if kind == "deform" else -1
    drawn[where][0, 2, 0, 1, 2, 0] = strange
    one = answers("auto", kind, at.shapes, drawn)
    other = answers("reference", kind, at.shapes, drawn)
    torch.testing.assert_close(one[0], other[0], equal_nan=True, atol=1e-5, rtol=1e-5)
    assert one[0][0, 2].isnan().any() == (abs(strange) != 1e30)
    assert one[0][0, 3].isfinite().all()


def test_infinite_values_outside_the_samples_do_no_harm(variant):
    at = Sizes(queries=2, width=32, shapes=((4, 4), (2, 2)))
    value, where, weight = draw("deform", at, torch.float32)
    value[:, :16] = torch.inf  # the first level
    where[..., 0, :, :] = 7.0  # is looked past
    output = ops.deform_attn(value, at.shapes, where, weight)
    assert output.isfinite().all()


@pytest.fixture
def two_threads(monkeypatch):
    """Every call on two threads, however small."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(pool, "SMALL", 0)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("queries", "images"), [(64, 1), (3, 1), (3, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_one_thread_and_two_agree_to_the_last_bit(two_threads, variant, kind, queries, images):
    """Few queries leave the rows where they are, and share out heads or images."""
    at = Sizes(images, queries, heads=3, width=32, points=4, shapes=((9, 9), (5, 5)))
    drawn, found = draw(kind, at, torch.float32), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(answers("auto", kind, at.shapes, drawn))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def _sum_in_child(at, drawn, queue):
    queue.put(ops.deform_attn(drawn[0], at.shapes, *drawn[1:]).sum().item())


def test_a_forked_process_can_use_the_kernels(two_threads):
    at = Sizes(queries=64, heads=4, width=32, points=4, shapes=((9, 9), (5, 5)))
    drawn = draw("deform", at, torch.float32)
    expected = ops.deform_attn(drawn[0], at.shapes, *drawn[1:]).sum().item()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_sum_in_child, args=(at, drawn, queue))
    child.start()
    assert queue.get(timeout=60) == pytest.approx(expected)
    child.join(timeout=60)
    assert child.exitcode == 0


def test_autocast_reaches_the_kernels():
    at = Sizes(queries=3, width=8)
    value, where, weight = draw("deform", at, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = torch.nn.functional.linear(value, torch.eye(8))
        output = ops.deform_attn(projected, at.shapes, where, weight)
    assert output.dtype == torch.bfloat16
    exact = ops.deform_attn(value, at.shapes, where, weight)
    torch.testing.assert_close(output.float(), exact, atol=0.03, rtol=0.03)


def test_sizes_that_do_not_fit_are_refused_before_memory_is_touched():
    at = Sizes(queries=3)
    value, where, weight = draw("deform", at, torch.float32)
    with pytest.raises(LeanDetrError, match="do not add up to the tokens"):
        cpu.KERNELS["deform_attn"](value, [30, 40, 2, 1], where, weight)
    with pytest.raises(LeanDetrError, match="expected weights of shape"):
        cpu.KERNELS["deform_attn"](value, [3, 4, 2, 1], where, weight[:, :2])


@pytest.mark.parametrize("numbers", [0, 1, 3, 5])
@pytest.mark.parametrize("kind", ["deform-at", "shared-key-at"])
def test_references_that_are_no_points_and_no_boxes_are_refused(variant, kind, numbers):
    """A kernel that reads two numbers where there is one reads past the end of the tensor."""
    at = Sizes(queries=3)
    drawn = draw(kind, at, torch.float32)
    place = sampling_calls.value_index(kind) + 1
    drawn[place] = torch.rand(*drawn[place].shape[:-1], numbers)
    with pytest.raises(LeanDetrError, match=rf"2 numbers .* or 4 .*; got {numbers} in shape"):
        call(kind, at.shapes, *drawn)


def test_offsets_of_other_levels_are_refused_by_their_name():
    at = Sizes(queries=3)
    value, where, weight = draw("deform", at, torch.float32)
    with pytest.raises(LeanDetrError, match=r"locations or offsets for 2 levels; got 1 in shape"):
        cpu.KERNELS["deform_attn"](value, [3, 4, 2, 1], where[:, :, :, :1], weight)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64])
def test_numbers_that_kernels_cannot_read_are_refused_by_their_name(dtype):
    at = Sizes(queries=3)
    value, where, weight = draw("deform", at, torch.float32)
    with pytest.raises(LeanDetrError, match=f"float32, .* got .* in {str(dtype)[6:]}"):
        cpu.KERNELS["deform_attn"](value.to(dtype), [3, 4, 2, 1], where, weight)


def test_an_instruction_set_can_be_asked_for(monkeypatch):
    assert cpu.LIBRARY is not None
    monkeypatch.setenv("LEANDETR_CPU_VARIANT", "generic")
    assert Library(cpu.LIBRARY.path).variant == "generic"
    monkeypatch.setenv("LEANDETR_CPU_VARIANT", "mmx")
    with pytest.raises(LeanDetrError, match=r"one of generic.*got 'mmx'"):
        Library(cpu.LIBRARY.path)


def test_without_a_library_the_first_use_warns_once(monkeypatch, caplog):
    monkeypatch.setattr(cpu, "LIBRARY", None)
    monkeypatch.setattr(backend, "KERNEL_DEVICES", set())
    monkeypatch.setattr(backend, "MISSING", cpu.MISSING)
    cpu.register()
    at = Sizes()
    for _ in range(2):
        ops.deform_attn(tokens(at), at.shapes, locations(at), weights(at))
    assert [record.message for record in caplog.records] == [cpu.ON_REFERENCE]

"""The numba kernels, which run where the built library is missing, against the reference.

The first run compiles them for a minute or two.
"""

import pytest
import torch

from leandetr import ops
from leandetr.errors import LeanDetrError
from leandetr.ops import backend, cpu, numba_library, pool
from sampling import Sizes, locations, tokens, weights
from sampling_calls import answers, draw, kinds

pytestmark = pytest.mark.skipif(
    not numba_library.is_installed(), reason="numba is not installed: pip install numba"
)

CASES = {
    "usual": Sizes(queries=7, width=32, points=4, shapes=((7, 5), (4, 3), (2, 2), (1, 1))),
    "odd": Sizes(images=2, queries=5, heads=3, width=11, points=3),
    "few-queries": Sizes(queries=1, width=32, shapes=((20, 30),)),
    "empty-level": Sizes(queries=3, shapes=((3, 2), (0, 4), (2, 0))),
    "no-queries": Sizes(queries=0),
    "no-images": Sizes(images=0),
}


@pytest.fixture(autouse=True)
def _on_numba(monkeypatch):
    monkeypatch.setattr(cpu, "LIBRARY", numba_library.NumbaLibrary())


def compare(kind, at, drawn, tolerance):
    exact = answers("reference", kind, at.shapes, [tensor.double() for tensor in drawn])
    for one, other in zip(answers("numba", kind, at.shapes, drawn), exact, strict=True):
        scale = 1 + (other.abs().max() if other.numel() else 0)
        torch.testing.assert_close(one.double() / scale, other / scale, atol=tolerance, rtol=0)


@kinds
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("wide", [2, 4])
def test_numba_equals_reference(kind, case, wide):
    at = CASES[case]
    compare(kind, at, draw(kind, at, wide=wide, shared=wide == 4), 1e-12)


@kinds
def test_single_and_half_precision_cost_rounding_only(kind):
    at = CASES["usual"]
    drawn = draw(kind, at, torch.float32)
    compare(kind, at, drawn, 3e-5)
    low = [tensor.bfloat16() for tensor in drawn]
    exact = answers("numba", kind, at.shapes, [tensor.float() for tensor in low])[0]
    assert torch.equal(answers("numba", kind, at.shapes, low)[0], exact.bfloat16())


@kinds
def test_two_threads_answer_as_one(kind, monkeypatch):
    monkeypatch.setattr(pool, "SMALL", 0)
    at, found, before = CASES["odd"], [], torch.get_num_threads()
    drawn = draw(kind, at)
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(answers("numba", kind, at.shapes, drawn))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("strange", [float("nan"), float("inf"), 1e30, -1e30])
def test_strange_locations_stay_inside_memory_and_answer_as_the_reference(strange):
    at = CASES["usual"]
    value, where, weight = draw("deform", at)
    where[0, 2, 0, 1, 2, 0] = strange
    output = ops.deform_attn(value, at.shapes, where, weight)
    with ops.use_backend("reference"):
        exact = ops.deform_attn(value, at.shapes, where, weight)
    torch.testing.assert_close(output, exact, equal_nan=True)


def test_infinite_values_outside_the_samples_do_no_harm():
    at = Sizes(queries=2, width=32, shapes=((4, 4), (2, 2)))
    value, where, weight = draw("deform", at)
    value[:, :16] = torch.inf  # the first level
    where[..., 0, :, :] = 7.0  # is looked past
    assert ops.deform_attn(value, at.shapes, where, weight).isfinite().all()


def test_sizes_that_do_not_fit_are_refused():
    at = Sizes(queries=3)
    value, where, weight = draw("deform", at)
    with pytest.raises(LeanDetrError, match="do not add up to the tokens"):
        cpu.KERNELS["deform_attn"](value, [30, 40, 2, 1], where, weight)


def test_the_first_use_says_once_what_is_slower(monkeypatch, caplog):
    monkeypatch.setattr(backend, "KERNEL_DEVICES", set())
    monkeypatch.setattr(backend, "MISSING", cpu.MISSING)
    monkeypatch.setattr(cpu, "register_kernel", lambda *_: None)
    cpu.register()
    at = Sizes()
    for _ in range(2):
        ops.deform_attn(tokens(at), at.shapes, locations(at), weights(at))
    assert [record.message for record in caplog.records] == [cpu.ON_NUMBA]


def test_without_a_folder_to_keep_code_in_it_is_compiled_anyway(monkeypatch):
    """A read-only file system: numba raises as soon as it is asked to keep anything."""
    from numba.core import caching

    from leandetr.ops import numba_kernels

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    assert numba_kernels.compiled(lambda number: number + 1)(1) == 2

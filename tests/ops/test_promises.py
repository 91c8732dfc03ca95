"""What PyTorch asks of an operator: every operator, every way of running it."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from leandetr import ops
from leandetr.errors import LeanDetrError
from sampling import BACKENDS, Sizes
from sampling_calls import (
    VARIANTS,
    WAYS,
    answers,
    call,
    draw,
    kinds,
    operator,
    running,
    value_index,
    ways,
)

SMALL = Sizes(width=2, points=1)
CALLS = {
    "usual": Sizes(),
    "no-images": Sizes(images=0),
    "no-queries": Sizes(queries=0),
    "no-cells": Sizes(shapes=((0, 3), (2, 2))),
    "half": Sizes(),
    "turned": Sizes(images=2),
}
backends = pytest.mark.parametrize("backend", BACKENDS)
kernels = pytest.mark.parametrize("way", ["written-out", *VARIANTS[-1:]])


def operators(kind, at, drawn):
    """Both custom operators of a kind, each with what it takes."""
    name, given = operator(kind, at.shapes, *drawn)
    known = torch.ops.leandetr
    yield getattr(known, name).default, given
    still = [each.detach() if isinstance(each, torch.Tensor) else each for each in given]
    grad = torch.randn(at.images, at.queries, at.heads * at.width).to(drawn[0].dtype)
    for moves in ((True,), (False,)) if kind.endswith("-at") else ((),):
        yield getattr(known, f"{name}_backward").default, [grad, *still, *moves]


@kinds
@pytest.mark.parametrize("way", WAYS[-1:])
def test_operators_keep_the_promises_of_an_operator(way, kind):
    """Schema, autograd, shapes without numbers, and tracing with free sizes."""
    at = Sizes()
    drawn = [tensor.requires_grad_() for tensor in draw(kind, at)]
    with running(way):
        for name, given in operators(kind, at, drawn):
            torch.library.opcheck(name, tuple(given))


@kinds
@kernels
@pytest.mark.parametrize("case", CALLS)
def test_answers_have_the_shapes_types_and_strides_that_were_promised(way, kind, case):
    drawn = draw(kind, CALLS[case])
    if case == "half":
        last = value_index(kind)
        drawn = [t.to(torch.bfloat16 if i <= last else torch.float32) for i, t in enumerate(drawn)]
    if case == "turned":
        drawn = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in drawn]
    checks = ("test_schema", "test_faketensor")
    with running(way):
        for name, given in operators(kind, CALLS[case], drawn):
            torch.library.opcheck(name, tuple(given), test_utils=checks)


@kinds
@backends
@pytest.mark.parametrize("where", ["meta", "fake"])
def test_tensors_without_numbers_pass_forward_and_backward(where, backend, kind):
    at = Sizes(images=2, queries=3)
    leaves = [tensor.float() for tensor in draw(kind, at)]
    mode = FakeTensorMode()
    leaves = [mode.from_tensor(t) if where == "fake" else t.to("meta") for t in leaves]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    with ops.use_backend(backend):
        output = call(kind, at.shapes, *leaves)
    assert output.shape == (at.images, at.queries, at.heads * at.width)
    assert output.device == leaves[0].device
    output.sum().backward()
    for leaf in leaves:
        assert (leaf.grad.shape, leaf.grad.device) == (leaf.shape, leaf.device)


@kinds
@kernels
def test_second_derivatives_are_refused(way, kind):
    leaves = [tensor.requires_grad_() for tensor in draw(kind, SMALL)]
    with running(way):
        output = call(kind, SMALL.shapes, *leaves)
        first = torch.autograd.grad(output.square().sum(), leaves, create_graph=True)
        for grad in first:
            with pytest.raises(LeanDetrError, match=r"first derivatives only.*'reference'"):
                grad.sum().backward(retain_graph=True)


@kinds
@backends
def test_functions_of_tensors_can_be_mapped_and_differentiated(backend, kind):
    """`torch.func`: a gradient for every image at once, and all of the Jacobian."""
    at = Sizes(images=3, width=2, points=1)
    drawn = draw(kind, at)

    def total(*given):
        return call(kind, at.shapes, *(tensor[None] for tensor in given)).square().sum()

    with ops.use_backend(backend):
        each = torch.func.vmap(torch.func.grad(total, argnums=tuple(range(len(drawn)))))(*drawn)
        leaves = [tensor.detach().requires_grad_() for tensor in drawn]
        call(kind, at.shapes, *leaves).square().sum().backward()
        for one, leaf in zip(each, leaves, strict=True):
            torch.testing.assert_close(one, leaf.grad)
        mapped = torch.func.vmap(total)(*drawn)
        torch.testing.assert_close(mapped.sum(), call(kind, at.shapes, *drawn).square().sum())


@kinds
@backends
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
def test_forward_mode_is_never_silently_wrong(backend, kind):
    """PyTorch has no forward derivative of sampling; what does not sample has the right one."""
    drawn = draw(kind, SMALL)
    with ops.use_backend(backend):
        for index, tensor in enumerate(drawn):

            def function(moving, index=index):
                given = [*drawn[:index], moving, *drawn[index + 1 :]]
                return call(kind, SMALL.shapes, *given)

            along = torch.randn_like(tensor)
            samples = not (kind.startswith("deform") and index == len(drawn) - 1) and (
                kind.startswith("deform") or index > 0
            )
            if samples:
                with pytest.raises(NotImplementedError, match="forward AD"):
                    torch.func.jvp(function, (tensor,), (along,))
                continue
            output, slope = torch.func.jvp(function, (tensor,), (along,))
            leaf = tensor.clone().requires_grad_()
            pull = torch.randn_like(output)
            function(leaf).backward(pull)
            torch.testing.assert_close((pull * slope).sum(), (leaf.grad * along).sum())


@kinds
@ways
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_autocast_changes_nothing(way, kind, dtype):
    """The precision of the value is that of the answer; sums are in single precision anyway."""
    at = Sizes(queries=5, width=8)
    last = value_index(kind)
    drawn = [
        tensor.to(dtype if i <= last else torch.float32) for i, tensor in enumerate(draw(kind, at))
    ]
    plain = answers(way, kind, at.shapes, drawn)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = answers(way, kind, at.shapes, drawn)
    assert cast[0].dtype == dtype
    for one, other in zip(cast, plain, strict=True):
        assert torch.equal(one, other)


@kinds
@ways
def test_what_nobody_reads_does_no_harm(way, kind):
    """A level full of Inf and NaN, which all samples look past: as if it were zero."""
    at, found = Sizes(images=2, queries=3, width=32, shapes=((3, 4), (2, 2))), []
    drawn = [tensor.float() for tensor in draw(kind, at)]
    last = value_index(kind)
    past = drawn[last + 1] if kind.endswith("-at") else drawn[last + 1].transpose(2, 3)
    past[:, :, 0] = 7.0  # of level 0, whose height and width are 1
    for hidden in (0.0, torch.inf, torch.nan):
        for maps in drawn[last - kind.startswith("own") : last + 1]:
            maps[:, :12] = hidden
        found.append(answers(way, kind, at.shapes, drawn))
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))
    assert all(tensor.isfinite().all() for tensor in found[0])


@kinds
@ways
@pytest.mark.parametrize("strange", [torch.nan, -torch.inf, 1e30], ids=str)
def test_a_strange_place_spoils_its_query_alone(way, kind, strange):
    """No number and infinity make no number; far away is far away; nothing else changes."""
    at = Sizes(queries=4, width=32, shapes=((3, 4), (2, 2)))
    drawn = [tensor.float() for tensor in draw(kind, at)]
    plain = answers(way, kind, at.shapes, drawn)
    last = value_index(kind)
    drawn[last + 1 + kind.endswith("-at")][0, 2, 1, 1, 0, 0] = strange
    found = answers(way, kind, at.shapes, drawn)
    others = [0, 1, 3]
    for index in (0, *range(last + 2, len(found))):  # what queries have one each
        assert torch.equal(found[index][:, others], plain[index][:, others])
    if kind.startswith(("shared", "own")):
        assert torch.equal(found[1][:, others], plain[1][:, others])
    lost = found[0][0, 2].unflatten(0, (at.heads, at.width)).isnan()
    assert lost[1].all() == (abs(strange) != 1e30)
    assert not lost[0].any()
    wanted = answers("reference", kind, at.shapes, drawn)
    torch.testing.assert_close(found[0], wanted[0], equal_nan=True)

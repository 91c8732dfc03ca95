"""What is made again on the way back instead of being kept."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F

from leandetr.models.backbones.residual import FrozenBatchNorm, normed
from leandetr.nn.remade import remade


def test_a_made_tensor_is_gone_until_it_is_asked_for():
    source, x = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    calls = []

    def again():
        calls.append(1)
        return source * 2

    made = source * 2
    with remade(made, again, source):
        answer = F.linear(x, made)
    gone = weakref.ref(made.untyped_storage())
    del made
    gc.collect()
    assert gone() is None
    assert not calls
    answer.sum().backward()
    assert calls == [1]
    torch.testing.assert_close(x.grad, 2 * source.sum(dim=0).expand(5, 4).detach())
    torch.testing.assert_close(source.grad, 2 * x.sum(dim=0).expand(3, 4).detach())


def test_what_operators_answer_is_not_held_in_a_circle():
    source = torch.randn(4, requires_grad=True)
    made = source * 2
    gc.disable()
    try:
        with remade(made, lambda: source * 2, source):
            answer = made.exp()
        gone = weakref.ref(answer)
        del answer
        assert gone() is None
    finally:
        gc.enable()


def test_a_source_that_was_written_to_is_an_error():
    source, x = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    made = source * 2
    with remade(made, lambda: source * 2, source):
        answer = F.linear(x, made)
    with torch.no_grad():
        source.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        answer.sum().backward()


def test_a_frozen_norm_in_training_keeps_no_second_weights():
    torch.manual_seed(0)
    conv, norm = torch.nn.Conv2d(3, 4, 3, bias=False), FrozenBatchNorm(4)
    torch.nn.init.uniform_(norm.weight, 0.5, 2)
    conv.to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    grads = []
    for work in (lambda: normed(conv, norm, x), lambda: norm(conv(x))):
        answer = work()
        pull = torch.cos(torch.arange(answer.numel())).view_as(answer)
        grads.append(torch.autograd.grad(answer, (x, conv.weight), pull))
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

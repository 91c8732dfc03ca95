import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from leandetr.training.classification import (
    BACKGROUND,
    Classification,
    SigmoidFocal,
    SoftmaxEntropy,
)
from leandetr.training.losses import focal_loss

BOTH = [SigmoidFocal(), SoftmaxEntropy()]
ONE = torch.ones(())


def test_focal_classes_are_ones_of_the_focal_loss() -> None:
    logits = torch.randn(2, 1, 3, 4)
    classes = torch.tensor([[[2, BACKGROUND, 0]], [[BACKGROUND, BACKGROUND, 3]]])
    positive = torch.zeros_like(logits)
    for layer, query, label in ((0, 0, 2), (0, 2, 0), (1, 2, 3)):
        positive[layer, 0, query, label] = 1
    expected = focal_loss(logits, positive, alpha=0.3, gamma=1.5) / 4
    found = SigmoidFocal(alpha=0.3, gamma=1.5).loss(logits, classes, torch.tensor(4.0))
    assert_close(found, expected)


def test_background_counts_less_in_a_cross_entropy() -> None:
    logits, classes = torch.randn(3, 2, 5, 4), torch.randint(-1, 3, (3, 2, 5))
    weight = torch.tensor([1.0, 1.0, 1.0, 0.1])
    wanted = torch.where(classes == BACKGROUND, 3, classes)
    found = SoftmaxEntropy(background=0.1).loss(logits, classes, torch.tensor(7.0))
    for layer in range(3):
        expected = F.cross_entropy(logits[layer].flatten(0, 1), wanted[layer].flatten(), weight)
        assert_close(found[layer], expected)


@pytest.mark.parametrize("judge", BOTH, ids=lambda one: type(one).__name__)
def test_the_surest_query_costs_least_and_no_query_is_fine(judge: Classification) -> None:
    logits = torch.tensor([[[[4.0, -4.0, -4.0], [-4.0, 4.0, -4.0], [0.0, 0.0, 0.0]]]])
    cost = judge.cost(logits, torch.tensor([[1, 0]]))
    assert cost.shape == (1, 1, 3, 2)
    assert cost[0, 0].argmin(0).tolist() == [1, 0]
    none = torch.zeros(2, 3, 0, 4, requires_grad=True)
    loss = judge.loss(none, torch.zeros(2, 3, 0, dtype=torch.long), ONE)
    assert loss.tolist() == [0.0, 0.0]
    loss.sum().backward()
    assert none.grad is not None


@pytest.mark.parametrize("judge", BOTH, ids=lambda one: type(one).__name__)
def test_huge_logits_have_finite_losses_and_gradients(judge: Classification) -> None:
    logits = torch.tensor([[[[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]]]], requires_grad=True)
    loss = judge.loss(logits, torch.tensor([[[1, BACKGROUND]]]), ONE)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()

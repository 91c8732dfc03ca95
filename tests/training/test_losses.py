import torch
from torch.testing import assert_close

from leandetr.training.losses import box_loss, focal_loss, giou_loss


def test_focal_loss_is_the_formula_of_the_paper() -> None:
    logits, positive = torch.randn(2, 3, 4, 5), (torch.rand(2, 3, 4, 5) < 0.3).float()
    score = logits.sigmoid()
    right = torch.where(positive == 1, score, 1 - score)
    alpha = torch.where(positive == 1, 0.25, 0.75)
    expected = -(alpha * (1 - right) ** 2 * right.log()).sum((1, 2, 3))
    assert_close(focal_loss(logits, positive), expected)


def test_focal_loss_is_finite_for_huge_logits() -> None:
    logits = torch.tensor([1e4, -1e4]).view(1, 1, 2, 1).requires_grad_()
    loss = focal_loss(logits, torch.tensor([0.0, 1.0]).view(1, 1, 2, 1))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_perfect_box_costs_nothing_and_a_far_one_more_than_one() -> None:
    box = torch.tensor([[[0.5, 0.5, 0.2, 0.2]]])
    far = torch.tensor([[[0.1, 0.1, 0.1, 0.1]]])
    assert_close(box_loss(box, box), torch.zeros(1))
    assert_close(giou_loss(box, box), torch.zeros(1), atol=1e-4, rtol=0)
    assert_close(box_loss(far, box), torch.tensor([1.0]))
    assert giou_loss(far, box) > 1


def test_a_box_without_area_has_a_finite_gradient() -> None:
    box = torch.zeros(1, 1, 4, requires_grad=True)
    giou_loss(box, torch.tensor([[[0.5, 0.5, 0.2, 0.2]]])).sum().backward()
    assert box.grad is not None
    assert box.grad.isfinite().all()

"""One training step of DETR and Conditional DETR against the official one."""

import pytest
import torch

from golden_data import load_case
from golden_detr import official_detector
from golden_gradients import check_gradients, check_losses, check_matches
from golden_losses import plain_targets
from leandetr.training.build import build_criterion
from leandetr.types import Images, Target

ENDINGS = {"main": "#"}
both = pytest.mark.parametrize("family", ["detr", "conditional_detr"])


@both
def test_losses_and_matches_equal_official(family):
    case = load_case(f"{family}/gradients")
    model, _ = official_detector(case)
    targets = plain_targets(case)
    with torch.no_grad():
        outputs = model.train()(case.images(), targets)
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(
        outputs.answer.logits[:, ::5], case.tensors["pred_logits_sub"], **close
    )
    torch.testing.assert_close(outputs.answer.boxes, case.tensors["pred_boxes"], **close)
    criterion = build_criterion(model.recipe)
    check_matches(case, criterion.matcher, outputs.layers, targets)
    check_losses(case, criterion(outputs, targets), ENDINGS)


@pytest.mark.timeout(240)
@both
def test_gradients_equal_official(family):
    """In double precision.

    In single precision, a rectifier near zero switches with the convolution kernels of the
    machine, and alone moves norms by 2e-3.
    """
    case = load_case(f"{family}/gradients")
    model, rules = official_detector(case)
    model.double().train()
    images = case.images()
    targets = [Target(one.labels, one.boxes.double()) for one in plain_targets(case)]
    outputs = model(Images(images.pixels.double(), images.padding), targets)
    losses = build_criterion(model.recipe)(outputs, targets)
    losses.total.backward()
    check_gradients(case, model, rules)

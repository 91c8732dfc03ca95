"""One training step of Deformable DETR and H-DETR against the official one."""

import pytest
import torch

from golden_data import load_case
from golden_deformable import official_detector
from golden_gradients import check_gradients, check_losses
from golden_losses import plain_matches, plain_targets
from leandetr.training.build import build_criterion
from leandetr.training.matcher import PaddedTargets, Problem
from leandetr.types import Images, Target

ENDINGS = {"main": "#", "proposals": "_enc", "one-to-many": "#_one2many"}
OUTPUTS = {"main": "", "one-to-many": "one2many_"}
"""Groups as the stored matches call them."""
CASES = (
    "deformable_detr/gradients",
    "deformable_detr/gradients_two_stage",
    "h_deformable_detr/gradients_hybrid",
)
everywhere = pytest.mark.parametrize("name", CASES)


@everywhere
def test_losses_and_matches_equal_official(name):
    case = load_case(name)
    model, _ = official_detector(case)
    targets = plain_targets(case)
    with torch.no_grad():
        outputs = model.train()(case.images(), targets)
    close = {"atol": 1e-4, "rtol": 1e-4}
    t = case.tensors
    torch.testing.assert_close(outputs.answer.logits[:, ::5], t["pred_logits_sub"], **close)
    torch.testing.assert_close(outputs.answer.boxes, t["pred_boxes"], **close)
    criterion = build_criterion(model.recipe)
    check_losses(case, criterion(outputs, targets), ENDINGS)
    for group in outputs.groups:
        layers = tuple(layer.slice(group.start, group.stop) for layer in outputs.layers)
        names = [f"{OUTPUTS[group.name]}aux_{index}" for index in range(len(layers) - 1)]
        names.append(f"{OUTPUTS[group.name]}final")
        problem = Problem(layers, PaddedTargets.of(targets), group.assign.repeat)
        check_matches(case, criterion.matcher, problem, names)
    if outputs.proposals is not None:
        problem = Problem((outputs.proposals,), PaddedTargets.of(targets).agnostic())
        check_matches(case, criterion.matcher, problem, ["enc"])


def check_matches(case, matcher, problem, names):
    """The pairs of query and target of every layer and image; copies of a target are the same."""
    (pairs,) = matcher([problem])
    for index, name in enumerate(names):
        for image, expected in enumerate(plain_matches(case, name)):
            here = pairs.image == image
            query, target = pairs.query[index, here], pairs.target[index, here]
            assert set(zip(query.tolist(), target.tolist(), strict=True)) == expected, name


@pytest.mark.timeout(300)
@everywhere
def test_gradients_equal_official(name):
    """In double precision: see the same test of DETR."""
    case = load_case(name)
    model, rules = official_detector(case)
    model.double().train()
    images = case.images()
    targets = [Target(one.labels, one.boxes.double()) for one in plain_targets(case)]
    outputs = model(Images(images.pixels.double(), images.padding), targets)
    losses = build_criterion(model.recipe)(outputs, targets)
    losses.total.backward()
    check_gradients(case, model, rules)

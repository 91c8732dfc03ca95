"""One training step of the whole Focus-DETR against the official one: losses and gradients."""

import pytest
import torch

from golden_data import load_case
from golden_focus import official_detector
from leandetr.checkpoints.keymap import to_ours
from leandetr.training.build import build_criterion
from leandetr.types import Images, Target
from recorded_noise import targets_of

TERMS = {"class": "labels", "bbox": "boxes", "giou": "giou"}
NEVER_USED = "label_enc.weight"
"""Denoising is off in this case: the table has a zero gradient there, and none with us."""
SHARED = ("encoder.enhance_MCSP.0", "decoder.class_embed.6")
"""The first name of the class head of the proposals, and the one that is no copy with us."""
SINGLE_NOISE = 2e-8
"""What float32 leaves of the terms that cancel in the gradient of the strengths (5e-7)."""


def our_name(official, layers):
    """`loss_class_3` is `labels/main/3`."""
    if official == "select_loss":
        return "salience"
    term, *layer = official.removeprefix("loss_").split("_")
    if layer == ["enc"]:
        return f"{TERMS[term]}/proposals"
    return f"{TERMS[term]}/main/{layer[0] if layer else layers - 1}"


def step(case):
    """In double precision: a sum over hundreds of near ties has no noise to hide behind."""
    model, rules = official_detector(load_case(case.meta["weights_and_images_of"]))
    model.double().train()
    targets = [Target(target.labels, target.boxes.double()) for target in targets_of(case)]
    images = case.images()
    outputs = model(Images(images.pixels.double(), images.padding))  # no targets, no denoising
    losses = build_criterion(model.recipe)(outputs, targets)
    losses.total.backward()
    return model, rules, losses


@pytest.mark.timeout(300)
def test_training_step_equals_official():
    case = load_case("focus_detr/focus_r50_q100_train")
    model, rules, losses = step(case)
    terms = {term.name: term.value.item() * term.weight for term in losses.terms}
    official = {k: v for k, v in case.meta["weighted_losses"].items() if "_dn" not in k}
    assert len(official) == len(terms)
    for name, value in official.items():
        ours = terms[our_name(name, model.recipe.model.decoder.layers)]
        assert ours == pytest.approx(value, rel=1e-4), name
    assert losses.total.item() == pytest.approx(case.meta["total"], rel=1e-4)
    check_gradients(case, model, rules)


def check_gradients(case, model, rules):
    norms = {key.replace(*SHARED): norm for key, norm in case.meta["grad_norms"].items()}
    official = {key: torch.tensor(index) for index, key in enumerate(norms)}
    ours = {int(v): k for k, v in to_ours(official, rules).state.items()}
    for index, (key, norm) in enumerate(norms.items()):
        parameter = model.get_parameter(ours[index])
        if norm is None:
            assert not parameter.requires_grad, key
        elif key == NEVER_USED:
            assert norm == 0
            assert parameter.grad is None
        else:
            check_gradient(key, parameter.grad, norm, case.tensors.get(f"grad.{key}"))


def check_gradient(key, gradient, norm, stored):
    assert gradient.norm().item() == pytest.approx(norm, rel=1e-3, abs=1e-4), key
    if stored is not None:
        assert (gradient - stored).norm() < 1e-3 * stored.norm() + SINGLE_NOISE, key

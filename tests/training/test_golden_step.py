"""One training step of whole detectors against the official one: losses and gradients."""

import pytest
import torch

from golden_data import cases, load_case
from golden_dino import official_detector
from leandetr.checkpoints.keymap import to_ours
from leandetr.training.build import build_criterion
from leandetr.types import Images, Target
from recorded_noise import recorded, targets_of

TERMS = {"loss_ce": "labels", "loss_bbox": "boxes", "loss_giou": "giou"}


def our_name(official, layers):
    """`loss_ce_dn_3` is `labels/denoising/3`; None for statistics that are not losses."""
    for prefix, term in TERMS.items():
        rest = official.removeprefix(prefix)
        if rest == official:
            continue
        if rest == "_interm":
            return f"{term}/proposals"
        group = "denoising" if rest.startswith("_dn") else "main"
        layer = rest.removeprefix("_dn").removeprefix("_") or str(layers - 1)
        return f"{term}/{group}/{layer}"
    return None


def step(case, dtype):
    model, rules, _ = official_detector(load_case(case.meta["weights_and_images_of"]))
    model.to(dtype).train()
    model.training_groups[0].draw = recorded(case)
    targets = [Target(t.labels, t.boxes.to(dtype)) for t in targets_of(case)]
    images = case.images()
    outputs = model(Images(images.pixels.to(dtype), images.padding), targets)
    losses = build_criterion(model.recipe)(outputs, targets)
    losses.total.backward()
    return model, rules, outputs, losses


def same_boxes(case, outputs):
    """False where near-tied proposals swapped ranks, which exchanges the content of queries."""
    main = outputs.groups[0]
    got = outputs.layers[-1].boxes[:, main.start : main.stop]
    return torch.allclose(got, case.tensors["pred_boxes"].to(got), atol=1e-4, rtol=0)


def check_gradients(case, model, rules):
    official = {key: torch.tensor(index) for index, key in enumerate(case.meta["grad_norms"])}
    ours = {int(v): k for k, v in to_ours(official, _without_aliases(rules)).state.items()}
    for index, (key, norm) in enumerate(case.meta["grad_norms"].items()):
        parameter = model.get_parameter(ours[index])
        if norm is None:
            assert not parameter.requires_grad, key
            continue
        assert parameter.grad is not None, key
        got = parameter.grad.norm().item()
        assert got == pytest.approx(norm, rel=1e-3, abs=1e-4), key
        stored = case.tensors.get(f"grad.{key}")
        if stored is not None:
            error = (parameter.grad - stored).norm() / stored.norm()
            assert error < 1e-3, key


def _without_aliases(rules):
    """The norms name a shared parameter once, perhaps by a name we hold for the alias."""
    return [rule for rule in rules if not hasattr(rule, "of")] + [
        rule for rule in rules if hasattr(rule, "of")
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", cases("dino/*_train", "lite_detr/*_train"))
def test_training_step_equals_official(name):
    case = load_case(name)
    model, rules, outputs, losses = step(case, torch.float32)
    if not same_boxes(case, outputs):  # in double precision only exact ties could swap
        model, rules, outputs, losses = step(case, torch.float64)
        assert same_boxes(case, outputs)
    layers = len(outputs.layers)
    terms = {term.name: term.value.item() for term in losses.terms}
    compared = 0
    for official, value in case.meta["losses"].items():
        ours = our_name(official, layers)
        if ours is not None:
            assert terms[ours] == pytest.approx(value, rel=1e-4, abs=1e-5), official
            compared += 1
    assert compared == len(terms)
    assert losses.total.item() == pytest.approx(case.meta["total"], rel=1e-4)
    dn = outputs.groups[-1]
    torch.testing.assert_close(
        outputs.layers[-1].boxes[:, dn.start : dn.stop],
        case.tensors["dn_pred_boxes"],
        atol=1e-4,
        rtol=0,
        check_dtype=False,
    )
    check_gradients(case, model, rules)

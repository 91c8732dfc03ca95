import pytest
import torch
from torch.testing import assert_close

from golden_data import Case, cases, load_case
from leandetr.training.criterion import Criterion
from leandetr.training.matcher import Matcher, PaddedTargets
from leandetr.types import Group, Known, Match, Outputs, Prediction, Target

TERMS = {"ce": "labels", "bbox": "boxes", "giou": "giou"}


def targets_of(case: Case) -> list[Target]:
    """The targets of a DINO case, image by image."""
    count = len(case.meta["boxes_per_image"])
    stored = case.tensors
    return [Target(stored[f"target_{n}_labels"], stored[f"target_{n}_boxes"]) for n in range(count)]


def known_of(case: Case) -> Known | None:
    """Slots of the denoising queries: group g holds target t of each image at g * width + t."""
    if case.meta["dn_meta"] is None:
        return None
    size, groups = (case.meta["dn_meta"][key] for key in ("pad_size", "num_dn_group"))
    counts = case.meta["boxes_per_image"]
    slots = torch.full((len(counts), groups, size // groups), -1)
    for row, count in enumerate(counts):
        slots[row, :, :count] = torch.arange(count)
    return Known(slots.flatten(1), groups)


def leaves_of(case: Case) -> dict[str, torch.Tensor]:
    """The predictions of a DINO case, ready to take gradients."""
    names = ("pred_logits", "pred_boxes", "interm_logits", "interm_boxes", "dn_logits", "dn_boxes")
    return {name: case.tensors[name].requires_grad_() for name in names if name in case.tensors}


def outputs_of(leaves: dict[str, torch.Tensor], known: Known | None) -> Outputs:
    """Official predictions as ours: main queries first, denoising behind them."""
    logits, boxes = leaves["pred_logits"], leaves["pred_boxes"]
    groups = (Group("main", 0, logits.shape[2], Match()),)
    if known is not None:
        logits = torch.cat((logits, leaves["dn_logits"]), 2)
        boxes = torch.cat((boxes, leaves["dn_boxes"]), 2)
        groups += (Group("denoising", groups[0].stop, logits.shape[2], known),)
    layers = tuple(Prediction(*pair) for pair in zip(logits, boxes, strict=True))
    return Outputs(layers, Prediction(leaves["interm_logits"], leaves["interm_boxes"]), groups)


def official_name(name: str, layers: int) -> str:
    """`boxes/denoising/0` as the official code calls it: `loss_bbox_dn_0`."""
    term, group, *layer = name.split("/")
    official = next(key for key, ours in TERMS.items() if ours == term)
    ending = {"main": "", "denoising": "_dn", "proposals": "_interm"}[group]
    number = f"_{layer[0]}" if layer and int(layer[0]) < layers - 1 else ""
    return f"loss_{official}{ending}{number}"


@pytest.mark.golden
@pytest.mark.parametrize("name", cases("dino/criterion_*"))
def test_losses_and_gradients_are_dinos(name: str) -> None:
    case = load_case(name)
    leaves = leaves_of(case)
    losses = Criterion(Matcher())(outputs_of(leaves, known_of(case)), targets_of(case))
    layers = len(leaves["pred_logits"])
    ours = {official_name(term.name, layers): term for term in losses.terms}
    weighted = set(case.meta["weight_dict"]) & set(case.meta["losses"])
    zeros = {key for key in weighted if "_dn" in key and case.meta["dn_meta"] is None}
    assert set(ours) == weighted - zeros
    tolerance = case.meta["tolerance"]
    for key, term in ours.items():
        assert term.weight == case.meta["weight_dict"][key]
        expected = torch.tensor(case.meta["losses"][key])
        assert_close(
            term.value,
            expected,
            rtol=tolerance["losses_relative"],
            atol=1e-6,
            msg=lambda m, k=key: f"{k}: {m}",
        )
    expected = torch.tensor(case.meta["total"])
    assert_close(losses.total, expected, rtol=tolerance["losses_relative"], atol=0)
    losses.total.backward()
    for key, leaf in leaves.items():
        assert_close(leaf.grad, case.tensors[f"grad_{key}"], rtol=1e-5, atol=tolerance["grads"])


@pytest.mark.golden
@pytest.mark.parametrize("name", cases("dino/criterion_*"))
def test_matches_are_dinos(name: str) -> None:
    case = load_case(name)
    outputs = outputs_of(leaves_of(case), None)
    main, proposals = Matcher()(
        [(outputs.layers, 1), ((outputs.proposals,), 1)], PaddedTargets.of(targets_of(case))
    )
    names = [f"layer_{index}" for index in range(len(outputs.layers) - 1)] + ["final"]
    rows = list(zip(names, main.query, main.target, strict=True))
    rows.append(("interm", proposals.query[0], proposals.target[0]))
    for row, query, target in rows:
        for image in range(len(case.meta["boxes_per_image"])):
            here = main.image == image
            found = torch.stack((query[here], target[here]))
            assert torch.equal(found, case.tensors[f"match_{row}_{image}"]), (row, image)

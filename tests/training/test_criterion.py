import pytest
import torch
from torch.testing import assert_close

from golden_data import Case, cases, load_case
from leandetr.training.classification import SigmoidFocal
from leandetr.training.criterion import Criterion, Weights
from leandetr.training.matcher import Matcher, PaddedTargets, Problem
from leandetr.types import Group, Known, Match, Outputs, Prediction, Proposed, Target


def criterion() -> Criterion:
    """DINO's."""
    return Criterion(Matcher(SigmoidFocal()), SigmoidFocal(), weights=Weights())


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
    return Outputs(layers, Proposed(leaves["interm_logits"], leaves["interm_boxes"]), groups)


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
    losses = criterion()(outputs_of(leaves, known_of(case)), targets_of(case))
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
    targets = PaddedTargets.of(targets_of(case))
    assert outputs.proposals is not None
    main, proposals = Matcher(SigmoidFocal())(
        [Problem(outputs.layers, targets), Problem((outputs.proposals,), targets)]
    )
    names = [f"layer_{index}" for index in range(len(outputs.layers) - 1)] + ["final"]
    rows = list(zip(names, main.query, main.target, strict=True))
    rows.append(("interm", proposals.query[0], proposals.target[0]))
    for row, query, target in rows:
        for image in range(len(case.meta["boxes_per_image"])):
            here = main.image == image
            found = torch.stack((query[here], target[here]))
            assert torch.equal(found, case.tensors[f"match_{row}_{image}"]), (row, image)


def outputs(counts: tuple[int, ...], *, queries: int = 6, layers: int = 2) -> Outputs:
    """Random predictions of leaf tensors, with proposals."""

    def prediction() -> Prediction:
        logits = torch.randn(len(counts), queries, 3, requires_grad=True)
        boxes = (torch.rand(len(counts), queries, 4) * 0.5 + 0.2).requires_grad_()
        return Prediction(logits, boxes)

    groups = (Group("main", 0, queries, Match()),)
    proposed = prediction()
    return Outputs(
        tuple(prediction() for _ in range(layers)),
        Proposed(proposed.logits, proposed.boxes),
        groups,
    )


def random_targets(counts: tuple[int, ...]) -> list[Target]:
    return [Target(torch.randint(3, (n,)), torch.rand(n, 4) * 0.5 + 0.2) for n in counts]


def test_permuting_the_batch_changes_no_term() -> None:
    counts = (3, 0, 2, 9)
    made, targets = outputs(counts), random_targets(counts)
    order = [2, 3, 0, 1]
    layers = tuple(Prediction(one.logits[order], one.boxes[order]) for one in made.layers)
    assert made.proposals is not None
    proposals = Proposed(made.proposals.logits[order], made.proposals.boxes[order])
    judge = criterion()
    before = judge(made, targets)
    after = judge(Outputs(layers, proposals, made.groups), [targets[index] for index in order])
    assert before.names == after.names
    assert_close(before.values, after.values)


def test_a_batch_without_boxes_reaches_every_prediction() -> None:
    made = outputs((0, 0))
    losses = criterion()(made, random_targets((0, 0)))
    assert losses.first_bad() is None
    losses.total.backward()
    assert made.proposals is not None
    for one in (*made.layers, made.proposals):
        assert one.logits.grad is not None
        assert one.boxes.grad is not None
        assert one.logits.grad.isfinite().all()
        assert (one.boxes.grad == 0).all()
    assert all(term.value == 0 for term in losses.terms if not term.name.startswith("labels"))


def test_an_empty_denoising_group_costs_nothing() -> None:
    made = outputs((0,))
    known = Known(torch.zeros(1, 0, dtype=torch.long), 1)
    groups = (*made.groups, Group("denoising", 6, 6, known))
    losses = criterion()(Outputs(made.layers, None, groups), random_targets((0,)))
    assert {float(t.value.detach()) for t in losses.terms if "denoising" in t.name} == {0.0}


def test_a_broken_prediction_is_named() -> None:
    made = outputs((2,))
    with torch.no_grad():
        made.layers[1].logits[0, 0, 0] = float("nan")
    assert criterion()(made, random_targets((2,))).first_bad() == "labels/main/1"


def test_losses_are_in_full_precision_under_autocast() -> None:
    made, targets = outputs((2, 1)), random_targets((2, 1))
    expected = criterion()(made, targets).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = criterion()(made, targets).total
    assert torch.equal(found, expected)

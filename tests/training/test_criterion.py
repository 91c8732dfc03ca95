import torch
from torch.testing import assert_close

from leandetr.training.classification import SigmoidFocal
from leandetr.training.criterion import Criterion, Weights
from leandetr.training.matcher import Matcher
from leandetr.types import Group, Known, Match, Outputs, Prediction, Proposed, Target


def criterion() -> Criterion:
    """DINO's."""
    return Criterion(Matcher(SigmoidFocal()), SigmoidFocal(), weights=Weights())


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

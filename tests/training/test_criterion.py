"""Laws of the whole criterion; its numbers are compared in test_golden_losses.py."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from leandetr.recipes.assemble import recipe
from leandetr.training.build import build_criterion
from leandetr.training.classification import Classification, SigmoidFocal, SoftmaxEntropy
from leandetr.training.criterion import Criterion, Losses, Share, Weights
from leandetr.training.matcher import Matcher
from leandetr.types import (
    Attention,
    Group,
    Known,
    Look,
    Match,
    Outputs,
    Prediction,
    Proposed,
    Salience,
    Target,
    Tokens,
)

MAIN, MANY, DENOISING = slice(0, 4), slice(4, 9), slice(9, 13)
SHAPES = ((3, 4), (2, 2))
CLASSES = 3
BOTH = pytest.mark.parametrize("kind", [SigmoidFocal, SoftmaxEntropy])


def criterion(kind: type[Classification] = SigmoidFocal, **weights: float) -> Criterion:
    return Criterion(Matcher(kind()), kind(), weights=Weights(**weights))


def predicted(images: int, queries: int) -> Prediction:
    """Leaf tensors; as many logits as classes and one for nothing."""
    logits = torch.randn(images, queries, CLASSES + 1, requires_grad=True)
    return Prediction(logits, (torch.rand(images, queries, 4) * 0.5 + 0.2).requires_grad_())


def outputs(counts: tuple[int, ...], *, agnostic: bool = False) -> Outputs:
    """Random outputs in which everything occurs that can be supervised."""
    images, tokens = len(counts), sum(height * width for height, width in SHAPES)
    known = torch.full((images, 4), -1)
    for row, count in enumerate(counts):
        known[row, : min(count, 2)] = torch.arange(min(count, 2))
    groups = (
        Group("main", MAIN.start, MAIN.stop, Match()),
        Group("one-to-many", MANY.start, MANY.stop, Match(2), 0.5),
        Group("denoising", DENOISING.start, DENOISING.stop, Known(known, 1)),
    )
    proposed = predicted(images, tokens)
    scores = torch.randn(images, tokens, requires_grad=True)
    kept, keep = torch.arange(7).expand(images, -1), torch.full((images,), 5)
    look = Look(torch.rand(images, 13, 2, 2, 3, 2), torch.rand(images, 13, 2, 2, 3))
    empty = torch.zeros(images, tokens, 1)
    return Outputs(
        layers=tuple(predicted(images, 13) for _ in range(2)),
        proposals=Proposed(proposed.logits, proposed.boxes, agnostic),
        groups=groups,
        salience=Salience(scores, Attention(keep), kept, keep),
        encoder_layers=(predicted(images, 7), predicted(images, 5)),
        looks=(look,),
        tokens=Tokens(empty, empty, empty[..., 0].bool(), torch.ones(images, 2, 2), SHAPES),
        extent=torch.tensor([[24, 32]] * images),
    )


def random_targets(counts: tuple[int, ...]) -> list[Target]:
    return [Target(torch.randint(CLASSES, (n,)), torch.rand(n, 4) * 0.5 + 0.2) for n in counts]


def leaves_of(made: Outputs) -> list[Tensor]:
    """Everything that a loss must reach."""
    assert made.proposals is not None
    assert made.salience is not None
    predictions = (*made.layers, made.proposals, *made.encoder_layers)
    return [
        made.salience.logits,
        *(leaf for one in predictions for leaf in (one.logits, one.boxes)),
    ]


def changed(made: Outputs, change: Callable[[Tensor], Tensor]) -> Outputs:
    """The outputs with every tensor of predictions, scores and looks run through `change`."""
    assert made.proposals is not None
    assert made.salience is not None
    layers = [
        tuple(Prediction(change(one.logits), change(one.boxes)) for one in some)
        for some in (made.layers, made.encoder_layers)
    ]
    proposals = Proposed(
        change(made.proposals.logits), change(made.proposals.boxes), made.proposals.agnostic
    )
    looks = tuple(Look(change(look.locations), change(look.weights)) for look in made.looks)
    return replace(
        made, layers=layers[0], encoder_layers=layers[1], proposals=proposals, looks=looks
    )


@BOTH
@settings(max_examples=8)
@given(counts=st.lists(st.integers(0, 6), min_size=2, max_size=4), data=st.data())
def test_permuting_the_batch_changes_no_term(
    kind: type[Classification], counts: list[int], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(counts))))
    made, targets = outputs(tuple(counts)), random_targets(tuple(counts))
    moved = changed(made, lambda tensor: tensor[order])
    assert made.salience is not None
    denoising = made.groups[2]
    assert isinstance(denoising.assign, Known)
    known = replace(denoising, assign=Known(denoising.assign.targets[order], 1))
    moved = replace(
        moved,
        salience=replace(made.salience, logits=made.salience.logits[order]),
        groups=(*made.groups[:2], known),
    )
    before = criterion(kind)(made, targets)
    after = criterion(kind)(moved, [targets[index] for index in order])
    assert before.names == after.names
    assert_close(before.values, after.values)


@BOTH
@settings(max_examples=8)
@given(counts=st.lists(st.integers(0, 6), min_size=1, max_size=3), data=st.data())
def test_permuting_queries_changes_no_term(
    kind: type[Classification], counts: list[int], data: st.DataObject
) -> None:
    made, targets = outputs(tuple(counts)), random_targets(tuple(counts))
    main = data.draw(st.permutations(range(MAIN.start, MAIN.stop)))
    many = data.draw(st.permutations(range(MANY.start, MANY.stop)))
    order = [*main, *many, *range(DENOISING.start, DENOISING.stop)]

    def shuffle(tensor: Tensor) -> Tensor:
        return tensor[:, order] if tensor.shape[1] == len(order) else tensor.flip(1)

    before = criterion(kind)(made, targets)
    after = criterion(kind)(changed(made, shuffle), targets)
    assert_close(before.values, after.values)


@BOTH
@pytest.mark.parametrize("counts", [(0, 0), (0, 3), (9, 30)])
@pytest.mark.parametrize("agnostic", [False, True])
def test_every_batch_reaches_every_prediction(
    kind: type[Classification], counts: tuple[int, ...], agnostic: bool
) -> None:
    made = outputs(counts, agnostic=agnostic)
    losses = criterion(kind)(made, random_targets(counts))
    assert losses.first_bad() is None
    losses.total.backward()
    for leaf in leaves_of(made):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


@BOTH
def test_no_box_is_all_background(kind: type[Classification]) -> None:
    made = outputs((0, 0))
    losses = criterion(kind)(made, random_targets((0, 0)))
    for term in losses.terms:
        assert (term.value == 0) == term.name.startswith(("boxes", "giou")), term.name


@BOTH
def test_a_group_without_queries_costs_nothing(kind: type[Classification]) -> None:
    made, targets = outputs((2,)), random_targets((2,))
    known = Known(torch.zeros(1, 0, dtype=torch.long), 1)
    empty = (Group("denoising", 13, 13, known), Group("one-to-many", 13, 13, Match(6)))
    losses = criterion(kind)(replace(made, groups=(made.groups[0], *empty)), targets)
    of_empty = [t for t in losses.terms if "denoising" in t.name or "one-to-many" in t.name]
    assert len(of_empty) == 2 * 2 * 3
    assert {float(term.value.detach()) for term in of_empty} == {0.0}
    losses.total.backward()


def test_every_term_has_its_name_and_weight() -> None:
    judge = criterion(labels=3.0, boxes=7.0, giou=11.0, salience=13.0, encoder=0.1)
    losses = judge(outputs((2, 1)), random_targets((2, 1)))
    own = {"labels": 3.0, "boxes": 7.0, "giou": 11.0}
    groups = {"main": 1.0, "one-to-many": 0.5, "denoising": 1.0, "encoder": 0.1}
    expected = {
        f"{kind}/{group}/{layer}": weight * factor
        for kind, weight in own.items()
        for group, factor in groups.items()
        for layer in range(2)
    }
    expected |= {f"{kind}/proposals": weight for kind, weight in own.items()} | {"salience": 13.0}
    assert {term.name: term.weight for term in losses.terms} == expected
    assert len(losses.terms) == len(expected)
    assert_close(losses.total, sum(term.weight * term.value for term in losses.terms))


def test_agnostic_proposals_are_all_of_class_0() -> None:
    made, targets = outputs((3, 2), agnostic=True), random_targets((3, 2))
    assert made.proposals is not None
    zeroed = [Target(torch.zeros_like(target.labels), target.boxes) for target in targets]
    told = replace(made, proposals=replace(made.proposals, agnostic=False))
    terms = [
        {term.name: term.value for term in criterion()(one, wanted).terms}
        for one, wanted in ((made, targets), (told, zeroed), (told, targets))
    ]
    for name in ("labels/proposals", "boxes/proposals", "giou/proposals"):
        assert_close(terms[0][name], terms[1][name])
    assert terms[0]["labels/proposals"] != terms[2]["labels/proposals"]


def test_an_encoders_heads_are_judged_like_a_decoder_layer() -> None:
    made, targets = outputs((3, 2)), random_targets((3, 2))
    alone = Outputs((made.encoder_layers[0],), None, (Group("main", 0, 7, Match()),))
    expected = criterion()(alone, targets)
    found = {term.name: term.value for term in criterion()(made, targets).terms}
    for term in expected.terms:
        assert_close(found[term.name.replace("main", "encoder")], term.value)


def test_a_recipe_chooses_how_classes_are_judged() -> None:
    dino = recipe("dino-r50")
    assert isinstance(build_criterion(dino).classification, SigmoidFocal)
    weighed = replace(dino.train.criterion, background_weight=0.3, class_cost=1.0)
    judge = build_criterion(dino.with_model(background=True).with_train(criterion=weighed))
    assert isinstance(judge.classification, SoftmaxEntropy)
    assert judge.classification.background == 0.3
    assert judge.matcher.class_cost == 1.0


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


def of_image(made: Outputs, image: int) -> Outputs:
    """What a batch of this one image would have given."""

    def one(prediction: Prediction) -> Prediction:
        return Prediction(prediction.logits[image : image + 1], prediction.boxes[image : image + 1])

    groups = tuple(
        replace(
            group, assign=replace(group.assign, targets=group.assign.targets[image : image + 1])
        )
        if isinstance(group.assign, Known)
        else group
        for group in made.groups
    )
    return replace(
        made,
        layers=tuple(one(layer) for layer in made.layers),
        proposals=None,
        groups=groups,
        salience=None,
        encoder_layers=tuple(one(layer) for layer in made.encoder_layers),
    )


@BOTH
def test_batches_of_a_step_add_up_to_one_large_batch(kind: type[Classification]) -> None:
    torch.manual_seed(0)
    counts = (2, 2)  # the softmax's weights are summed batch by batch, so they have to be alike
    made, targets = outputs(counts), random_targets(counts)
    made = replace(made, proposals=None, salience=None)
    judge, held = criterion(kind), torch.tensor(4.0)
    whole = judge(made, targets)
    alone = [judge(of_image(made, i), targets[i : i + 1], Share(held, 0.5)) for i in range(2)]
    joined = Losses.joined(alone)
    assert joined.names == whole.names
    assert_close(joined.total, whole.total.detach())
    assert_close(joined.values, whole.values)

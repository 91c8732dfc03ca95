from itertools import permutations

import pytest
import torch

from leandetr.training.classification import SigmoidFocal
from leandetr.training.matcher import UNMATCHABLE, Matcher, PaddedTargets, Problem
from leandetr.types import Prediction, Target


def boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    """Boxes inside the unit square."""
    size = 0.1 + 0.3 * torch.rand(count, 2, generator=generator)
    return torch.cat((0.3 + 0.4 * torch.rand(count, 2, generator=generator), size), 1)


def problem(
    counts: tuple[int, ...], queries: int = 5, layers: int = 2, seed: int = 0
) -> tuple[tuple[Prediction, ...], PaddedTargets]:
    """Random predictions and targets; image i has `counts[i]` boxes."""
    rng = torch.Generator().manual_seed(seed)
    predictions = tuple(
        Prediction(
            torch.randn(len(counts), queries, 3, generator=rng),
            torch.stack([boxes(queries, rng) for _ in counts]),
        )
        for _ in range(layers)
    )
    targets = [Target(torch.randint(3, (n,), generator=rng), boxes(n, rng)) for n in counts]
    return predictions, PaddedTargets.of(targets)


def best_by_trying(cost: torch.Tensor) -> float:
    """The least summed cost of any way to give every target its own query."""
    queries, targets = cost.shape
    return min(
        sum(cost[query, target].item() for target, query in enumerate(chosen))
        for chosen in permutations(range(queries), targets)
    )


@pytest.mark.parametrize("seed", range(3))
def test_no_other_pairing_costs_less(seed: int) -> None:
    layers, targets = problem((3, 0, 2), seed=seed)
    matcher = Matcher(SigmoidFocal())
    (pairs,) = matcher([Problem(layers, targets)])
    cost = matcher.cost(layers, targets)
    for layer in range(len(layers)):
        for image, count in enumerate(targets.counts):
            here = pairs.image == image
            query, target = pairs.query[layer, here], pairs.target[layer, here]
            assert sorted(target.tolist()) == list(range(count))
            assert len(set(query.tolist())) == count
            summed = cost[layer, image, query, target].sum().item()
            assert summed == pytest.approx(best_by_trying(cost[layer, image, :, :count]))


def test_each_target_is_used_as_often_as_asked() -> None:
    layers, targets = problem((2, 1), queries=7)
    (pairs,) = Matcher(SigmoidFocal())([Problem(layers, targets, 3)])
    first, second = (pairs.target[0, pairs.image == image].tolist() for image in (0, 1))
    assert sorted(first) == [0, 0, 0, 1, 1, 1]
    assert second == [0, 0, 0]


def test_more_boxes_than_queries_give_every_query_a_box() -> None:
    layers, targets = problem((8, 2), queries=5)
    (pairs,) = Matcher(SigmoidFocal())([Problem(layers, targets)])
    assert pairs.query[0, pairs.image == 0].tolist() == [0, 1, 2, 3, 4]
    assert len(set(pairs.target[0, pairs.image == 0].tolist())) == 5
    assert pairs.target[0, pairs.image == 1].sort().values.tolist() == [0, 1]


def test_no_boxes_give_no_pairs() -> None:
    layers, targets = problem((0, 0))
    (pairs,) = Matcher(SigmoidFocal())([Problem(layers, targets)])
    assert pairs.image.shape == (0,)
    assert pairs.query.shape == pairs.target.shape == (2, 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_prediction_is_matched_last(bad: float) -> None:
    layers, targets = problem((2,), queries=3, layers=1)
    layers[0].boxes[0, 0] = bad
    matcher = Matcher(SigmoidFocal())
    assert (matcher.cost(layers, targets)[0, 0, 0] == UNMATCHABLE).all()
    (pairs,) = matcher([Problem(layers, targets)])
    assert pairs.query[0].tolist() == [1, 2]


def test_costs_leave_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, targets = problem((3, 1, 2), layers=4)
    copies = []
    original = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: (copies.append(1), original(self))[1])
    Matcher(SigmoidFocal())([Problem(layers, targets), Problem(layers[:1], targets, 2)])
    assert len(copies) == 1


def test_half_precision_matches_like_full() -> None:
    layers, targets = problem((3, 2))
    rounded = tuple(Prediction(one.logits.bfloat16(), one.boxes.bfloat16()) for one in layers)
    again = tuple(Prediction(one.logits.float(), one.boxes.float()) for one in rounded)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cost = Matcher(SigmoidFocal()).cost(rounded, targets)
    assert cost.dtype == torch.float32
    assert torch.equal(cost, Matcher(SigmoidFocal()).cost(again, targets))

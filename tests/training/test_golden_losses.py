"""Losses, matches and their gradients against the official criterion of every paper."""

import pytest
import torch
from torch.testing import assert_close

from golden_data import Case, cases, load_case
from golden_losses import (
    dino_leaves,
    dino_outputs,
    dino_targets,
    official_name,
    plain_leaves,
    plain_matches,
    plain_outputs,
    plain_targets,
)
from leandetr.recipes.assemble import recipe
from leandetr.training.build import build_criterion
from leandetr.training.criterion import Criterion, Losses
from leandetr.training.matcher import PaddedTargets, Pairs, Problem
from leandetr.types import Match, Outputs, Prediction

FAMILIES = {
    "detr": "detr-r50",
    "conditional_detr": "conditional-detr-r50",
    "deformable_detr": "deformable-detr-r50",
    "h_deformable_detr": "h-detr-r50",
}
"""The preset whose criterion answers for a folder of cases."""
PLAIN = cases(*(f"{family}/loss*" for family in FAMILIES))
ENDINGS = {"main": "#", "proposals": "_enc", "one-to-many": "#_one2many"}
DINO_ENDINGS = {"main": "#", "proposals": "_interm", "denoising": "_dn#"}


def criterion_of(case: Case) -> Criterion:
    return build_criterion(recipe(FAMILIES[case.name.split("/")[0]]))


@pytest.mark.parametrize("name", PLAIN)
def test_losses_and_gradients_are_the_official_ones(name: str) -> None:
    case = load_case(name)
    leaves = plain_leaves(case)
    outputs = plain_outputs(case, leaves)
    losses = criterion_of(case)(outputs, plain_targets(case))
    # what is logged and has no weight is no loss; weights of absent terms are no terms
    expected = {
        key: case.meta["losses"][key] for key in case.meta["losses"] if key in weights(case)
    }
    check_terms(losses, expected, weights(case), ENDINGS, many=lambda_of(case))
    total = torch.tensor(case.meta["total"])
    assert_close(losses.total, total, rtol=1e-5, atol=0)
    losses.total.backward()
    for key, leaf in leaves.items():
        assert_close(leaf.grad, case.tensors[f"grad.{key}"], rtol=1e-4, atol=1e-6)


def weights(case: Case) -> dict[str, float]:
    return case.meta["weight_dict"]


def lambda_of(case: Case) -> float:
    return case.meta["args"].get("lambda_one2many", 1.0)


def check_terms(
    losses: Losses,
    expected: dict[str, float],
    weight: dict[str, float],
    endings: dict[str, str],
    *,
    many: float = 1.0,
) -> None:
    """Every term has the official value and weight; official one-to-many terms contain lambda."""
    layers = len([name for name in losses.names if name.startswith("labels/main/")])
    ours = {official_name(term.name, layers, endings): term for term in losses.terms}
    assert set(ours) == set(expected)
    for key, term in ours.items():
        factor = many if "one2many" in key else 1.0
        assert term.weight == weight[key] * factor, key
        value = torch.tensor(expected[key])
        assert_close(term.value * factor, value, rtol=1e-5, atol=1e-6, msg=lambda m, k=key: k + m)


@pytest.mark.parametrize("name", PLAIN)
def test_matches_are_the_official_ones(name: str) -> None:
    case = load_case(name)
    outputs = plain_outputs(case, plain_leaves(case))
    matcher = criterion_of(case).matcher
    targets = PaddedTargets.of(plain_targets(case))
    compared = 0
    for prefix, layers, wanted, repeat in branches(outputs, targets):
        (pairs,) = matcher([Problem(layers, wanted, repeat)])
        for index in range(len(layers)):
            output = f"{prefix}aux_{index}" if index < len(layers) - 1 else last(prefix)
            for image, expected in enumerate(plain_matches(case, output)):
                assert pairs_of(pairs, index, image) == expected, (output, image)
                compared += 1
    assert compared == len([key for key in case.tensors if key.endswith("_query")])


def branches(
    outputs: Outputs, targets: PaddedTargets
) -> list[tuple[str, tuple[Prediction, ...], PaddedTargets, int]]:
    """Prefix of the official names, layers, targets and repeats of all that is matched."""
    found = []
    for prefix, group in zip(("", "one2many_"), outputs.groups, strict=False):
        layers = tuple(layer.slice(group.start, group.stop) for layer in outputs.layers)
        assert isinstance(group.assign, Match)
        found.append((prefix, layers, targets, group.assign.repeat))
    if outputs.proposals is not None:
        found.append(("enc", (outputs.proposals,), targets.agnostic(), 1))
    return found


def last(prefix: str) -> str:
    return prefix if prefix == "enc" else f"{prefix}final"


def pairs_of(pairs: Pairs, layer: int, image: int) -> set[tuple[int, int]]:
    here = pairs.image == image
    query, target = pairs.query[layer, here].tolist(), pairs.target[layer, here].tolist()
    return set(zip(query, target, strict=True))


@pytest.mark.parametrize("name", cases("dino/criterion_*"))
def test_losses_and_gradients_are_dinos(name: str) -> None:
    case = load_case(name)
    leaves = dino_leaves(case)
    losses = build_criterion(recipe("dino-r50"))(dino_outputs(case, leaves), dino_targets(case))
    skipped = "_dn" if case.meta["dn_meta"] is None else "nothing"
    expected = {
        key: value
        for key, value in case.meta["losses"].items()
        if key in weights(case) and skipped not in key  # official terms of no denoising are 0
    }
    check_terms(losses, expected, weights(case), DINO_ENDINGS)
    total = torch.tensor(case.meta["total"])
    assert_close(losses.total, total, rtol=case.meta["tolerance"]["losses_relative"], atol=0)
    losses.total.backward()
    for key, leaf in leaves.items():
        tolerance = case.meta["tolerance"]["grads"]
        assert_close(leaf.grad, case.tensors[f"grad_{key}"], rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize("name", cases("dino/criterion_*"))
def test_matches_are_dinos(name: str) -> None:
    case = load_case(name)
    outputs = dino_outputs(case, dino_leaves(case))
    targets, main = PaddedTargets.of(dino_targets(case)), outputs.groups[0]
    assert outputs.proposals is not None
    layers = tuple(layer.slice(main.start, main.stop) for layer in outputs.layers)
    solved, proposals = build_criterion(recipe("dino-r50")).matcher(
        [Problem(layers, targets), Problem((outputs.proposals,), targets)]
    )
    names = [f"layer_{index}" for index in range(len(layers) - 1)] + ["final"]
    rows = list(zip(names, solved.query, solved.target, strict=True))
    rows.append(("interm", proposals.query[0], proposals.target[0]))
    for row, query, target in rows:
        for image in range(len(case.meta["boxes_per_image"])):
            here = solved.image == image
            found = torch.stack((query[here], target[here]))
            assert torch.equal(found, case.tensors[f"match_{row}_{image}"]), (row, image)

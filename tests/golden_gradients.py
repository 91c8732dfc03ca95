"""Compares the gradients of one backward pass with those of a case of the plain layout."""

import re

import pytest
import torch
from torch import Tensor, nn

from golden_data import Case
from golden_losses import official_name, plain_matches
from leandetr.checkpoints.keymap import Alias, Rule, to_ours
from leandetr.training.criterion import Losses
from leandetr.training.matcher import Matcher, PaddedTargets, Problem
from leandetr.types import Prediction, Target

RELATIVE, SMALL, ABSOLUTE, STORED = 1e-3, 1e-4, 1e-5, 1e-2
"""Norms agree by the first where they are above the second of the largest, else by the third of it;
stored gradients by the last (`tolerance` of the cases says so)."""


def check_gradients(case: Case, model: nn.Module, rules: list[Rule]) -> None:
    """Norms of all gradients, and the stored ones number by number."""
    norms = case.meta["grad_norms"]
    ours = _our_names(list(norms), rules)
    largest = max(norm for norm in norms.values() if norm is not None)
    for key, norm in norms.items():
        parameter = model.get_parameter(ours[key])
        if norm is None:
            assert parameter.grad is None, key
            continue
        assert parameter.grad is not None, key
        close = {"rel": RELATIVE, "abs": 0.0}
        if norm <= SMALL * largest:
            close = {"rel": 0.0, "abs": ABSOLUTE * largest}
        assert parameter.grad.norm().item() == pytest.approx(norm, **close), key
    for name in [name for name in case.tensors if name.startswith("grad.")]:
        got = model.get_parameter(ours[name.removeprefix("grad.")]).grad
        rows = re.search(r"rows \[::(\d+)\]", case.meta["tensors"][name]["meaning"])
        got = got[:: int(rows[1])] if rows else got
        expected = case.tensors[name]
        assert (got - expected).norm() / expected.norm() < STORED, name


def _our_names(official: list[str], rules: list[Rule]) -> dict[str, str]:
    """Official names of parameters to ours; a shared one is listed once, by any of its names."""
    ordered = sorted(rules, key=lambda rule: isinstance(rule, Alias))
    numbered: dict[str, Tensor] = {key: torch.tensor(i) for i, key in enumerate(official)}
    found = to_ours(numbered, ordered).state
    return {official[int(index)]: name for name, index in found.items()}


def check_losses(case: Case, losses: Losses, endings: dict[str, str]) -> None:
    """Every term, its weight and the total."""
    layers = len([name for name in losses.names if name.startswith("labels/main/")])
    ours = {official_name(term.name, layers, endings): term for term in losses.terms}
    weights = {k: v for k, v in case.meta["weight_dict"].items() if k in case.meta["losses"]}
    assert ours.keys() == weights.keys()
    for key, term in ours.items():
        assert term.weight == weights[key], key
        assert term.value.item() == pytest.approx(case.meta["losses"][key], rel=1e-4, abs=1e-6), key
    assert losses.total.item() == pytest.approx(case.meta["total"], rel=1e-5)


def check_matches(
    case: Case, matcher: Matcher, layers: tuple[Prediction, ...], targets: list[Target]
) -> None:
    """The pairs of query and target of every layer and image."""
    (pairs,) = matcher([Problem(layers, PaddedTargets.of(targets))])
    for index in range(len(layers)):
        output = f"aux_{index}" if index < len(layers) - 1 else "final"
        for image, expected in enumerate(plain_matches(case, output)):
            here = pairs.image == image
            query, target = pairs.query[index, here], pairs.target[index, here]
            assert set(zip(query.tolist(), target.tolist(), strict=True)) == expected, output

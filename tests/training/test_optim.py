from typing import Any

import pytest
import torch
from torch import nn

from leandetr.errors import RecipeError
from leandetr.recipes import create_model, list_models, recipe
from leandetr.training.optim import build_optimiser, build_schedule


def model() -> nn.ModuleDict:
    parts = {"backbone": nn.ModuleDict({"stem": nn.Linear(2, 2), "late": nn.Linear(2, 2)})}
    return nn.ModuleDict({**parts, "head": nn.Linear(2, 2)})


def rates(kind: str, steps: int, **options: Any) -> list[float]:
    """The rate of each optimiser step of a schedule over lr 1."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build_schedule(optimiser, kind=kind, **options)
    found = []
    for _ in range(steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return found


def test_the_longest_prefix_decides_the_rate() -> None:
    factors = [("backbone", 0.1), ("backbone.stem", 0.01)]
    optimiser = build_optimiser(model(), lr=1e-3, weight_decay=1e-4, factors=factors)
    found = {group["name"]: (group["lr"], len(group["params"])) for group in optimiser.param_groups}
    assert found == {
        "rest": (1e-3, 2),
        "backbone": (pytest.approx(1e-4), 2),
        "backbone.stem": (pytest.approx(1e-5), 2),
    }
    assert all(group["weight_decay"] == 1e-4 for group in optimiser.param_groups)


def test_a_star_in_a_prefix_stands_for_anything() -> None:
    factors = [("back", 0.5), ("*.weight", 0.1)]
    optimiser = build_optimiser(model(), lr=1.0, weight_decay=0.0, factors=factors)
    found = {group["name"]: (group["lr"], len(group["params"])) for group in optimiser.param_groups}
    assert found == {"rest": (1.0, 1), "back": (0.5, 2), "*.weight": (0.1, 3)}


def test_frozen_parameters_are_left_out() -> None:
    parts = model()
    parts["backbone"].requires_grad_(False)
    optimiser = build_optimiser(parts, lr=1e-3, weight_decay=0.0, factors=[("backbone", 0.1)])
    assert [group["name"] for group in optimiser.param_groups] == ["rest"]


def test_a_prefix_of_nothing_is_refused_with_the_near_one() -> None:
    with pytest.raises(RecipeError, match="did you mean backbone"):
        build_optimiser(model(), lr=1e-3, weight_decay=0.0, factors=[("backbon.", 0.1)])


def test_steps_fall_to_a_tenth_at_each_drop() -> None:
    found = rates("steps", 8, epochs=4, steps_per_epoch=2, drops=(1, 3))
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_ends_at_one_percent() -> None:
    found = rates("cosine", 11, epochs=5, steps_per_epoch=2)
    assert found[0] == 1
    assert found[5] == pytest.approx(0.505)
    assert found[10] == pytest.approx(0.01)
    assert found == sorted(found, reverse=True)


def test_warmup_rises_in_a_line() -> None:
    found = rates("steps", 6, epochs=3, steps_per_epoch=2, drops=(2,), warmup=4)
    assert found == pytest.approx([0.25, 0.5, 0.75, 1, 0.1, 0.1])


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(RecipeError, match="cosine"):
        rates("cosin", 1, epochs=1, steps_per_epoch=1)


@pytest.mark.parametrize("preset", list_models())
def test_every_factor_of_a_preset_finds_its_parameters(preset: str) -> None:
    how = recipe(preset).train
    with torch.device("meta"):
        model = create_model(preset)
    factors = [(factor.prefix, factor.factor) for factor in how.lr_factors]
    optimiser = build_optimiser(model, lr=1.0, weight_decay=0.0, factors=factors)
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    found = {name: rates[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    if ("*.offsets.", 0.1) in factors:
        slow = [rate for name, rate in found.items() if ".offsets." in name]
        assert len(slow) == 2 * how_many_layers(preset)
        assert set(slow) == {0.1}
    if ("queries.point.", 0.1) in factors:
        assert found["queries.point.weight"] == found["queries.point.bias"] == 0.1
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(found)


def how_many_layers(preset: str) -> int:
    """Layers with sampling offsets, in encoder and decoder."""
    model = recipe(preset).model
    own = getattr(model.encoder, "layers", None)
    return model.decoder.layers + (own or model.encoder.blocks * model.encoder.high_updates)

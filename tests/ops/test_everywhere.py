"""Every operator, every way of running it: the same answer, whatever the sizes and types.

The truth is the reference in double precision on the same, rounded, inputs.
"""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leandetr.ops.reference_at import locate
from sampling import Sizes
from sampling_calls import KINDS, answers, draw, value_index, ways

TYPES = (torch.float32, torch.bfloat16, torch.float16)
TYPE_PAIRS = ((torch.float64, torch.float64), *((one, two) for one in TYPES for two in TYPES))
WIDTHS = (1, 2, 3, 8, 11, 16, 17, 31, 32, 33, 64, 70)
LAYOUTS = ("plain", "turned", "sliced", "expanded")
DOUBLE, SINGLE = 1e-12, 3e-5
"""How far answers may lie apart in each precision, over one and the largest of them."""


@dataclass(frozen=True)
class Call:
    """A random call; `types` are those of what is sampled and asked, and of all the rest."""

    kind: str
    at: Sizes
    wide: int
    shared: bool
    types: tuple[torch.dtype, torch.dtype]
    layout: str
    moves: frozenset[int]
    seed: int

    def tensors(self) -> list[Tensor]:
        """Inputs as the call gets them."""
        torch.manual_seed(self.seed)
        last = value_index(self.kind)
        drawn = draw(self.kind, self.at, wide=self.wide, shared=self.shared)
        drawn = [tensor.to(self.types[index > last]) for index, tensor in enumerate(drawn)]
        _keep_off_borders(self.at, *drawn[last + 1 : last + (3 if "-at" in self.kind else 2)])
        return [_lay_out(tensor, self.layout) for tensor in drawn]


def _keep_off_borders(at, *where):
    """Draw again what falls between two cells, where the last bit decides on the gradient."""
    sides = torch.tensor([[w, h] for h, w in at.shapes], dtype=torch.float64)[:, None]
    for _ in range(20):
        found = [tensor.double() for tensor in where]
        places = found[0] if len(found) == 1 else locate(*found, at.shapes)
        pixels = places * sides - 0.5
        near = (pixels - pixels.round()).abs() < 1e-3
        if where[-1].shape[3] == 1:
            near = near.any(dim=3, keepdim=True)
        if not near.any():
            return
        where[-1][near] = torch.rand_like(where[-1][near])


def _lay_out(tensor, layout):
    """The same numbers elsewhere in memory; `expanded`: those of the first image for all."""
    if layout == "turned":
        return tensor.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "sliced":
        return torch.stack((tensor, tensor), dim=-1)[..., 0]
    if layout == "expanded" and len(tensor):
        return tensor[:1].expand_as(tensor)
    return tensor


def calls() -> st.SearchStrategy[Call]:
    """Calls of all kinds, some without images, queries or cells."""
    side = st.integers(0, 5)
    at = st.builds(
        Sizes,
        images=st.integers(0, 2),
        queries=st.integers(0, 4),
        heads=st.integers(1, 3),
        width=st.sampled_from(WIDTHS),
        points=st.integers(1, 4),
        shapes=st.lists(st.tuples(side, side), min_size=1, max_size=4).map(tuple),
    )
    return st.builds(
        Call,
        kind=st.sampled_from(KINDS),
        at=at,
        wide=st.sampled_from([2, 4]),
        shared=st.booleans(),
        types=st.sampled_from(TYPE_PAIRS),
        layout=st.sampled_from(LAYOUTS),
        moves=st.frozensets(st.integers(0, 4)),
        seed=st.integers(0, 99),
    )


def compare(way, one):
    drawn = one.tensors()
    exact = [tensor.double() for tensor in drawn]
    if one.kind.startswith("shared"):
        assert len(drawn) == 3 + one.kind.endswith("-at")
    wanted = answers("reference", one.kind, one.at.shapes, exact, one.moves)
    found = answers(way, one.kind, one.at.shapes, drawn, one.moves)
    inputs = (drawn[value_index(one.kind)], *drawn)
    for mine, true, given_ in zip(found, wanted, inputs, strict=True):
        if true is None:  # not wanted; or, in plain PyTorch, not connected: there was no cell
            assert mine is None or not (one.at.tokens or mine.any())
            continue
        assert mine.dtype == given_.dtype
        near = DOUBLE if mine.dtype == torch.float64 else SINGLE
        scale = 1 + (true.abs().max().item() if true.numel() else 0)
        step = torch.finfo(mine.dtype).eps if mine.dtype in TYPES[1:] else 0
        torch.testing.assert_close(mine.double(), true, atol=near * scale, rtol=step)


@ways
@given(one=calls())
@settings(max_examples=30)
def test_answers_are_those_of_the_reference_in_double_precision(way, one):
    compare(way, one)


@pytest.mark.exhaustive
@ways
@given(one=calls())
@settings(max_examples=1000)
def test_many_more_answers_are_those_of_the_reference(way, one):
    compare(way, one)

"""Whatever a policy does to a picture, boxes stay on what they are around."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leandetr.data.colour import adjust
from leandetr.data.transforms import (
    AugmentConfig,
    DetrAugment,
    LsjAugment,
    PlainAugment,
    SmallDataAugment,
    augmentations,
)
from leandetr.data.view import (
    View,
    crop,
    flip_horizontal,
    flip_vertical,
    pad_to,
    quarter_turn,
    scale_to,
)
from leandetr.errors import RecipeError
from leandetr.images import Preprocess

PREPROCESS = Preprocess(short=96, long=160)
POLICIES = (
    PlainAugment(),
    DetrAugment(),
    LsjAugment(size=128),
    LsjAugment(size=64, scale=(0.5, 1.0)),
    SmallDataAugment(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0),
    SmallDataAugment(turn=1.0, scale=(0.8, 2.0)),
)
LABELS = (7, 3, 5)


def painted(height: int = 80, width: int = 120) -> View:
    """Black, with a rectangle of its own pure colour in each box; label = index in LABELS."""
    pixels = torch.zeros(3, height, width, dtype=torch.uint8)
    boxes = torch.tensor(
        [
            [width // 8, height // 8, width // 8 + 24, height // 8 + 16],
            [width // 2, height // 2, width // 2 + 20, height // 2 + 30],
            [width - 16, 0, width, 20],
        ]
    )
    for channel, (x0, y0, x1, y1) in enumerate(boxes.tolist()):
        pixels[channel, y0:y1, x0:x1] = 255
    return View(pixels, boxes.float(), torch.tensor(LABELS), torch.zeros(3, dtype=torch.bool))


def around(view: View, channel: int) -> torch.Tensor | None:
    """xyxy around what is clearly painted in a channel."""
    rows, columns = torch.nonzero(view.pixels[channel] > 110, as_tuple=True)
    if not len(rows):
        return None
    return torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)).float()


def check_boxes(view: View, slack: float) -> None:
    """Every box is where its colour is, inside the picture and at least a pixel on a side."""
    height, width = view.size
    assert view.pixels.dtype == torch.uint8
    assert len(view.boxes) == len(view.labels) == len(view.crowd)
    for box, label in zip(view.boxes, view.labels.tolist(), strict=True):
        assert (box[2:] - box[:2] >= 1).all()
        assert (box >= 0).all()
        assert (box <= torch.tensor((width, height, width, height))).all()
        seen = around(view, LABELS.index(label))
        if seen is not None and (box[2:] - box[:2] >= 2).all():
            assert (seen - box).abs().max() <= slack, (seen, box)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@given(seed=st.integers(0, 2**32), height=st.integers(64, 150), width=st.integers(64, 150))
def test_boxes_stay_on_what_they_are_around(
    policy: AugmentConfig, seed: int, height: int, width: int
) -> None:
    view = policy.build(PREPROCESS)(painted(height, width), torch.Generator().manual_seed(seed))
    check_boxes(view, slack=1.6)
    share = getattr(policy, "min_share", 0.0)  # less of a box than this may be seen without it
    for channel, label in enumerate(LABELS):
        seen = around(view, channel)
        if not share and seen is not None and (seen[2:] - seen[:2] >= 3).all():
            assert label in view.labels.tolist()


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_a_policy_is_a_function_of_the_generator(policy: AugmentConfig) -> None:
    change, before = policy.build(PREPROCESS), painted()
    kept = replace(before, pixels=before.pixels.clone(), boxes=before.boxes.clone())
    state = torch.get_rng_state()
    runs = [change(before, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4, 5, 6)]
    assert torch.equal(runs[0].pixels, runs[1].pixels)
    assert torch.equal(runs[0].boxes, runs[1].boxes)
    if not isinstance(policy, PlainAugment):
        assert not all(_same(runs[0], other) for other in runs[2:])
    assert _same(before, kept), "the view given was changed"
    assert torch.equal(torch.get_rng_state(), state), "global chance was drawn"


def _same(one: View, other: View) -> bool:
    return one.size == other.size and torch.equal(one.pixels, other.pixels)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2)])
def test_extreme_shapes_and_no_boxes(policy: AugmentConfig, size: tuple[int, int]) -> None:
    empty = View(
        torch.zeros(3, *size, dtype=torch.uint8),
        torch.zeros(0, 4),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, dtype=torch.bool),
    )
    for seed in range(4):
        view = policy.build(PREPROCESS)(empty, torch.Generator().manual_seed(seed))
        assert min(view.size) >= 1
        assert max(view.size) <= 160
        assert view.boxes.shape == (0, 4)


def test_every_policy_has_a_name() -> None:
    assert {type(policy) for policy in POLICIES} == {
        augmentations.get(n) for n in augmentations.names()
    }


# ---------------------------------------------------------------- single steps

STEPS: dict[str, Callable[[View], View]] = {
    "flip_horizontal": flip_horizontal,
    "flip_vertical": flip_vertical,
    "quarter_turn": quarter_turn,
    "scale": lambda view: scale_to(view, 40, 90),
    "crop": lambda view: crop(view, (5, 10, 60, 70)),
    "pad": lambda view: pad_to(view, 200, 100),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_moves_boxes_with_the_pixels(name: str) -> None:
    check_boxes(STEPS[name](painted()), slack=1 if name == "scale" else 0)


def test_two_flips_and_four_turns_change_nothing() -> None:
    view = painted()
    for step, times in ((flip_horizontal, 2), (flip_vertical, 2), (quarter_turn, 4)):
        after = view
        for _ in range(times):
            after = step(after)
        assert torch.equal(after.pixels, view.pixels)
        assert torch.equal(after.boxes, view.boxes)


def test_a_quarter_turn_lifts_the_right_edge_to_the_top() -> None:
    view = quarter_turn(painted())
    assert view.size == (120, 80)
    assert view.boxes[2].tolist() == [0, 0, 20, 16]  # was at the right, above


def test_what_nearly_vanishes_is_dropped_with_label_and_crowd() -> None:
    view = replace(painted(), crowd=torch.tensor([False, True, False]))
    x0, y0, x1, _ = view.boxes[1].tolist()
    assert len(crop(view, (0, 0, 80, int(x0))).boxes) == 1  # beside it
    thin = crop(view, (0, int(x1) - 1, 80, 5))  # one pixel of it is left
    assert thin.labels.tolist() == [3]
    assert thin.crowd.tolist() == [True]
    assert scale_to(view, 2, 3).labels.tolist() == []
    half = (int(y0), int(x0) + 10, 30, 20)
    assert crop(view, half, min_share=0.5).labels.tolist() == [3]
    assert crop(view, half, min_share=0.51).labels.tolist() == []


# ---------------------------------------------------------------- policies


def sizes(policy: AugmentConfig, preprocess: Preprocess, view: View) -> list[tuple[int, int]]:
    change = policy.build(preprocess)
    return [change(view, torch.Generator().manual_seed(seed)).size for seed in range(60)]


def test_plain_is_what_evaluation_sees() -> None:
    view = PlainAugment().build(PREPROCESS)(painted(), torch.Generator())
    assert view.size == PREPROCESS.resized(80, 120)


def test_detr_has_the_papers_sizes_and_scales_them() -> None:
    policy = DetrAugment(crop=0.0, flip=0.0)
    square = painted(100, 100)
    quarter = sizes(policy, Preprocess(short=200, long=333), square)
    assert {side for side, _ in quarter} == {round(side / 4) for side in policy.sides}
    assert all(height == width for height, width in quarter)
    wide = sizes(policy, Preprocess(short=200, long=250), painted(80, 120))
    assert max(width for _, width in wide) <= 250
    assert max(height for height, _ in wide) <= 167


def test_detr_crops_half_of_the_time() -> None:
    ratios = [height / width for height, width in sizes(DetrAugment(), PREPROCESS, painted())]
    whole = sum(abs(ratio - 2 / 3) < 0.02 for ratio in ratios)
    assert 20 < whole < 45


def test_lsj_is_a_square_of_its_own_size() -> None:
    assert set(sizes(LsjAugment(size=100), PREPROCESS, painted())) == {(100, 100)}
    change = LsjAugment(size=100, scale=(0.5, 0.5), flip=0.0).build(PREPROCESS)
    view = change(painted(), torch.Generator())
    assert view.boxes[2, 2] == 50  # the right edge of the picture; beyond it is padding
    assert (view.pixels[:, :, 50:] == 0).all()


def test_small_data_is_never_larger_than_evaluation() -> None:
    height, width = PREPROCESS.resized(80, 120)
    found = sizes(SmallDataAugment(), PREPROCESS, painted())
    assert all(h <= height and w <= width for h, w in found)
    assert len(set(found)) > 10


def test_small_data_turns_and_mirrors_both_ways() -> None:
    still = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "scale": (1.0, 1.0)}
    change = SmallDataAugment(**still).build(Preprocess(short=80, long=80))
    corners = {
        tuple(
            (change(painted(80, 80), torch.Generator().manual_seed(s)).boxes[2, :2] > 40).tolist()
        )
        for s in range(40)
    }
    assert len(corners) == 4


@pytest.mark.parametrize(
    ("policy", "changes", "message"),
    [
        (DetrAugment, {"flip": 1.5}, "flip expects a number in 0..1, got 1.5"),
        (DetrAugment, {"sides": ()}, "sides expects side lengths"),
        (DetrAugment, {"crop_range": (600, 384)}, "crop_range expects two rising numbers"),
        (LsjAugment, {"size": 0}, "size expects side lengths of at least 1 pixel"),
        (LsjAugment, {"scale": (0.0, 2.0)}, "scale expects two rising numbers in 0.01..10"),
        (SmallDataAugment, {"hue": -0.1}, "hue expects a number in 0..1"),
        (SmallDataAugment, {"turn": math.nan}, "turn expects a number in 0..1"),
    ],
)
def test_impossible_numbers_are_refused(
    policy: type, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=f"augment {message}"):
        policy(**changes)


# ---------------------------------------------------------------- colour


def test_colour_factors_of_one_change_nothing() -> None:
    pixels = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    assert (adjust(pixels).int() - pixels.int()).abs().max() == 0


def test_each_colour_change_does_its_own() -> None:
    pixels = torch.randint(60, 180, (3, 20, 30), dtype=torch.uint8)
    mean, spread = pixels.float().mean(), pixels.float().std()
    bright = adjust(pixels, brightness=1.2).float()
    torch.testing.assert_close(bright.mean(), mean * 1.2, atol=1, rtol=0)
    flat = adjust(pixels, contrast=0.5).float()
    torch.testing.assert_close(flat.std(), spread * 0.5, atol=1.5, rtol=0)
    grey = adjust(pixels, saturation=0.0)
    assert (grey == grey[:1]).all()
    red = torch.tensor([200, 50, 50], dtype=torch.uint8).view(3, 1, 1)
    assert adjust(red, hue=1 / 3).flatten().tolist() == [50, 200, 50]

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from leandetr.errors import RecipeError
from leandetr.models.necks import shrink
from leandetr.nn.grid import valid_ratio
from leandetr.training.matcher import PaddedTargets
from leandetr.training.salience import (
    attention_loss,
    attention_share,
    decoder_attention,
    finest_stride,
    foreground_loss,
    foreground_tokens,
    most_attended,
    salience_loss,
)
from leandetr.types import (
    Attention,
    Foreground,
    Group,
    Look,
    Match,
    Outputs,
    Prediction,
    Salience,
    Shapes,
    Target,
    Tokens,
)

ANY_SIZE = ((-1.0, 64.0), (64.0, math.inf))
MAIN = Group("main", 0, 3, Match())


def tokens_of(extent: Tensor, *, stride: int = 8, levels: int = 2, canvas: int = 0) -> Tokens:
    """Featureless tokens of images of these (height, width); `canvas` more pixels of padding."""
    height, width = (side + canvas for side in extent.amax(0).tolist())
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    outside = (rows >= extent[:, 0, None, None]) | (columns >= extent[:, 1, None, None])
    steps = [stride * 2**level for level in range(levels)]
    shapes = tuple((-(-height // step), -(-width // step)) for step in steps)
    holes = [shrink(outside, torch.empty(len(extent), 1, *shape)) for shape in shapes]
    padding = torch.cat([hole.flatten(1) for hole in holes], 1)
    ratios = torch.stack([valid_ratio(hole, torch.float32) for hole in holes], 1)
    features = torch.zeros(*padding.shape, 1)
    return Tokens(features, features, padding, ratios, shapes)


def marked(extent: Tensor, *boxes: list[list[float]], canvas: int = 0) -> list[Tensor]:
    """Foreground of each level as N H W."""
    tokens = tokens_of(extent, canvas=canvas)
    targets = [Target(torch.zeros(len(b), dtype=int), torch.tensor(b).view(-1, 4)) for b in boxes]
    found = foreground_tokens(tokens, extent, PaddedTargets.of(targets), ANY_SIZE)
    parts = found.split([height * width for height, width in tokens.shapes], 1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, tokens.shapes, strict=True)]


sides = st.integers(17, 700)


@given(sides, sides, sides, sides, st.integers(0, 40), st.sampled_from((4, 8)))
def test_the_stride_is_read_off_any_images(
    h: int, w: int, h2: int, w2: int, more: int, stride: int
):
    extent = torch.tensor([[h, w], [h2, w2]])
    tokens = tokens_of(extent, stride=stride, levels=1, canvas=more)
    assert finest_stride(tokens, extent) == stride


def test_tokens_inside_a_box_of_their_level_are_foreground() -> None:
    fine, coarse = marked(torch.tensor([[64, 128]]), [[0.25, 0.5, 0.25, 0.5]])
    expected = torch.zeros(8, 16, dtype=torch.bool)  # the box is x 16 to 48, y 16 to 48
    expected[2:6, 2:6] = True
    assert torch.equal(fine[0], expected)
    assert not coarse.any()


def test_a_large_box_is_the_business_of_the_coarse_level() -> None:
    fine, coarse = marked(torch.tensor([[256, 256]]), [[0.5, 0.5, 1.0, 1.0]])
    assert not fine.any()  # whatever the token, a side of the box is 128 pixels away
    assert coarse.all()


def test_a_token_on_the_side_of_a_box_is_outside() -> None:
    fine, _ = marked(torch.tensor([[64, 64]]), [[0.25, 0.25, 0.125, 0.125]])  # 12 to 20
    assert fine.nonzero().tolist() == []
    fine, _ = marked(torch.tensor([[64, 64]]), [[0.25, 0.25, 0.126, 0.126]])
    assert fine.nonzero().tolist() == [[0, 1, 1], [0, 1, 2], [0, 2, 1], [0, 2, 2]]


@given(st.integers(17, 120), st.integers(17, 120), st.integers(0, 100))
def test_other_images_and_padding_mark_no_other_tokens(height: int, width: int, more: int) -> None:
    box = [[0.4, 0.5, 0.5, 0.7], [0.8, 0.2, 0.3, 0.3]]
    alone = marked(torch.tensor([[height, width]]), box)
    extent = torch.tensor([[height, width], [150, 90]])
    beside = marked(extent, box, [], canvas=more)
    for single, both in zip(alone, beside, strict=True):
        rows, columns = single.shape[1:]
        assert torch.equal(both[:1, :rows, :columns], single)
        assert both.sum() == single.sum()


def test_images_without_boxes_learn_that_nothing_is_there() -> None:
    extent = torch.tensor([[64, 64], [48, 80]])
    assert not any(level.any() for level in marked(extent, [], []))
    logits = torch.randn(2, 5, requires_grad=True)
    loss = foreground_loss(logits, torch.zeros(2, 5, dtype=torch.bool))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert (logits.grad > 0).all()


def look_at(*places: tuple[float, float], level: int = 0, levels: int = 2) -> Look:
    """One query an entry, one head and point; full weight on one level."""
    locations = torch.zeros(1, len(places), 1, levels, 1, 2)
    locations[0, :, 0, level, 0] = torch.tensor(places)
    weights = torch.zeros(1, len(places), 1, levels, 1)
    weights[:, :, :, level] = 1
    return Look(locations, weights)


SHAPES = ((4, 8), (2, 4))


def test_a_look_goes_to_the_cells_around_it() -> None:
    look = look_at((3 / 8, 2 / 4), (3.25 / 8, 0.0), (1.0, 1.0))
    fine, coarse = decoder_attention([look], MAIN, SHAPES).split([32, 8], 1)
    expected = torch.zeros(4, 8)
    expected[2, 3] = 1  # exactly there, for official code forgets half a cell
    expected[0, 3], expected[0, 4] = 0.75, 0.25
    assert_close(fine.view(4, 8), expected)  # the third one fell off the map
    assert not coarse.any()
    second = decoder_attention([look_at((0.5, 0.5), level=1)], MAIN, SHAPES)
    assert second.nonzero().tolist() == [[0, 32 + 1 * 4 + 2]]


def test_layers_add_up_and_other_groups_are_not_watched() -> None:
    looks = [look_at(*[(0.1 * i, 0.2)] * 2, (0.3, 0.3), (0.6, 0.6)) for i in range(3)]
    main = decoder_attention(looks, Group("main", 0, 2, Match()), SHAPES)
    other = decoder_attention(looks, Group("other", 2, 4, Match()), SHAPES)
    everyone = decoder_attention(looks, Group("main", 0, 4, Match()), SHAPES)
    assert_close(main + other, everyone)
    apart = [decoder_attention([one], Group("main", 0, 4, Match()), SHAPES) for one in looks]
    assert_close(sum(apart), everyone)
    assert not decoder_attention(looks, Group("nobody", 1, 1, Match()), SHAPES).any()


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 2**16))
def test_as_many_tokens_as_asked_and_padding_last(first: int, second: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    looked = torch.rand(2, 12, generator=rng) * (torch.rand(2, 12, generator=rng) > 0.3)
    padding = torch.rand(2, 12, generator=rng) > 0.6
    counts = torch.tensor([first, second])
    best = most_attended(looked, padding, counts)
    assert torch.equal(best.sum(1), counts)
    for image in range(2):
        if (best & padding)[image].any():
            assert best[image][~padding[image]].all()
        real = ~padding[image]
        chosen, left = looked[image][best[image] & real], looked[image][~best[image] & real]
        assert not len(chosen) or not len(left) or chosen.min() >= left.max()


def test_the_loss_is_a_multilabel_soft_margin() -> None:
    logits, wanted = torch.randn(3, 7), torch.rand(3, 7) > 0.5
    margin = torch.nn.functional.multilabel_soft_margin_loss(logits, wanted.float())
    assert_close(attention_loss(logits, wanted), margin)


def test_the_share_of_attention_is_between_nothing_and_all() -> None:
    looked = torch.rand(2, 40)
    looked[:, 32:] = 0
    everything = torch.arange(40).expand(2, -1)
    share = attention_share(looked, everything, SHAPES)
    assert_close(share, torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]))
    assert not attention_share(looked, everything[:, :0], SHAPES).any()


def outputs(shapes: Shapes, teacher: Foreground | Attention, looks: tuple[Look, ...]) -> Outputs:
    """Scores of one unpadded image of 32 x 64 pixels."""
    logits = torch.randn(1, 40, dtype=torch.bfloat16, requires_grad=True)
    salience = Salience(logits, teacher, torch.zeros(1, 0, dtype=int), torch.zeros(1, dtype=int))
    extent = torch.tensor([[32, 64]])
    layer = Prediction(torch.zeros(1, 3, 2), torch.full((1, 3, 4), 0.5))
    tokens = tokens_of(extent)
    assert tokens.shapes == shapes
    return Outputs((layer,), None, (MAIN,), salience, (), looks, tokens, extent)


@pytest.mark.parametrize("teacher", [Foreground(ANY_SIZE), Attention(torch.tensor([5]))])
@pytest.mark.parametrize("count", [0, 2])
def test_scores_of_half_precision_learn_in_full(
    teacher: Foreground | Attention, count: int
) -> None:
    made = outputs(SHAPES, teacher, (look_at((0.3, 0.4), (0.2, 0.1), (0.7, 0.8)),))
    targets = [Target(torch.zeros(count, dtype=int), torch.rand(count, 4) * 0.5 + 0.2)]
    loss = salience_loss(made, PaddedTargets.of(targets))
    assert loss.dtype == torch.float32
    assert made.salience is not None
    (gradient,) = torch.autograd.grad(loss, made.salience.logits)
    assert gradient.isfinite().all()
    assert gradient.any()


def test_a_decoder_that_reports_nothing_is_named() -> None:
    made = outputs(SHAPES, Attention(torch.tensor([5])), ())
    with pytest.raises(RecipeError, match="expected a decoder that samples"):
        salience_loss(made, PaddedTargets.of([Target(torch.zeros(0, dtype=int), torch.rand(0, 4))]))

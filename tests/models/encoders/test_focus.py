"""The foreground encoder's own laws."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.encoders.focus import FocusEncoderConfig
from leandetr.models.heads import ProposalHead
from leandetr.types import Foreground
from tiny import CLASSES, DIM, canvas, stir

SHAPES = ((4, 6), (2, 3), (1, 2))
CELLS = (24 + 6 + 2, 12 + 4 + 2)
"""Tokens of each of `two_images` without its padding."""
SMALL = {"heads": 2, "points": 1, "hidden": 16, "objects": 3}
CASCADE = (1.0, 0.6, 0.2)


def build(keep=0.5, cascade=CASCADE, **ways):
    dims = Dims(DIM, len(SHAPES), CLASSES)
    encoder = FocusEncoderConfig(keep, cascade, **SMALL | ways).build(dims)
    parts = encoder, ProposalHead(DIM, CLASSES)
    for part in parts:
        stir(part)
    return parts[0].eval(), parts[1]


def two_images(junk=3.0):
    first = [torch.randn(h, w, 2 * DIM) for h, w in SHAPES]
    second = [torch.randn(h, w, 2 * DIM) for h, w in ((3, 4), (2, 2), (1, 2))]
    return canvas([first, second], SHAPES, junk=junk)


def watch(encoder):
    """What every layer was given and what it answered."""
    seen = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda module, given, answer: seen.append((*given, answer)))
    return seen


def changed(before, after):
    return (before.features != after.features).any(dim=-1)


def official_counts(valid, keep, cascade):
    """noah-research Focus-DETR: focus_token_nums, and what every layer gathers."""
    nums = (torch.tensor(valid) * keep).int() + 1
    return nums.tolist(), (torch.tensor(cascade) * int(nums.max())).int().tolist()


@pytest.mark.parametrize("part", [1.0, 0.8, 0.6, 0.4, 0.2, 0.9, 0.7, 0.5, 0.3, 0.1])
def test_counts_in_whole_numbers_are_those_of_single_precision(part):
    counts = torch.arange(50_001)
    ours = torch.div(counts * round(part * 1000), 1000, rounding_mode="floor")
    assert torch.equal(ours, (torch.tensor(part) * counts).int())


@settings(max_examples=10)
@given(keep=st.integers(1, 9), second=st.integers(1, 10))
def test_the_best_tokens_are_refined_as_often_as_the_cascade_says(keep, second):
    keep, cascade = keep / 10, (1.0, second / 10)
    encoder, head = build(keep, cascade)
    tokens = two_images()
    seen = watch(encoder)
    found = encoder(tokens, head)
    nums, widths = official_counts(CELLS, keep, cascade)
    assert found.salience.counts.tolist() == nums
    assert isinstance(found.salience.teacher, Foreground)
    moved = changed(tokens, found.tokens)
    assert moved.sum(dim=1).tolist() == nums
    assert not (moved & tokens.padding).any()
    for image, count in enumerate(nums):
        scores = found.salience.logits[image].masked_fill(tokens.padding[image], -torch.inf)
        best = scores.sort(descending=True)
        assert torch.equal(scores[found.salience.kept[image, :count]], best.values[:count])
        twice = best.indices[: min(count, max(widths[1], 1))]
        again = seen[1][-1][image, : len(twice)]
        assert torch.equal(found.tokens.features[image, twice], again)


def test_values_are_always_the_features_that_came_in():
    encoder, head = build()
    tokens = two_images()
    seen = watch(encoder)
    encoder(tokens, head)
    assert all(torch.equal(memory.features, tokens.features) for _, memory, _ in seen)
    asking, _, answer = seen[0]
    later = seen[1][0].features
    assert torch.equal(later[0], answer[0, : later.shape[1]])
    assert not torch.equal(later[0], asking.features[0, : later.shape[1]])


def test_object_tokens_have_the_largest_product_of_class_and_foreground_logits():
    encoder, head = build(keep=0.9, objects=4)
    tokens = two_images()
    seen = watch(encoder)
    salience = encoder(tokens, head).salience
    _, widths = official_counts(CELLS, 0.9, CASCADE)
    for (asking, _, _), width in zip(seen, widths, strict=True):
        kept = salience.kept[:, : asking.features.shape[1]]
        likely = head.classes(asking.features).amax(dim=-1) * salience.logits.gather(1, kept)
        for image, valid in enumerate(CELLS):
            usable = min(width, valid)  # padding never, what only fills the batch perhaps
            best = likely[image, :usable].topk(min(4, usable)).indices
            chosen = asking.objects[image, ~asking.unused[image]]
            assert torch.equal(chosen, best)
            assert not tokens.padding[image, kept[image, chosen]].any()


def test_only_object_tokens_talk_to_each_other():
    encoder, head = build(cascade=(1.0,))
    tokens = two_images()
    seen = watch(encoder)
    encoder(tokens, head)
    layer, (asking, _, answer) = encoder.layers[0], seen[0]
    talked = torch.zeros(asking.features.shape[:2], dtype=torch.bool)
    talked.scatter_(1, asking.objects, True)
    alone = replace(asking, objects=asking.objects[:, :1], unused=asking.unused[:, :1])
    moved = (layer(alone, tokens) != answer).any(dim=-1)
    assert moved.any()
    assert torch.equal(moved & ~talked, torch.zeros_like(moved))


def test_slots_without_an_object_token_change_nothing():
    encoder, head = build(cascade=(1.0,))
    tokens = two_images()
    seen = watch(encoder)
    encoder(tokens, head)
    layer, (asking, _, answer) = encoder.layers[0], seen[0]
    spare = torch.tensor([[5, 6], [5, 6]])
    assert not (asking.objects[..., None] == spare[:, None]).any()
    more = replace(
        asking,
        objects=torch.cat((asking.objects, spare), dim=1),
        unused=torch.cat((asking.unused, torch.ones(2, 2, dtype=torch.bool)), dim=1),
    )
    others = torch.ones(answer.shape[1], dtype=torch.bool)
    others[5:7] = False
    torch.testing.assert_close(layer(more, tokens)[:, others], answer[:, others])


def test_what_padding_holds_changes_nothing():
    encoder, head = build()
    tokens = two_images(junk=0.0)
    noise = torch.randn_like(tokens.features) * 3 * tokens.padding[..., None]
    other = replace(tokens, features=tokens.features + noise, position=tokens.position - noise)
    one, two = encoder(tokens, head), encoder(other, head)
    torch.testing.assert_close(one.salience.logits, two.salience.logits)
    valid = ~tokens.padding
    torch.testing.assert_close(one.tokens.features[valid], two.tokens.features[valid])


@pytest.mark.parametrize("shapes", [((1, 1),) * 3, ((2, 1), (1, 1), (1, 1)), SHAPES])
@pytest.mark.parametrize("keep", [0.001, 0.5, 1.0])
def test_a_layer_refines_one_token_at_least(shapes, keep):
    """The official code fails where a layer has fewer tokens than objects to choose."""
    encoder, head = build(keep, objects=300)
    tokens = canvas([[torch.randn(h, w, 2 * DIM) for h, w in shapes]], shapes)
    found = encoder(tokens, head)
    assert found.tokens.features.isfinite().all()
    assert changed(tokens, found.tokens).sum() == found.salience.counts
    assert found.salience.counts <= tokens.features.shape[1]


def test_every_weight_learns():
    encoder, head = build()
    found = encoder(two_images(), head)
    (found.tokens.features.square().sum() + found.salience.logits.square().sum()).backward()
    assert all(parameter.grad.any() for parameter in encoder.parameters())
    assert head.project.weight.grad.any()
    assert head.classes.weight.grad is None  # it only chooses here, as in the official code


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"keep": 0.0}, r"encoder\.keep above 0 .*got 0\.0; type encoder\.keep=0\.001"),
        ({"keep": 0.12345}, r"whole thousandths; got 0\.12345; type encoder\.keep=0\.123"),
        ({"cascade": ()}, r"one share a layer; got none; type encoder\.cascade"),
        ({"cascade": (1.0, 1.5)}, r"encoder\.cascade\[1\] above 0 and up to 1"),
        ({"cascade": (0.5, 0.4)}, r"a 1\.0; got \[0\.5, 0\.4\]; lower encoder\.keep instead"),
        ({"objects": 0}, r"encoder\.objects of at least 1; got 0"),
    ],
)
def test_impossible_numbers_are_refused(changes, told):
    with pytest.raises(RecipeError, match=told):
        FocusEncoderConfig(**changes)

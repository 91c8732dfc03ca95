"""Laws that every encoder obeys in every deformable detector, by being registered."""

import re
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leandetr.checkpoints.store import load, save
from leandetr.models.decoders.dino import DinoDecoderConfig
from leandetr.models.encoders import encoders
from leandetr.nn.foreground import ForegroundScorer
from leandetr.nn.scoring import TokenScorer
from leandetr.recipes import build, dump_yaml, from_dict, load_yaml, to_dict
from leandetr.training.build import build_criterion
from leandetr.types import Images
from tiny import (
    CLASSES,
    QUERIES,
    SIZES,
    batch,
    blocks,
    canvas,
    family,
    single_level,
    targets,
    tiny,
    tiny_model,
)

NATIVE = "deformable"
MIXES = {
    "lite-scored": lambda: encoders.get("lite")(
        **{k: v for k, v in SIZES.items() if k in LITE_FIELDS}, keep_low=0.5
    ),
}
"""Encoders that are a setting of a registered one."""
LITE_FIELDS = {item.name for item in fields(encoders.get("lite"))}
CELLS = [
    # every encoder in one detector of each kind of parts, every switch of them with one encoder
    *((detector, encoder) for encoder in encoders.names() for detector in family(False)),
    *((detector, NATIVE) for detector in family() if detector not in family(False)),
    *((detector, mix) for mix in MIXES for detector in ("dino-nano", "deformable-detr-r50")),
    *((detector, None) for detector in single_level()),
]
GRID = [
    pytest.param(detector, encoder, id=f"{encoder or 'own'}-in-{detector}")
    for detector, encoder in CELLS
]
everywhere = pytest.mark.parametrize(("detector", "encoder"), GRID)


def chosen(encoder):
    """What `tiny` takes for an encoder of the grid."""
    return MIXES[encoder]() if encoder in MIXES else encoder


def make(detector, encoder, **changes):
    """A tiny detector in evaluation mode."""
    return tiny_model(detector, chosen(encoder), **changes)


def losses(model, images, boxes, seed=0):
    """The losses of a training batch; the seed fixes the denoising noise."""
    torch.manual_seed(seed)
    return build_criterion(model.recipe)(model(images, boxes), boxes)


def test_the_grid_has_every_encoder_in_every_detector():
    assert {"dense", "deformable", "focus", "lite", "sparse"} <= set(encoders.names())
    assert {"deformable-detr-r50", "deformable-detr-nano", "h-detr-nano", "dino-nano"} <= set(
        family(False)
    )
    assert {"detr-r50", "conditional-detr-r50"} <= set(single_level())
    assert {"lite-dino-nano", "h-detr-r50-plain"} <= set(family())


@everywhere
def test_outputs_have_their_shapes(detector, encoder):
    model = make(detector, encoder)
    outputs = model(batch((96, 64), (64, 90)))
    kinds = CLASSES + model.recipe.model.background
    assert len(outputs.layers) == 2
    for layer in outputs.layers:
        assert layer.logits.shape == (2, QUERIES, kinds)
        assert layer.boxes.shape == (2, QUERIES, 4)
        assert ((layer.boxes >= 0) & (layer.boxes <= 1)).all()
    assert [group.name for group in outputs.groups] == ["main"]
    assert outputs.answer.logits.shape == (2, QUERIES, kinds)
    assert torch.equal(outputs.answer.boxes, outputs.layers[-1].boxes)


@everywhere
def test_training_groups_come_behind_the_main_queries(detector, encoder):
    model = make(detector, encoder).train()
    outputs = model(batch((64, 64), (64, 64)), targets(2, 3))
    assert outputs.groups[0].name == "main"
    ends = [(group.start, group.stop) for group in outputs.groups]
    assert ends[0] == (0, QUERIES)
    assert all(after[0] == before[1] for before, after in zip(ends, ends[1:], strict=False))
    assert len(ends) == 1 + len(model.recipe.model.groups)
    assert outputs.layers[-1].logits.shape[1] == ends[-1][1]
    assert (ends[-1][1] > QUERIES) == bool(model.recipe.model.groups)
    assert outputs.answer.logits.shape[1] == QUERIES


@everywhere
def test_gradients_reach_every_parameter(detector, encoder):
    """Also without any box, and with more boxes than queries: no rank of a run may stand alone."""
    model = make(detector, encoder).train()
    images = batch((96, 64), (64, 90), (64, 64))
    for counts in ((0, 0, 0), (40, 1, 0), (2, 0, 3)):
        model.zero_grad(set_to_none=True)
        total = losses(model, images, targets(*counts)).total
        assert total.isfinite()
        total.backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, (counts, name)
            assert parameter.grad.isfinite().all(), (counts, name)
    for name, parameter in model.named_parameters():
        assert STILL.search(f"{detector} {name}") or parameter.grad.any(), name


side = st.integers(0, 3)
TIGHT = ((6, 7), (3, 3), (1, 1))
PADDED_POSITIONS = (DinoDecoderConfig,)
"""Decoders that embed boxes as fractions of the padded finest level, as official code does
(IDEA-Research/DINO:models/dino/deformable_transformer.py, TransformerDecoder): for them the law
holds from the second level on."""


@everywhere
@settings(max_examples=3)
@given(smaller=st.tuples(side, side), first=st.tuples(side, side), second=st.tuples(side, side))
def test_padding_tokens_changes_nothing(detector, encoder, smaller, first, second):
    """From the tokens on: a larger canvas, whatever its padding holds, gives the same answer."""
    model = make(detector, encoder, queries=few_queries(detector))
    score_padding_least(model)
    forget_the_canvas(model)
    levels = model.recipe.model.neck.levels
    contents = [blocks(6, 7, levels), blocks(6 - smaller[0], 7 - smaller[1], levels)]
    tight = TIGHT[:levels]
    wide = ((6 + first[0], 7 + first[1]), (3 + second[0], 3 + second[1]), (2, 2))[:levels]
    small, large = canvas(contents, tight), canvas(contents, wide, junk=3.0)
    agree(encode(model, small), encode(model, large))
    if isinstance(model.recipe.model.decoder, PADDED_POSITIONS):
        large = canvas(contents, (tight[0], *wide[1:]), junk=3.0)
    agree(decode(model, small), decode(model, large))


def few_queries(detector):
    return replace(tiny(detector).model.queries, count=4)


def score_padding_least(model):
    """Padded tokens share one score and may be chosen, as in official code; here they never are."""
    head = model.proposals
    if head is None:
        return
    with torch.no_grad():
        head.project.bias.zero_()
        head.norm.bias.zero_()
        head.classes.bias.zero_()
        head.classes.weight[1] = -head.classes.weight[0]
        if getattr(model.recipe.model.queries, "agnostic", False):  # class 0 alone is looked at
            head.classes.bias[0] = 50.0
            head.norm.bias.copy_(head.classes.weight[0])


def forget_the_canvas(model):
    """The official exceptions for encoders that score tokens.

    Their scorer looks at the mean of a whole map, padding included, and Focus-DETR interpolates
    coarse scores over the padded map: neither has a say here.
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, TokenScorer):
                first = module.judge[0].weight
                first[:, first.shape[1] // 2 :] = 0
            if isinstance(module, ForegroundScorer) and module.strength is not None:
                module.strength.zero_()


@torch.no_grad()
def encode(model, tokens):
    """Encoded valid tokens, and what the chosen queries are."""
    encoded = model.encoder(tokens, model.proposals).tokens
    queries, _ = model.queries(encoded, model.proposals)
    said = (queries.content, queries.position, queries.reference)
    return encoded.features[~tokens.padding], *(one for one in said if one is not None)


@torch.no_grad()
def decode(model, tokens):
    encoded = model.encoder(tokens, model.proposals).tokens
    queries, _ = model.queries(encoded, model.proposals)
    answer = model.decoder(queries, encoded, model.heads).layers[-1]
    return answer.logits, answer.boxes


STILL = re.compile(
    r"^detr\S* decoder\.layers\.0\.self_attention\."
    r"|^conditional\S* decoder\.layers\.0\.self_attention\.((query|key)_content|value)\.weight"
)
"""Parameters whose gradient is zero in theory: in the first layer of these decoders the content of
the queries is nothing yet, for comparing as well as for mixing."""


def agree(first, second):
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@everywhere
@settings(max_examples=2)
@given(order=st.permutations(range(3)))
def test_permuting_the_batch_permutes_the_answer(detector, encoder, order):
    model = make(detector, encoder)
    images = batch((64, 96), (96, 64), (50, 33))
    with torch.no_grad():
        straight = model(images).answer
        permuted = model(Images(images.pixels[order], images.padding[order])).answer
    torch.testing.assert_close(permuted.boxes, straight.boxes[order], atol=1e-5, rtol=0)
    torch.testing.assert_close(permuted.logits, straight.logits[order], atol=1e-5, rtol=0)


@everywhere
def test_a_step_against_the_gradient_lowers_the_loss(detector, encoder):
    """Of images without padding, whose tokens tie: where proposals tie, any step may swap them."""
    model = make(detector, encoder).train()
    images, boxes = batch((64, 64), (64, 64)), targets(3, 2)
    before = losses(model, images, boxes).total
    before.backward()
    steepness = sum(parameter.grad.square().sum() for parameter in model.parameters())
    step = 5e-5 / float(steepness)  # so short that no proposal changes its rank
    torch.optim.SGD(model.parameters(), lr=step).step()
    drop = before - losses(model, images, boxes).total
    assert 2.5e-5 < drop < 1e-4


@everywhere
def test_recipes_come_back_from_dicts_and_yaml(detector, encoder):
    recipe = tiny(detector, chosen(encoder))
    assert from_dict(to_dict(recipe)) == recipe
    assert load_yaml(dump_yaml(recipe)) == recipe


@everywhere
def test_a_saved_model_answers_bit_for_bit(detector, encoder, tmp_path):
    model = make(detector, encoder)
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    assert again.recipe == model.recipe
    state = again.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    images = batch((64, 48))
    with torch.no_grad():
        assert torch.equal(model(images).answer.logits, again(images).answer.logits)


@everywhere
def test_the_smallest_images_are_answered(detector, encoder):
    """Fewer tokens than queries give as many queries as there are tokens; nothing is NaN."""
    model = make(detector, encoder, queries=replace(tiny(detector).model.queries, count=50))
    for sizes in ([(32, 32)], [(1, 1)], [(1, 70), (1, 1)], [(70, 1), (64, 64)]):
        images = batch(*sizes)
        answer = model.eval()(images).answer
        assert 1 <= answer.logits.shape[1] <= 50, sizes
        assert answer.logits.isfinite().all(), sizes
        assert answer.boxes.isfinite().all(), sizes
        if len(sizes) > 1:  # batch norm cannot train on one value a channel
            assert losses(model.train(), images, targets(1, 0)).total.isfinite(), sizes


def test_the_same_recipe_and_seed_give_the_same_weights():
    one, other = [], []
    for kept in (one, other):
        torch.manual_seed(5)
        kept.extend(build(tiny()).parameters())
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

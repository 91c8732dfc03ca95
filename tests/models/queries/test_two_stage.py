"""Two-stage queries, whatever they say besides where they are."""

from dataclasses import replace

import pytest
import torch

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.heads import ProposalHead
from leandetr.models.queries.two_stage import CONTENTS, TwoStageQueriesConfig
from leandetr.nn.grid import pick
from leandetr.nn.position import sine_coordinates
from leandetr.training.build import build_criterion
from leandetr.types import Match
from tiny import DIM, batch, blocks, canvas, stir, targets, tiny, tiny_model

TOTAL = 24
every_content = pytest.mark.parametrize("content", sorted(CONTENTS))


@pytest.fixture
def tokens():
    return canvas([blocks(4, 5, levels=2), blocks(3, 3, levels=2)], ((4, 5), (2, 2)))


@pytest.fixture
def head():
    head = ProposalHead(DIM, 3)
    stir(head)
    return head


def source(count=5, **settings):
    source = TwoStageQueriesConfig(count, **settings).build(Dims(DIM, 2, 3))
    stir(source)
    return source


@every_content
@pytest.mark.parametrize("agnostic", [True, False])
def test_the_best_tokens_ask_in_order(tokens, head, content, agnostic):
    queries, proposed = source(content=content, agnostic=agnostic)(tokens, head)
    logits = head(tokens).logits
    scores = logits[..., 0] if agnostic else logits.amax(dim=-1)
    best = scores.sort(dim=1, descending=True).indices[:, :5]
    torch.testing.assert_close(queries.reference, pick(proposed.boxes, best))
    assert queries.content.shape == queries.position.shape == (2, 5, DIM)
    assert queries.sights == ()
    (group,) = queries.groups
    assert (group.name, group.start, group.stop, group.assign) == ("main", 0, 5, Match())


@pytest.mark.parametrize("agnostic", [True, False])
def test_all_tokens_are_supervised(tokens, head, agnostic):
    _, proposed = source(agnostic=agnostic)(tokens, head)
    assert proposed.agnostic is agnostic
    torch.testing.assert_close(proposed.logits, head(tokens).logits)
    candidates = head(tokens)
    placed = (head.boxes(candidates.features) + candidates.box_logits).sigmoid()
    torch.testing.assert_close(proposed.boxes, placed)


@every_content
def test_no_gradient_flows_from_a_query_into_its_box_or_score(tokens, head, content):
    queries, proposed = source(content=content)(tokens, head)
    assert not queries.reference.requires_grad
    (queries.position.sum() + queries.content.sum()).backward()
    assert all(parameter.grad is None for parameter in head.parameters())
    assert proposed.boxes.requires_grad


def test_embedded_position_and_content_are_halves_of_one_embedding(tokens, head):
    two_stage = source(content="embedded")
    queries, _ = two_stage(tokens, head)
    embed = two_stage.describe.embed
    said = embed.norm(embed.project(sine_coordinates(queries.reference, DIM // 2)))
    torch.testing.assert_close(queries.position, said[..., :DIM])
    torch.testing.assert_close(queries.content, said[..., DIM:])


def test_learned_content_goes_by_rank(tokens, head):
    two_stage = source(content="learned", spare=3)
    queries, _ = two_stage(tokens, head)
    table = two_stage.describe.content.weight
    assert table.shape == (8, DIM)
    assert all(torch.equal(content, table[:5]) for content in queries.content)
    more = two_stage.spare(tokens, head)
    assert all(torch.equal(content, table[5:]) for content in more.content)
    assert not torch.equal(queries.position[0], queries.position[1])


def test_tokens_ask_for_themselves(tokens, head):
    queries, _ = source(content="tokens")(tokens, head)
    best = head(tokens).logits[..., 0].topk(5, dim=1).indices
    assert torch.equal(queries.content, pick(tokens.features, best))


def test_content_of_tokens_teaches_the_encoder(tokens, head):
    features = tokens.features.clone().requires_grad_()
    queries, _ = source(content="tokens")(tokens.with_features(features), head)
    queries.content.sum().backward()
    assert features.grad.any()


@every_content
def test_spare_queries_are_of_the_next_proposals(tokens, head, content):
    two_stage = source(content=content, spare=4)
    more = two_stage.spare(tokens, head)
    best = head(tokens).logits[..., 0].topk(9, dim=1).indices[:, 5:]
    _, proposed = two_stage(tokens, head)
    torch.testing.assert_close(more.reference, pick(proposed.boxes, best))
    assert more.content.shape == more.position.shape == (2, 4, DIM)


@every_content
@pytest.mark.parametrize("count", [TOTAL - 1, TOTAL, TOTAL + 1, 300])
def test_no_more_queries_than_tokens(tokens, head, content, count):
    two_stage = source(count, content=content, spare=7)
    queries, proposed = two_stage(tokens, head)
    kept = min(count, TOTAL)
    assert queries.content.shape == queries.position.shape == (2, kept, DIM)
    assert queries.groups[0].stop == kept
    assert proposed.logits.shape[1] == TOTAL
    assert two_stage.spare(tokens, head).content.shape[1] == min(7, TOTAL - kept)


def test_tokens_that_may_not_propose_have_the_last_corner_as_their_box(tokens, head):
    queries, proposed = source(TOTAL)(tokens, head)
    invalid = ~head(tokens).valid
    assert invalid[1].sum() > 0
    assert torch.equal((proposed.boxes == 1).all(dim=-1), invalid)
    assert (queries.reference[1] == 1).all(dim=-1).sum() == invalid[1].sum()
    assert queries.content.isfinite().all()
    assert queries.position.isfinite().all()


def test_a_source_without_spare_queries_says_how_to_have_some(tokens, head):
    with pytest.raises(RecipeError, match=r"type --set queries\.spare=1500"):
        source().spare(tokens, head)


def test_impossible_settings_are_refused():
    with pytest.raises(RecipeError, match="count of at least 1; got 0"):
        TwoStageQueriesConfig(count=0)
    with pytest.raises(RecipeError, match="of embedded, learned, tokens; got 'guessed'"):
        TwoStageQueriesConfig(content="guessed")


@pytest.mark.parametrize("preset", ["deformable-detr-nano", "h-detr-nano", "h-detr-r50-plain"])
def test_two_stages_without_refinement_answer_and_learn(preset):
    """The official code stops there: its heads are too few for the proposals."""
    decoder = replace(tiny(preset).model.decoder, refine=False, look_twice=False)
    model = tiny_model(preset, decoder=decoder, shared_heads=True).train()
    images, boxes = batch((64, 48), (48, 64)), targets(2, 1)
    outputs = model(images, boxes)
    build_criterion(model.recipe)(outputs, boxes).total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    assert model.queries.describe.embed.project.weight.grad.any()
    assert not torch.equal(outputs.layers[0].boxes, outputs.layers[1].boxes)


@pytest.mark.parametrize("preset", ["deformable-detr-r50", "deformable-detr-nano", "h-detr-nano"])
def test_half_precision_leaves_boxes_in_single(preset):
    model = tiny_model(preset).train()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(batch((64, 48), (48, 64)), targets(2, 1))
    for layer in outputs.layers:
        assert layer.boxes.dtype == torch.float32
        assert layer.boxes.isfinite().all()
    if outputs.proposals is not None:
        assert outputs.proposals.boxes.dtype == torch.float32

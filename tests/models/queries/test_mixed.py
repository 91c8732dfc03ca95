"""Mixed query selection."""

import pytest
import torch

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.heads import ProposalHead
from leandetr.models.queries.mixed import MixedQueries, MixedQueriesConfig
from leandetr.types import Match
from tiny import DIM, blocks, canvas, stir


@pytest.fixture
def tokens():
    return canvas([blocks(4, 5, levels=2), blocks(3, 3, levels=2)], ((4, 5), (2, 2)))


@pytest.fixture
def head():
    head = ProposalHead(DIM, 3)
    stir(head)
    return head


def test_queries_are_the_best_tokens_in_order(tokens, head):
    source = MixedQueries(DIM, count=5)
    queries, chosen = source(tokens, head)
    scores = head(tokens).logits.amax(dim=-1)
    best = scores.sort(dim=1, descending=True)
    torch.testing.assert_close(chosen.logits.amax(dim=-1), best.values[:, :5])
    candidates = head(tokens)
    for image in range(2):
        index = best.indices[image, :5]
        placed = head.boxes(candidates.features[image, index]) + candidates.box_logits[image, index]
        torch.testing.assert_close(queries.reference[image], placed.sigmoid())


def test_content_is_learned_and_goes_by_rank(tokens, head):
    source = MixedQueries(DIM, count=5)
    queries, _ = source(tokens, head)
    for content in queries.content:
        assert torch.equal(content, source.content.weight)
    assert queries.position is None
    assert queries.sights == ()


def test_no_gradient_flows_from_queries_into_proposals(tokens, head):
    source = MixedQueries(DIM, count=5)
    queries, chosen = source(tokens, head)
    assert not queries.reference.requires_grad
    assert chosen.boxes.requires_grad
    assert chosen.logits.requires_grad
    assert torch.equal(queries.reference, chosen.boxes)


@pytest.mark.parametrize("count", [23, 24, 25, 900])
def test_no_more_queries_than_tokens(tokens, head, count):
    source = MixedQueries(DIM, count=count)
    queries, chosen = source(tokens, head)
    kept = min(count, 24)
    assert queries.content.shape == (2, kept, DIM)
    assert chosen.logits.shape == (2, kept, 3)
    (group,) = queries.groups
    assert (group.name, group.start, group.stop, group.assign) == ("main", 0, kept, Match())


def test_padding_that_is_chosen_covers_the_whole_corner(tokens, head):
    """Official behaviour: padded tokens tie and may be chosen; their box is (1, 1, 1, 1)."""
    queries, _ = MixedQueries(DIM, count=24)(tokens, head)
    padded = int(tokens.padding[1].sum())
    assert (queries.reference[1] == 1).all(dim=-1).sum() == padded > 0
    assert queries.reference.isfinite().all()


def test_the_config_builds_and_refuses_nothing_less_than_one():
    assert MixedQueriesConfig(count=7).build(Dims(8, 2, 3)).content.weight.shape == (7, 8)
    with pytest.raises(RecipeError, match="count of at least 1; got 0"):
        MixedQueriesConfig(count=0)


def test_spare_queries_come_next_in_rank():
    torch.manual_seed(3)
    tokens, head = canvas([blocks(6, 7)], ((6, 7), (3, 3), (1, 1))), ProposalHead(16, 3)
    stir(head)
    few, all_of_them = MixedQueries(16, count=4, spare=5), MixedQueries(16, count=9)
    few.content.weight = all_of_them.content.weight
    spare, (whole, _) = few.spare(tokens, head), all_of_them(tokens, head)
    torch.testing.assert_close(spare.reference, whole.reference[:, 4:])
    assert torch.equal(spare.content, whole.content[:, 4:])
    with pytest.raises(RecipeError, match=r"queries\.spare"):
        all_of_them.spare(tokens, head)

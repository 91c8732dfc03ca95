"""Learned queries."""

import pytest
import torch

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.queries.learned import LearnedQueriesConfig
from leandetr.types import Match
from tiny import DIM, blocks, canvas


@pytest.fixture
def tokens():
    return canvas([blocks(4, 5, levels=1), blocks(3, 3, levels=1)], ((4, 5),))


def build(**sizes):
    return LearnedQueriesConfig(**sizes).build(Dims(DIM, 1, 3))


def test_positions_are_learned_and_content_starts_at_zero(tokens):
    source = build(count=5)
    queries, chosen = source(tokens, None)
    assert chosen is None
    assert queries.content.shape == (2, 5, DIM)
    assert not queries.content.any()
    assert all(torch.equal(position, source.position.weight) for position in queries.position)
    assert queries.reference is None
    assert queries.sights == ()
    (group,) = queries.groups
    assert (group.name, group.start, group.stop, group.assign) == ("main", 0, 5, Match())


def test_gradients_reach_the_table(tokens):
    source = build(count=5)
    source(tokens, None)[0].position.square().sum().backward()
    assert source.position.weight.grad.all()


def test_spare_queries_are_the_next_rows(tokens):
    source = build(count=4, spare=3)
    spare = source.spare(tokens, None)
    assert source(tokens, None)[0].position.shape == (2, 4, DIM)
    assert torch.equal(spare.position[1], source.position.weight[4:])
    assert not spare.content.any()
    with pytest.raises(RecipeError, match=r"queries\.spare"):
        build(count=4).spare(tokens, None)


def test_counts_of_nothing_are_refused():
    with pytest.raises(RecipeError, match="count of at least 1; got 0"):
        LearnedQueriesConfig(count=0)
    with pytest.raises(RecipeError, match="spare of at least 0; got -1"):
        LearnedQueriesConfig(spare=-1)

"""Learned queries with reference points."""

import pytest
import torch

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.queries.points import PointQueriesConfig
from leandetr.recipes import build
from leandetr.types import Match
from tiny import DIM, QUERIES, batch, blocks, canvas, tiny

TOKENS = canvas([blocks(3, 3, levels=1), blocks(2, 3, levels=1)], ((3, 3),))


def source(count=5, spare=0):
    return PointQueriesConfig(count, spare).build(Dims(DIM, 1, 3))


def test_every_image_is_asked_the_same():
    queries, proposed = source()(TOKENS, None)
    assert proposed is None
    assert queries.sights == ()
    assert queries.content.shape == queries.position.shape == (2, 5, DIM)
    assert queries.reference.shape == (2, 5, 2)
    for said in (queries.content, queries.position, queries.reference):
        assert torch.equal(said[0], said[1])
    (group,) = queries.groups
    assert (group.name, group.start, group.stop, group.assign) == ("main", 0, 5, Match())


def test_the_table_holds_position_then_content_and_the_point_is_read_off_the_position():
    points = source()
    queries, _ = points(TOKENS, None)
    assert torch.equal(queries.position[0], points.table.weight[:, :DIM])
    assert torch.equal(queries.content[0], points.table.weight[:, DIM:])
    expected = points.point(points.table.weight[:, :DIM]).sigmoid()
    torch.testing.assert_close(queries.reference[0], expected)


def test_spare_queries_are_the_next_rows():
    points = source(count=5, spare=3)
    main, _ = points(TOKENS, None)
    more = points.spare(TOKENS, None)
    assert main.content.shape[1] == 5
    assert torch.equal(more.content[1], points.table.weight[5:, DIM:])
    assert torch.equal(more.position[0], points.table.weight[5:, :DIM])
    assert more.reference.shape == (2, 3, 2)


def test_boxes_of_points_start_at_an_eighth_of_the_image():
    model = build(tiny("deformable-detr-r50"))
    answer = model(batch((64, 48))).answer
    torch.testing.assert_close(
        answer.boxes[..., 2:], torch.full((1, QUERIES, 2), 0.1192), atol=1e-4, rtol=0
    )


def test_a_source_without_spare_queries_says_how_to_have_some():
    with pytest.raises(RecipeError, match=r"type --set queries\.spare=1500"):
        source().spare(TOKENS, None)


def test_impossible_counts_are_refused():
    with pytest.raises(RecipeError, match="count of at least 1; got 0"):
        PointQueriesConfig(count=0)
    with pytest.raises(RecipeError, match="spare of at least 0; got -1"):
        PointQueriesConfig(spare=-1)

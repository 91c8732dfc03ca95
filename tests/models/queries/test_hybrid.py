"""The one-to-many group of H-DETR, alone and beside other groups."""

from dataclasses import replace

import pytest
import torch

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.heads import ProposalHead
from leandetr.models.queries.base import hidden
from leandetr.models.queries.denoising import Denoising
from leandetr.models.queries.hybrid import HybridConfig
from leandetr.models.queries.mixed import MixedQueriesConfig
from leandetr.models.queries.points import PointQueriesConfig
from leandetr.models.queries.two_stage import TwoStageQueriesConfig
from leandetr.training.build import build_criterion
from leandetr.types import Match
from tiny import DIM, batch, blocks, canvas, stir, targets, tiny, tiny_model

COUNT, SPARE = 4, 3
DIMS = Dims(DIM, 2, 3)
SOURCES = [
    pytest.param(PointQueriesConfig(COUNT, SPARE), id="learned-points"),
    pytest.param(TwoStageQueriesConfig(COUNT, SPARE), id="two-stage"),
    pytest.param(MixedQueriesConfig(COUNT, SPARE), id="mixed"),
]
every_source = pytest.mark.parametrize("config", SOURCES)
BOXES = targets(2, 1)


@pytest.fixture
def tokens():
    return canvas([blocks(4, 5, levels=2), blocks(3, 3, levels=2)], ((4, 5), (2, 2)))


@pytest.fixture
def head():
    head = ProposalHead(DIM, 3)
    stir(head)
    return head


def hybrid(**settings):
    return HybridConfig(**settings).build(DIMS)


@every_source
def test_spare_queries_come_behind_the_main_ones(tokens, head, config):
    source = config.build(DIMS)
    main, _ = source(tokens, head)
    found = hybrid(repeat=5, weight=0.5)(main, tokens, head, BOXES, source)
    more = source.spare(tokens, head)
    assert torch.equal(found.content, torch.cat((main.content, more.content), dim=1))
    assert torch.equal(found.reference, torch.cat((main.reference, more.reference), dim=1))
    if main.position is None:
        assert found.position is None
    else:
        assert torch.equal(found.position, torch.cat((main.position, more.position), dim=1))
    first, group = found.groups
    assert first == main.groups[0]
    assert (group.name, group.start, group.stop) == ("one-to-many", COUNT, COUNT + SPARE)
    assert (group.assign, group.weight) == (Match(repeat=5), 0.5)


@every_source
def test_neither_group_sees_the_other(tokens, head, config):
    source = config.build(DIMS)
    main, _ = source(tokens, head)
    unseen = hidden(hybrid()(main, tokens, head, BOXES, source))
    group = torch.arange(COUNT + SPARE) >= COUNT
    assert torch.equal(unseen, group[:, None] != group)


@pytest.mark.parametrize("hybrid_first", [True, False])
def test_beside_denoising_every_group_keeps_to_itself(tokens, head, hybrid_first):
    """But copies see the main queries, and each other within a copy."""
    source = MixedQueriesConfig(COUNT, SPARE).build(DIMS)
    denoising = Denoising(DIM, 3, budget=4, label_noise=0.5, box_noise=0.4)
    queries, _ = source(tokens, head)
    parts = [hybrid(), denoising] if hybrid_first else [denoising, hybrid()]
    for part in parts:
        queries = part(queries, tokens, head, BOXES, source)
    spans = {group.name: slice(group.start, group.stop) for group in queries.groups}
    main, many, noised = (spans[name] for name in ("main", "one-to-many", "denoising"))
    unseen = hidden(queries)
    assert unseen.shape == (queries.content.shape[1],) * 2
    assert queries.reference.shape[1] == len(unseen)
    for group in spans.values():
        assert not unseen[group, group].diagonal().any()
    assert not unseen[main, main].any()
    assert not unseen[many, many].any()
    assert unseen[main, many].all()
    assert unseen[many, main].all()
    assert unseen[main, noised].all()
    assert not unseen[noised, main].any()
    assert unseen[many, noised].all()
    assert unseen[noised, many].all()


def test_denoising_beside_queries_with_positions_is_refused(tokens, head):
    source = TwoStageQueriesConfig(COUNT).build(DIMS)
    queries, _ = source(tokens, head)
    denoising = Denoising(DIM, 3, budget=4, label_noise=0.5, box_noise=0.4)
    with pytest.raises(RecipeError, match=f"{DIM} wide beside None of the group"):
        denoising(queries, tokens, head, BOXES, source)


def test_without_enough_tokens_the_group_is_small_or_empty(head):
    few = canvas([blocks(2, 2, levels=2)], ((2, 2), (1, 1)))
    for count, left in ((3, 2), (5, 0), (9, 0)):
        source = TwoStageQueriesConfig(count, spare=4).build(DIMS)
        main, _ = source(few, head)
        found = hybrid()(main, few, head, BOXES[:1], source)
        group = found.groups[-1]
        assert group.stop - group.start == left
        assert found.content.shape[1] == min(count, 5) + left


def test_a_source_without_spare_queries_is_refused(tokens, head):
    source = PointQueriesConfig(COUNT).build(DIMS)
    main, _ = source(tokens, head)
    with pytest.raises(RecipeError, match=r"queries\.spare=1500"):
        hybrid()(main, tokens, head, BOXES, source)


def test_an_impossible_repeat_is_refused():
    with pytest.raises(RecipeError, match="repeat is at least 1; got 0"):
        HybridConfig(repeat=0)


def test_one_stage_detectors_can_be_matched_one_to_many_too():
    preset = tiny("deformable-detr-r50")
    queries = replace(preset.model.queries, spare=SPARE)
    model = tiny_model("deformable-detr-r50", queries=queries, groups=(HybridConfig(repeat=2),))
    outputs = model.train()(batch((64, 48), (48, 64)), BOXES)
    losses = build_criterion(model.recipe)(outputs, BOXES)
    losses.total.backward()
    assert {"labels/main/0", "giou/one-to-many/1"} <= set(losses.names)
    assert model.queries.table.weight.grad.any(dim=1).all()
    answer = model.eval()(batch((64, 48))).answer
    assert answer.logits.shape[1] == queries.count

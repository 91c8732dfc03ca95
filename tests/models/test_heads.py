"""How heads start, and how tokens become proposals."""

import pytest
import torch

from leandetr.models.heads import PRIOR, PredictionHeads, ProposalHead
from leandetr.types import Tokens
from tiny import DIM, blocks, canvas


def tokens() -> Tokens:
    """Two images on two levels, the second smaller."""
    return canvas([blocks(5, 6, levels=2), blocks(3, 4, levels=2)], ((5, 6), (2, 3)))


def test_every_class_starts_at_the_prior():
    heads = PredictionHeads(8, 4, layers=2, shared=True)
    torch.testing.assert_close(
        heads.logits(0, torch.zeros(1, 1, 8)).sigmoid(), torch.full((1, 1, 4), PRIOR)
    )


def test_boxes_start_by_moving_nothing():
    heads = PredictionHeads(8, 4, layers=2, shared=False)
    assert not heads.shift(1, torch.randn(2, 3, 8)).any()
    proposing = ProposalHead(8, 4)
    logits = torch.randn(2, 3, 4)
    assert torch.equal(proposing.place(torch.randn(2, 3, 8), logits), logits)


@pytest.mark.parametrize("shared", [True, False])
def test_queries_without_a_size_start_small(shared):
    heads = PredictionHeads(8, 4, layers=2, shared=shared, first_size=-2.0)
    features = torch.randn(2, 3, 8)
    small = torch.tensor([0.0, 0.0, -2.0, -2.0]).expand(2, 3, -1)
    assert torch.equal(heads.shift(0, features), small)
    assert torch.equal(heads.shift(1, features), small if shared else torch.zeros(2, 3, 4))


def test_heads_with_a_background_start_anywhere():
    """DETR's boxes have no reference: all in one place, they could not tell targets apart."""
    heads = PredictionHeads(8, 4, layers=2, shared=True, background=True)
    features = torch.randn(1, 2, 8)
    assert heads.logits(0, features).shape == (1, 2, 5)
    first, second = heads.shift(0, features)[0]
    assert not torch.equal(first, second)
    assert heads.logits(0, torch.zeros(1, 1, 8)).abs().max() < 1  # far from the prior


@pytest.mark.parametrize(("shared", "count"), [(True, 1), (False, 3)])
def test_shared_heads_exist_once(shared, count):
    heads = PredictionHeads(8, 4, layers=3, shared=shared)
    assert len(heads.classes) == len(heads.boxes) == count
    features = torch.randn(1, 2, 8)
    same = torch.equal(heads.logits(0, features), heads.logits(2, features))
    assert same is shared


def test_tokens_that_may_not_propose_are_described_by_zeros():
    head, given = ProposalHead(DIM, 3), tokens()
    found = head(given)
    assert not found.valid[given.padding].any()
    assert found.valid[~given.padding].all()
    assert (found.box_logits[~found.valid] == torch.inf).all()
    assert found.box_logits[found.valid].isfinite().all()
    nothing = head.norm(head.project(torch.zeros(DIM)))
    for row in found.features[~found.valid]:
        torch.testing.assert_close(row, nothing)


def test_proposals_start_at_their_tokens():
    head, given = ProposalHead(DIM, 3), tokens()
    found = head(given)
    boxes = head.place(found.features, found.box_logits).sigmoid()
    torch.testing.assert_close(boxes[0, 0], torch.tensor([1 / 12, 0.1, 0.05, 0.05]))
    torch.testing.assert_close(boxes[1, 0], torch.tensor([1 / 8, 1 / 6, 0.05, 0.05]))
    assert (boxes[~found.valid] == 1).all()

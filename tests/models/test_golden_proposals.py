"""Anchors, references and embeddings of Deformable DETR against the official functions."""

import torch
from torch import Tensor

from golden_data import load_case
from leandetr import boxes
from leandetr.models.decoders.deformable import BOX_EPS
from leandetr.models.heads import ProposalHead
from leandetr.nn import grid
from leandetr.nn.position import sine_coordinates
from leandetr.types import Tokens

CASE = "functions/deformable"
NEAR = {"atol": 1e-5, "rtol": 1e-5}


def tokens_of(t: dict[str, Tensor]) -> Tokens:
    shapes = tuple((height, width) for height, width in t["spatial_shapes"].tolist())
    holes = [t[f"mask_{level}"] for level in range(len(shapes))]
    ratios = [grid.valid_ratio(hole, torch.float32) for hole in holes]
    return Tokens(
        t["memory"],
        torch.zeros_like(t["memory"]),
        torch.cat([hole.flatten(1) for hole in holes], dim=1),
        torch.stack(ratios, dim=1),
        shapes,
    )


def test_references_are_the_official_ones():
    t = load_case(CASE).tensors
    tokens = tokens_of(t)
    torch.testing.assert_close(tokens.valid_ratios, t["valid_ratios"], **NEAR)
    references = grid.on_levels(grid.reference_points(tokens), tokens.valid_ratios)
    torch.testing.assert_close(references, t["reference_points"], **NEAR)


def test_anchors_and_what_describes_them_are_the_official_ones():
    t = load_case(CASE).tensors
    tokens = tokens_of(t)
    head = ProposalHead(tokens.features.shape[-1], 1)
    with torch.no_grad():
        head.project.weight.copy_(torch.eye(tokens.features.shape[-1]))
        found = head(tokens)
    assert t["proposals_logit"].isinf().any()
    torch.testing.assert_close(found.box_logits, t["proposals_logit"], **NEAR)
    torch.testing.assert_close(found.features, t["proposal_memory"], **NEAR)


def test_embedded_proposals_are_the_official_ones():
    t = load_case(CASE).tensors
    embedded = sine_coordinates(boxes.sigmoid(t["proposal_coords"]), 128)
    torch.testing.assert_close(embedded, t["proposal_pos_embed"], **NEAR)


def test_the_inverse_sigmoid_is_the_official_one():
    t = load_case(CASE).tensors
    found = boxes.inverse_sigmoid(t["inverse_sigmoid_in"], BOX_EPS)
    torch.testing.assert_close(found, t["inverse_sigmoid_out"], **NEAR)

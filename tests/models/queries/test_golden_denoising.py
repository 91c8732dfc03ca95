"""Denoising queries against the official preparation, with its recorded random draws."""

import pytest
import torch

from golden_data import cases, load_case
from leandetr.models.queries.base import hidden
from leandetr.models.queries.denoising import Denoising
from leandetr.models.queries.mixed import MixedQueries
from leandetr.types import Group, Match, Queries, Tokens
from recorded_noise import recorded, targets_of


@pytest.mark.parametrize("name", cases("dino/cdn_*", "focus_detr/cdn_*"))
def test_denoising_equals_official(name):
    case = load_case(name)
    h, t = case.meta["hyper_parameters"], case.tensors
    table = t["label_enc.weight"]
    dim = table.shape[1]
    prefix = "dn_" if "dn_box_noise_scale" in h else ""  # detrex leaves it out
    module = Denoising(
        dim,
        h["num_classes"],
        budget=h["dn_number"],
        label_noise=h[f"{prefix}label_noise_ratio"],
        box_noise=h[f"{prefix}box_noise_scale"],
        spare_row=len(table) > h["num_classes"],
        draw=recorded(case),
    )
    module.load_state_dict({"labels.weight": table})
    targets = targets_of(case)
    main = h["num_queries"]
    queries = Queries(
        torch.zeros(len(targets), main, dim),
        None,
        torch.full((len(targets), main, 4), 0.5),
        (),
        (Group("main", 0, main, Match()),),
    )
    source = MixedQueries(dim, count=main)
    grown = module(queries, one_token(len(targets), dim), None, targets, source)
    group = grown.groups[-1]
    meta = case.meta["dn_meta"]
    repeat = meta["num_dn_group"] if prefix else meta["dn_num"]
    pad = meta["pad_size"] if prefix else meta["single_padding"] * repeat
    assert group.stop - group.start == pad
    assert group.assign.repeat == repeat
    torch.testing.assert_close(grown.content[:, main:], t["dn_label_embed"], atol=1e-6, rtol=0)
    expected = t["dn_bbox_unsigmoid"].sigmoid()  # the official decoder takes the sigmoid first
    torch.testing.assert_close(grown.reference[:, main:], expected, atol=1e-6, rtol=0)
    expected = torch.cat((t["attn_mask"][pad:], t["attn_mask"][:pad]))
    expected = torch.cat((expected[:, pad:], expected[:, :pad]), dim=1)
    assert torch.equal(hidden(grown), expected)


def one_token(images: int, width: int) -> Tokens:
    """The least that is a grid; denoising does not look at tokens."""
    zeros = torch.zeros(images, 1, width)
    nowhere = torch.zeros(images, 1, dtype=torch.bool)
    return Tokens(zeros, zeros, nowhere, torch.ones(images, 1, 2), ((1, 1),))

"""Denoising queries against the official preparation, with its recorded random draws."""

import pytest
import torch

from golden_data import cases, load_case
from leandetr.models.queries.denoising import Denoising
from leandetr.models.queries.mixed import MixedQueries
from leandetr.types import Group, Match, Queries, Tokens
from recorded_noise import recorded, targets_of


@pytest.mark.parametrize("name", cases("dino/cdn_*"))
def test_denoising_equals_official(name):
    case = load_case(name)
    h, t = case.meta["hyper_parameters"], case.tensors
    module = Denoising(
        h["hidden_dim"],
        h["num_classes"],
        budget=h["dn_number"],
        label_noise=h["dn_label_noise_ratio"],
        box_noise=h["dn_box_noise_scale"],
        draw=recorded(case),
    )
    module.labels.weight.data = t["label_enc.weight"]
    targets = targets_of(case)
    main = h["num_queries"]
    queries = Queries(
        torch.zeros(len(targets), main, h["hidden_dim"]),
        None,
        torch.full((len(targets), main, 4), 0.5),
        None,
        (Group("main", 0, main, Match()),),
    )
    source = MixedQueries(h["hidden_dim"], count=main)
    grown = module(queries, one_token(len(targets), h["hidden_dim"]), None, targets, source)
    group = grown.groups[-1]
    pad = case.meta["dn_meta"]["pad_size"]
    assert group.stop - group.start == pad
    assert group.assign.repeat == case.meta["dn_meta"]["num_dn_group"]
    torch.testing.assert_close(grown.content[:, main:], t["dn_label_embed"], atol=1e-6, rtol=0)
    expected = t["dn_bbox_unsigmoid"].sigmoid()  # the official decoder takes the sigmoid first
    torch.testing.assert_close(grown.reference[:, main:], expected, atol=1e-6, rtol=0)
    expected = torch.cat((t["attn_mask"][pad:], t["attn_mask"][:pad]))
    expected = torch.cat((expected[:, pad:], expected[:, :pad]), dim=1)
    assert torch.equal(grown.hidden, expected)


def one_token(images: int, width: int) -> Tokens:
    """The least that is a grid; denoising does not look at tokens."""
    zeros = torch.zeros(images, 1, width)
    nowhere = torch.zeros(images, 1, dtype=torch.bool)
    return Tokens(zeros, zeros, nowhere, torch.ones(images, 1, 2), ((1, 1),))

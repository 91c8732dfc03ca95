"""Sparse DETR's presets: what they keep, and how they learn."""

from dataclasses import replace

import pytest
import torch

from leandetr.models.encoders.deformable import DeformableEncoderConfig
from leandetr.recipes import build, recipe
from leandetr.recipes.sparse_detr import PRESETS
from leandetr.training.optim import build_optimiser

NAMES = [preset.__name__.replace("_", "-") for preset in PRESETS]
SPARSE = [name for name in NAMES if not name.endswith("rho0")]


def on_paper(name):
    chosen = recipe(name)
    backbone = replace(chosen.model.backbone, weights=None)
    with torch.device("meta"):
        return build(chosen.with_model(backbone=backbone))


@pytest.mark.parametrize("name", SPARSE)
def test_names_say_how_many_percent_are_kept(name):
    encoder = recipe(name).model.encoder
    assert encoder.permille == 10 * int(name.rsplit("rho", 1)[1])
    assert (encoder.layers, encoder.hidden, encoder.auxiliary) == (6, 1024, True)


def test_without_a_share_all_tokens_are_refined():
    dense, sparse = recipe("sparse-detr-r50-rho0").model, recipe("sparse-detr-r50-rho30").model
    assert isinstance(dense.encoder, DeformableEncoderConfig)
    assert replace(dense, encoder=sparse.encoder) == sparse


PUBLISHED = {"r50-rho0": 40.8, "r50-rho30": 40.9, "swin-t-rho30": 41.4}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_as_many_parameters_as_published(name):
    """The README leaves out what does not train, and the encoder's own heads (0.78 million)."""
    model = on_paper(f"sparse-detr-{name}")
    counted = [
        parameter.numel()
        for key, parameter in model.named_parameters()
        if parameter.requires_grad and not key.startswith("encoder.heads.")
    ]
    assert sum(counted) / 1e6 == pytest.approx(PUBLISHED[name], abs=0.05)


def test_backbone_and_offsets_learn_at_a_tenth():
    model = on_paper("sparse-detr-swin-t-rho10")
    how = recipe("sparse-detr-swin-t-rho10").train
    assert (how.epochs, how.lr, how.drops, how.criterion.salience_weight) == (50, 2e-4, (40,), 1.0)
    factors = [(one.prefix, one.factor) for one in how.lr_factors]
    slow = {
        id(parameter)
        for group in build_optimiser(model, lr=1.0, weight_decay=0.0, factors=factors).param_groups
        if group["lr"] < 1
        for parameter in group["params"]
    }
    for key, parameter in model.named_parameters():
        tenth = key.startswith("backbone.") or ".offsets." in key
        assert not parameter.requires_grad or (id(parameter) in slow) == tenth, key

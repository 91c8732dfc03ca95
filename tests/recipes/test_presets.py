"""Every preset builds, and holds the weights it held before."""

import pytest
import torch

from leandetr.models.detector import Detector
from leandetr.recipes import create_model, list_models, recipe
from leandetr.recipes.assemble import PRESETS

PARAMETERS = {
    "dino-nano": 2_134_366,
    "dino-r50": 46_893_182,
    "dino-r50-5scale": 47_255_806,
    "dino-swin-t": 47_436_216,
    "lite-dino-nano": 2_219_246,
    "lite-dino-r50-h2l2-2p1x3": 47_684_222,
    "lite-dino-r50-h3l1-2p1x3": 47_684_222,
    "lite-dino-r50-h3l1-6p1x1": 47_420_030,
    "lite-dino-swin-t-h2l2-2p1x3": 48_227_256,
    "lite-dino-swin-t-h3l1-2p1x3": 48_227_256,
    "lite-dino-swin-t-h3l1-6p1x1": 47_963_064,
}
PUBLISHED = {
    "dino-r50": 47e6,  # DINO (arXiv 2203.03605), table 1
    "dino-r50-5scale": 47e6,
    "dino-swin-t": 47e6,  # Lite DETR (arXiv 2303.07335), table 4
    "lite-dino-r50-h2l2-2p1x3": 47e6,
    "lite-dino-r50-h3l1-2p1x3": 47e6,
    "lite-dino-r50-h3l1-6p1x1": 47e6,
}
"""Trained parameters as the papers print them.

Table 4 of Lite DETR prints 47M for its Swin-T models too, which what it adds to DINO (proven key by
key for R50) makes 48M: they are not listed.
"""


def on_paper(name: str) -> Detector:
    with torch.device("meta"):
        return create_model(name)


def test_every_preset_is_pinned():
    assert list_models() == sorted(PARAMETERS)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_presets_build_and_hold_as_many_weights_as_before(name):
    model = on_paper(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert model.recipe.name == name
    assert model.recipe == recipe(name)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_presets_are_as_large_as_published(name):
    trained = sum(p.numel() for p in on_paper(name).parameters() if p.requires_grad)
    assert trained == pytest.approx(PUBLISHED[name], rel=0.01)


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_presets_say_where_they_come_from(name):
    assert PRESETS[name].__doc__


def test_names_are_found_by_pattern():
    assert list_models("lite-*r50*") == [
        "lite-dino-r50-h2l2-2p1x3",
        "lite-dino-r50-h3l1-2p1x3",
        "lite-dino-r50-h3l1-6p1x1",
    ]
    assert list_models("nothing-*") == []

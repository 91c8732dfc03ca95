"""Focus-DETR's presets: what they change in DINO, and how they learn."""

import pytest
import torch

from leandetr.models.backbones import ResNetConfig
from leandetr.recipes import create_model, recipe
from leandetr.recipes.focus_detr import PRESETS

NAMES = [preset.__name__.replace("_", "-") for preset in PRESETS]


@pytest.mark.parametrize("name", NAMES)
def test_all_differ_in_the_backbone_alone(name):
    first, other = recipe("focus-detr-r50"), recipe(name)
    assert other.with_model(backbone=first.model.backbone).with_name(first.name) == first


def test_it_is_dino_as_detrex_builds_it():
    dino, focus = recipe("dino-r50").model, recipe("focus-detr-r50").model
    assert (focus.queries, focus.decoder, focus.top) == (dino.queries, dino.decoder, 300)
    assert (focus.neck.temperature, focus.neck.offset) == (10000.0, -0.5)
    assert not focus.shared_heads
    assert focus.classes == 80
    with torch.device("meta"):
        model = create_model("focus-detr-r50")
    assert model.training_groups[0].labels.num_embeddings == 80
    assert len(model.heads.classes) == len(model.heads.boxes) == 6


def test_half_of_the_tokens_are_foreground_and_a_layer_has_less_than_a_third_of_all_on_average():
    encoder = recipe("focus-detr-r50").model.encoder
    assert encoder.keep * sum(encoder.cascade) / len(encoder.cascade) == pytest.approx(0.3)


@pytest.mark.parametrize("name", [name for name in NAMES if "-r" in name])
def test_only_the_stem_of_a_resnet_is_frozen(name):
    assert isinstance(recipe(name).model.backbone, ResNetConfig)
    with torch.device("meta"):
        model = create_model(name)
    frozen = [key for key, value in model.named_parameters() if not value.requires_grad]
    assert frozen == ["backbone.conv1.weight"]


def test_scores_weigh_one_and_a_half_and_the_rate_falls_once():
    train = recipe("focus-detr-r50").train
    assert train.criterion.salience_weight == 1.5
    assert (train.epochs, train.drops, train.lr, train.clip) == (36, (30,), 1e-4, 0.1)


def test_scored_lite_keeps_what_its_name_says():
    plain, scored = recipe("lite-dino-r50-h3l1-2p1x3"), recipe("lite-dino-r50-h3l1-2p1x3-keep30")
    assert scored.model.encoder.keep_low == 0.3
    assert scored.with_model(encoder=plain.model.encoder).model == plain.model
    assert scored.train.criterion.salience_weight == 1.5

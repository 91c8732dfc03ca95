"""How DETR and Conditional DETR are trained, as their repositories say."""

import pytest

from leandetr.recipes import list_models, recipe

DETR = [name for name in list_models("*detr-r*") if name.startswith(("detr-", "conditional-"))]


@pytest.mark.parametrize("name", DETR)
def test_training_is_that_of_the_repositories(name):
    chosen = recipe(name)
    model, train = chosen.model, chosen.train
    conditional, dilated = name.startswith("conditional-"), name.endswith("-dc5")
    assert (train.epochs, train.drops) == ((50, (40,)) if conditional else (500, (400,)))
    assert train.batch == (1 if dilated else 2)
    assert model.backbone.dilate_last == dilated
    assert f"r{model.backbone.depth}" in name
    assert (model.encoder.dropout, model.decoder.dropout, train.clip) == (0.1, 0.1, 0.1)
    assert model.queries.count == (300 if conditional else 100)
    assert model.background == (not conditional)
    assert (train.criterion.class_weight, train.criterion.class_cost) == (
        (2.0, 2.0) if conditional else (1.0, 1.0)
    )
    assert train.criterion.giou_eps == 0


def test_there_are_four_of_each():
    assert len(DETR) == 8

"""From a name to a detector."""

import pytest

from leandetr.errors import RecipeError
from leandetr.models.encoders.lite import LiteEncoder
from leandetr.recipes import create_model, recipe
from tiny import shrink, tiny

TWO_HIGH = "encoder.high_levels=2"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("dino-r5O", "dino-r50"), ("litedino-nano", "lite-dino-nano"), ("dino_nano", "dino-nano")],
)
def test_unknown_names_suggest_near_ones(typed, meant):
    with pytest.raises(RecipeError, match=rf"no recipe '{typed}'; did you mean .*{meant}"):
        create_model(typed)


def test_far_names_list_them_all():
    with pytest.raises(RecipeError, match="known: conditional-detr-r101, "):
        recipe("yolo")


def test_the_encoder_is_exchanged_by_name():
    model = create_model(tiny(), encoder="lite", overrides=[TWO_HIGH, "encoder.hidden=8"])
    assert isinstance(model.encoder, LiteEncoder)
    assert model.recipe.model.encoder.hidden == 8
    with pytest.raises(RecipeError, match=r"no encoder 'light'; did you mean lite\?"):
        create_model(tiny(), encoder="light")


def test_an_encoder_that_does_not_fit_says_what_does():
    with pytest.raises(RecipeError, match=r"type encoder\.high_levels=2"):
        create_model(tiny(), encoder="lite")


def test_classes_are_those_of_the_data():
    model = create_model(tiny(), num_classes=7)
    assert model.recipe.model.classes == 7
    assert model.heads.classes[0].out_features == 7
    assert model.proposals.classes.out_features == 7
    assert model.training_groups[0].labels.num_embeddings == 8
    with pytest.raises(RecipeError, match=r"classes of at least 1; got 0"):
        create_model(tiny(), num_classes=0)


def test_heads_are_shared_only_where_the_recipe_says_so():
    assert len(create_model(tiny()).heads.classes) == 1
    assert len(create_model(tiny(shared_heads=False)).heads.classes) == 2


def test_every_extra_level_is_seen_by_all_parts():
    model = tiny().model
    wide = tiny(neck=type(model.neck)(levels=5), encoder=shrink(model.encoder, layers=1))
    built = create_model(wide)
    assert built.encoder.layers[0].gather.attention.offsets.levels == 5
    assert built.decoder.layers[0].cross_attention.offsets.levels == 5


def test_scores_that_learn_from_the_decoder_need_one_that_samples():
    with pytest.raises(RecipeError, match=r"'sparse' learns from where .* 'detr' cannot tell"):
        create_model("detr-r50", encoder="sparse")

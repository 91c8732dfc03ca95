"""Keys of Sparse DETR: one list of heads for decoder, proposals and encoder."""

import pytest
import torch

from leandetr.checkpoints.keymap import fill, to_official
from leandetr.checkpoints.official import sparse_detr
from leandetr.errors import CheckpointMismatch
from leandetr.models.encoders.sparse import SparseEncoderConfig
from leandetr.recipes import build
from tiny import shrink, tiny

PRESET = "sparse-detr-r50-rho30"


def ways():
    """Detectors whose official names differ in form, and how many heads they have."""
    yield pytest.param(tiny(PRESET), 2 + 1 + 1, id="auxiliary")
    encoder = shrink(SparseEncoderConfig(), layers=4)
    yield pytest.param(tiny(PRESET, encoder), 2 + 1 + 3, id="deep")
    encoder = shrink(SparseEncoderConfig(auxiliary=False))
    yield pytest.param(tiny(PRESET, encoder), 2 + 1, id="plain")
    yield pytest.param(tiny("sparse-detr-r50-rho0"), 2 + 1, id="rho0")
    yield pytest.param(tiny("h-detr-nano", "sparse"), 2 + 1 + 1, id="in-h-detr")


@pytest.mark.parametrize(("recipe", "heads"), list(ways()))
def test_every_parameter_returns_and_all_heads_are_in_one_list(recipe, heads):
    model, rules = build(recipe), sparse_detr.rules(recipe)
    ours = model.state_dict()
    named = to_official(ours, rules)
    other = build(recipe)
    assert fill(other, named, rules) == {}
    assert all(torch.equal(value, ours[key]) for key, value in other.state_dict().items())
    for kind in ("class_embed", "bbox_embed"):
        for below in ("", "transformer.decoder."):
            start = f"{below}{kind}."
            found = {k.removeprefix(start).split(".")[0] for k in named if k.startswith(start)}
            assert found == {str(number) for number in range(heads)}


def test_heads_of_the_encoder_come_last():
    recipe = tiny(PRESET)
    model = build(recipe)
    named = to_official(model.state_dict(), sparse_detr.rules(recipe))
    for number, head in ((1, model.heads.classes[1]), (2, model.proposals.classes)):
        assert torch.equal(named[f"class_embed.{number}.weight"], head.weight)
    own = model.encoder.heads.classes[0].weight
    for key in (
        "class_embed.3",
        "transformer.decoder.class_embed.3",
        "transformer.encoder.class_embed.0",
    ):
        assert torch.equal(named[f"{key}.weight"], own)


def test_a_head_that_is_not_the_one_it_repeats_is_told():
    recipe = tiny(PRESET)
    rules = sparse_detr.rules(recipe)
    named = to_official(build(recipe).state_dict(), rules)
    named["transformer.decoder.class_embed.3.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointMismatch, match=r"transformer\.encoder\.class_embed\.0\.bias dif"):
        fill(build(recipe), named, rules)


def test_heads_of_the_encoder_that_are_lacking_are_told():
    recipe = tiny(PRESET, shrink(SparseEncoderConfig(auxiliary=False)))
    named = to_official(build(recipe).state_dict(), sparse_detr.rules(recipe))
    whole = tiny(PRESET)
    with pytest.raises(CheckpointMismatch, match=r"missing: .*encoder\.heads\.classes\.0"):
        fill(build(whole), named, sparse_detr.rules(whole))

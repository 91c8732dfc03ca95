"""The deformable encoder's own laws."""

import pytest
import torch

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.encoders.deformable import DeformableEncoderConfig
from tiny import DIM, blocks, canvas, stir

SHAPES = ((4, 6), (2, 3), (1, 2))


def test_every_layer_updates_every_token():
    encoder = DeformableEncoderConfig(3, heads=2, points=1, hidden=16).build(Dims(DIM, 3, 3))
    stir(encoder)
    seen = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda *call: seen.append(call[-1].features))
    tokens = canvas([blocks(4, 6), blocks(3, 4)], SHAPES)
    found = encoder(tokens, None).tokens
    assert len(seen) == 3
    for before, after in zip((tokens.features, *seen), seen, strict=False):
        assert (before != after).any(dim=-1).all()
    assert torch.equal(found.features, seen[-1])
    assert torch.equal(found.position, tokens.position)
    assert found.shapes == tokens.shapes


@pytest.mark.parametrize("name", ["layers", "heads", "points", "hidden"])
def test_counts_of_nothing_are_refused(name):
    with pytest.raises(RecipeError, match=rf"encoder\.{name} of at least 1; got 0"):
        DeformableEncoderConfig(**{name: 0})

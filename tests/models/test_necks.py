"""From maps to tokens."""

from dataclasses import fields

import pytest
import torch

from leandetr.errors import RecipeError
from leandetr.models.necks import ChannelMapperConfig, SingleLevelConfig, shrink
from leandetr.nn.position import sine_grid
from leandetr.types import FeatureMaps, Images

CHANNELS = (6, 10)


def neck(levels=2, dim=8, channels=CHANNELS):
    return ChannelMapperConfig(levels=levels).build(dim, channels)


def inputs(height=16, width=24, valid=(10, 24)):
    """Images, and maps of stride 4 and 8 of them; the second image is smaller."""
    hole = torch.zeros(2, height, width, dtype=torch.bool)
    hole[1, valid[0] :] = True
    hole[1, :, valid[1] :] = True
    images = Images(torch.randn(2, 3, height, width), hole)
    maps = tuple(
        torch.randn(2, width_, height // stride, width // stride)
        for width_, stride in zip(CHANNELS, (4, 8), strict=True)
    )
    return FeatureMaps(maps, tuple(shrink(hole, level) for level in maps)), images


def test_tokens_are_all_cells_finest_level_first():
    module = neck()
    features, images = inputs()
    tokens = module(features, images)
    assert tokens.shapes == ((4, 6), (2, 3))
    assert tokens.features.shape == tokens.position.shape == (2, 30, 8)
    for level in range(2):
        expected = module.project[level](features.maps[level]).flatten(2).transpose(1, 2)
        torch.testing.assert_close(tokens.level(level), expected)
        padding = tokens.padding[:, tokens.starts[level] :][:, : expected.shape[1]]
        assert torch.equal(padding, features.padding[level].flatten(1))


def test_extra_levels_halve_the_last_map_and_take_the_padding_of_the_image():
    module = neck(levels=4)
    features, images = inputs(valid=(16, 8))
    tokens = module(features, images)
    assert tokens.shapes == ((4, 6), (2, 3), (1, 2), (1, 1))
    assert tokens.padding[:, 30:].tolist() == [[False, False, False], [False, True, False]]
    first = module.extend[0](features.maps[-1])  # from the raw map, not from its projection
    torch.testing.assert_close(tokens.level(2), first.flatten(2).transpose(1, 2))
    torch.testing.assert_close(tokens.level(3), module.extend[1](first).flatten(2).transpose(1, 2))
    assert torch.equal(tokens.padding[:, 30:32], shrink(images.padding, first).flatten(1))


def test_positions_are_sines_plus_a_vector_of_the_level():
    module = neck()
    features, images = inputs()
    tokens = module(features, images)
    start = tokens.starts[1]
    sines = sine_grid(features.padding[1], 8, temperature=20.0, offset=0.0).flatten(1, 2)
    expected = sines + module.level_embedding[1]
    torch.testing.assert_close(tokens.position[:, start:], expected)


def test_valid_ratios_are_shares_of_every_level():
    features, images = inputs(16, 24, valid=(8, 12))
    tokens = neck()(features, images)
    torch.testing.assert_close(tokens.valid_ratios[0], torch.ones(2, 2))
    torch.testing.assert_close(tokens.valid_ratios[1, 0], torch.tensor([0.5, 0.5]))


def test_the_smallest_image_of_a_batch_keeps_a_token_on_every_level():
    features, images = inputs(16, 24, valid=(1, 1))
    tokens = neck(levels=4)(features, images)
    for start in tokens.starts:
        assert not tokens.padding[1, start]
    assert (tokens.valid_ratios > 0).all()


def test_fewer_levels_than_maps_are_refused():
    with pytest.raises(RecipeError, match=r"at least 2 levels.*got 1; type neck\.levels=2 or drop"):
        neck(levels=1)


@pytest.mark.parametrize(("dim", "fitting"), [(10, 12), (7, 8), (255, 256)])
def test_widths_that_positions_cannot_fill_are_refused(dim, fitting):
    with pytest.raises(RecipeError, match=rf"multiple of 4.*got {dim}; type dim={fitting}"):
        neck(dim=dim)


@pytest.mark.parametrize(("dim", "groups"), [(256, 32), (64, 32), (48, 24), (32, 16), (4, 2)])
def test_norm_groups_hold_two_channels_at_least(dim, groups):
    norm = neck(dim=dim).project[0][1]
    assert norm.num_groups == groups
    assert dim % groups == 0


def test_one_cell_can_be_normalised():
    maps = (torch.randn(1, 6, 1, 1), torch.randn(1, 10, 1, 1))
    hole = torch.zeros(1, 1, 1, dtype=torch.bool)
    tokens = neck(levels=3)(FeatureMaps(maps, (hole, hole)), Images(torch.zeros(1, 3, 1, 1), hole))
    assert tokens.shapes == ((1, 1),) * 3
    assert tokens.features.isfinite().all()
    assert tokens.features.any()


def test_a_single_level_is_one_convolution_and_plain_sines():
    module = SingleLevelConfig().build(8, CHANNELS[:1])
    features, images = inputs()
    features = FeatureMaps(features.maps[:1], features.padding[:1])
    tokens = module(features, images)
    assert tokens.shapes == ((4, 6),)
    expected = module.project(features.maps[0]).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens.features, expected)
    sines = sine_grid(features.padding[0], 8, temperature=10000.0, offset=0.0).flatten(1, 2)
    assert torch.equal(tokens.position, sines)
    assert torch.equal(tokens.padding, features.padding[0].flatten(1))
    torch.testing.assert_close(tokens.valid_ratios[0], torch.ones(1, 2))
    assert [name for name, _ in module.named_parameters()] == ["project.weight", "project.bias"]


def test_a_single_level_is_no_setting():
    config = SingleLevelConfig()
    assert config.levels == 1
    assert not fields(config)
    with pytest.raises(RecipeError, match=r"one map of the backbone, got 2; .*outputs=\[3\]"):
        config.build(8, CHANNELS)
    with pytest.raises(RecipeError, match="multiple of 4"):
        config.build(6, CHANNELS[:1])

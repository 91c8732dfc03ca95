import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from leandetr.errors import RecipeError
from leandetr.models.backbones import (
    Backbone,
    BackboneConfig,
    NanoResNetConfig,
    ResNetConfig,
    backbones,
)
from leandetr.models.backbones.base import check_outputs, with_padding
from leandetr.models.backbones.swin import Swin
from leandetr.types import Images

SMALL = {
    "resnet": {"depth": 18, "norm": "batch", "frozen_stages": 0},
    "resnet-nano": {"widths": (8, 12, 16, 20)},
    "swin": {"drop_path": 0.0},
}
OURS = [name for name in backbones.names() if name not in ("timm", "hf")]
"""Those of other libraries need a library and a name: they have a test of their own."""


def images(*sizes: tuple[int, int]) -> Images:
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    pixels = torch.zeros(len(sizes), 3, height, width)
    padding = torch.ones(len(sizes), height, width, dtype=torch.bool)
    for row, (h, w) in enumerate(sizes):
        pixels[row, :, :h, :w] = torch.randn(3, h, w)
        padding[row, :h, :w] = False
    return Images(pixels, padding)


@pytest.mark.parametrize("name", OURS)
def test_every_backbone_keeps_its_promises(name):
    config = backbones.get(name)(**SMALL.get(name, {}))
    assert isinstance(config, BackboneConfig)
    backbone = config.build()
    assert isinstance(backbone, Backbone)
    batch = images((70, 90), (64, 101))
    found = backbone(batch)
    assert tuple(level.shape[1] for level in found.maps) == backbone.channels
    for level, padding in zip(found.maps, found.padding, strict=True):
        assert padding.shape == (2, *level.shape[2:])
    areas = [level.shape[2] * level.shape[3] for level in found.maps]
    assert areas == sorted(areas, reverse=True)
    sum(level.square().mean() for level in found.maps).backward()
    silent = [key for key, p in backbone.named_parameters() if p.grad is None]
    assert not silent


@pytest.mark.parametrize("name", OURS)
def test_only_the_stages_asked_for_are_built_and_returned(name):
    config = backbones.get(name)(**SMALL.get(name, {}))
    full = config.build().eval()
    part = dataclasses.replace(config, outputs=(0, 2)).build().eval()
    state = full.state_dict()
    own = part.state_dict()
    assert not [key for key in own if "layer4" in key or "layers.3" in key or "norm3" in key]
    part.load_state_dict({**own, **{key: state[key] for key in own if key in state}})
    batch = images((40, 60))
    fine, coarse = part(batch).maps
    assert fine.shape[2:] == (10, 15)
    torch.testing.assert_close(coarse, full(batch).maps[1])


@pytest.mark.parametrize("name", OURS)
def test_permuting_the_batch_permutes_the_maps(name):
    backbone = backbones.get(name)(**SMALL.get(name, {})).build().eval()
    batch = images((64, 80), (50, 90), (30, 30))
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        straight = backbone(batch)
        turned = backbone(Images(batch.pixels[order], batch.padding[order]))
    for before, after in zip(straight.maps, turned.maps, strict=True):
        torch.testing.assert_close(before[order], after, atol=1e-4, rtol=1e-4)


class Plain(nn.Module):
    """The backbone with tensors at its border, for export."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels, padding):
        found = self.backbone(Images(pixels, padding))
        return found.maps, found.padding


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    [
        ResNetConfig(18, outputs=(0, 1)).build(),
        NanoResNetConfig(widths=(8, 12), blocks=(1, 1), outputs=(0, 1)).build(),
        Swin(8, (0, 2), heads=(2, 2), window=3, outputs=(1,), drop_path=0.1),
    ],
    ids=["resnet", "nano", "swin"],
)
def test_exports_with_symbolic_sizes(backbone):
    backbone = backbone.eval()
    batch = images((64, 96), (50, 70))
    # one cell a side at stride 32 would be a special case of its own
    height, width = torch.export.Dim("h", min=40, max=512), torch.export.Dim("w", min=40, max=512)
    shapes = {"pixels": {2: height, 3: width}, "padding": {1: height, 2: width}}
    program = torch.export.export(
        Plain(backbone), (batch.pixels, batch.padding), dynamic_shapes=shapes
    )
    other = images((75, 133), (75, 90))
    maps, padding = program.module()(other.pixels, other.padding)
    with torch.no_grad():
        expected = backbone(other)
    torch.testing.assert_close(maps, expected.maps, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(padding, expected.padding, strict=True))


@given(
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
)
def test_a_cell_is_padding_when_its_top_left_pixel_is(height, width, rows, columns):
    padding = torch.rand(2, height, width) < 0.5
    batch = Images(torch.zeros(2, 3, height, width), padding)
    found = with_padding([torch.zeros(2, 1, rows, columns)], batch).padding[0]
    down = torch.tensor([row * height // rows for row in range(rows)])
    across = torch.tensor([column * width // columns for column in range(columns)])
    # nearest interpolation multiplies in float32 and may round an exact pixel border down
    assert (found == padding[:, down][:, :, across]).float().mean() > 0.8
    if height % rows == 0 and width % columns == 0:
        assert torch.equal(found, padding[:, down][:, :, across])


@pytest.mark.parametrize("outputs", [(), (0, 4), (-1,), (2, 1), (1, 1)])
def test_outputs_that_are_no_stages_are_refused(outputs):
    with pytest.raises(RecipeError, match="indices of its 4 stages"):
        check_outputs(outputs, 4)

"""The smallest detectors that still have every part, and inputs for them.

Derived from the registries and presets, so that a new encoder or detector joins the conformance
tests by being registered.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from leandetr.models.backbones import NanoResNetConfig
from leandetr.models.encoders import encoders
from leandetr.recipes.assemble import PRESETS, build, recipe
from leandetr.recipes.recipe import ModelRecipe, Recipe
from leandetr.types import Images, Shapes, Target, Tokens

DIM, LEVELS, QUERIES, CLASSES = 16, 3, 12, 3
SIZES = {
    "layers": 2,
    "heads": 2,
    "points": 2,
    "hidden": 32,
    "low_hidden": 16,
    "high_levels": 2,
    "blocks": 2,
    "count": QUERIES,
    "spare": 8,
    "budget": 6,
    "repeat": 2,
    "objects": 4,
    "cascade": (1.0, 0.5),
    "dropout": 0.0,
}
"""What becomes of the fields of a part's config that have these names."""


def shrink(config: Any, **changes: Any) -> Any:
    """The same part, small."""
    known = {item.name for item in fields(config)}
    return replace(config, **{k: v for k, v in SIZES.items() if k in known} | changes)


def family(with_switches: bool = True) -> list[str]:
    """One preset for each kind of deformable detector, whatever its encoder and sizes.

    Two kinds differ in a part, or in a switch of the decoder or the queries such as `key_aware`.
    """
    kinds: dict[tuple, str] = {}
    for name in sorted(PRESETS, key=lambda name: ("nano" not in name, len(name), name)):
        model = recipe(name).model
        if _levels(model) > 1:
            kinds.setdefault(_kind(model, with_switches), name)
    return sorted(kinds.values())


def single_level() -> list[str]:
    """One preset for each kind of detector that works on one level: DETR and its relatives."""
    kinds: dict[tuple, str] = {}
    for name in sorted(PRESETS, key=lambda name: (len(name), name)):
        model = recipe(name).model
        if _levels(model) == 1:
            kinds.setdefault((type(model.neck).__name__, *_kind(model, True)), name)
    return sorted(kinds.values())


def _levels(model: ModelRecipe) -> int:
    return model.neck.levels


def _kind(model: ModelRecipe, with_switches: bool) -> tuple:
    parts = tuple(type(part).__name__ for part in (model.queries, model.decoder, *model.groups))
    if not with_switches:
        return parts
    switches = {
        (place, name): value
        for place, part in (("decoder", model.decoder), ("queries", model.queries))
        for name, value in vars(part).items()
        if isinstance(value, bool | str)
    }
    return (*parts, model.shared_heads, tuple(sorted(switches.items())))


def tiny(detector: str = "dino-nano", encoder: Any = None, **changes: Any) -> Recipe:
    """A preset with every part small; `encoder` is a registered name or a config."""
    preset = recipe(detector)
    model = preset.model
    if encoder is None:
        encoder = shrink(model.encoder)
    elif isinstance(encoder, str):
        encoder = encoders.get(encoder)(**_sizes(encoders.get(encoder)))
    one = _levels(model) == 1
    outputs, neck = ((3,), model.neck) if one else ((1, 2, 3), replace(model.neck, levels=LEVELS))
    small = {
        "backbone": NanoResNetConfig(widths=(8, 8, 16, 16), outputs=outputs),
        "neck": neck,
        "encoder": encoder,
        "queries": shrink(model.queries),
        "decoder": shrink(model.decoder),
        "groups": tuple(shrink(group) for group in model.groups),
        "dim": DIM,
        "classes": CLASSES,
        "top": QUERIES,
    }
    return preset.with_model(**small | changes)


def _sizes(config: type) -> dict[str, Any]:
    known = {item.name for item in fields(config)}
    return {k: v for k, v in SIZES.items() if k in known}


def tiny_model(detector: str = "dino-nano", encoder: Any = None, **changes: Any) -> nn.Module:
    """A tiny detector in evaluation mode whose weights are all different from zero."""
    model = build(tiny(detector, encoder, **changes))
    stir(model)
    return model.eval()


def stir(module: nn.Module) -> None:
    """Move every weight a little: a zero at the start would hide what it multiplies."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)


def batch(*sizes: tuple[int, int]) -> Images:
    """Random images of (height, width), padded to the largest."""
    height, width = (max(side) for side in zip(*sizes, strict=True))
    pixels = torch.zeros(len(sizes), 3, height, width)
    padding = torch.ones(len(sizes), height, width, dtype=torch.bool)
    for row, (h, w) in enumerate(sizes):
        pixels[row, :, :h, :w] = torch.randn(3, h, w)
        padding[row, :h, :w] = False
    return Images(pixels, padding)


def targets(*counts: int, classes: int = CLASSES) -> list[Target]:
    """So many random boxes for each image."""
    return [
        Target(
            torch.randint(classes, (count,)),
            torch.cat((torch.rand(count, 2) * 0.6 + 0.2, torch.rand(count, 2) * 0.2 + 0.05), dim=1),
        )
        for count in counts
    ]


def blocks(height: int, width: int, levels: int = LEVELS) -> list[Tensor]:
    """What `canvas` takes for one image: random features and positions, halved level by level."""
    return [
        torch.randn(max(height >> level, 1), max(width >> level, 1), 2 * DIM)
        for level in range(levels)
    ]


def canvas(contents: Sequence[Sequence[Tensor]], shapes: Shapes, *, junk: float = 0.0) -> Tokens:
    """Tokens of a padded canvas.

    `contents[n][l]` is the H x W x 2C block (features, then position) of image n on level l; it
    lies at the top left. Padded cells hold random numbers of size `junk`.
    """
    cells, ratios, holes = [], [], []
    for level, (height, width) in enumerate(shapes):
        blocks = [image[level] for image in contents]
        cells.append(torch.randn(len(blocks), height, width, blocks[0].shape[-1]) * junk)
        holes.append(torch.ones(len(blocks), height, width, dtype=torch.bool))
        for row, block in enumerate(blocks):
            h, w = block.shape[:2]
            cells[-1][row, :h, :w] = block
            holes[-1][row, :h, :w] = False
        ratios.append(torch.tensor([[b.shape[1] / width, b.shape[0] / height] for b in blocks]))
    features, position = torch.cat([x.flatten(1, 2) for x in cells], dim=1).chunk(2, dim=-1)
    padding = torch.cat([hole.flatten(1) for hole in holes], dim=1)
    return Tokens(features, position, padding, torch.stack(ratios, dim=1), shapes)

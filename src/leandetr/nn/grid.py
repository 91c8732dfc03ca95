"""Where tokens are: level sizes, valid shares, reference points and box proposals."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from leandetr.types import Shapes, Tokens

PROPOSAL_SIDE = 0.05
"""Side of a proposal on the finest level; doubled on every coarser one (Deformable DETR)."""
PROPOSAL_WINDOW = (0.01, 0.99)
"""Proposals with any coordinate outside are invalid (Deformable DETR, two-stage)."""


def may_be_padded(padding: Bool[Tensor, "*B"]) -> bool:
    """Whether anything may be padding: yes, unless a processor has looked at the mask.

    Elsewhere, and in compiled and exported programs, the answer must not depend on the data.
    """
    if torch.compiler.is_compiling() or padding.device.type != "cpu":
        return True
    return bool(padding.any())


def valid_ratio(padding: Bool[Tensor, "N H W"], dtype: torch.dtype) -> Float[Tensor, "N 2"]:
    """The (x, y) share of a map that is not padding, read off its first row and column."""
    rows = (~padding[:, :, 0]).to(dtype).mean(dim=1)
    columns = (~padding[:, 0, :]).to(dtype).mean(dim=1)
    return torch.stack((columns, rows), dim=-1)


def cell_centres(height: int, width: int, like: Tensor) -> Float[Tensor, "{height}*{width} 2"]:
    """Centres (x, y) of the cells of a map, in cells, row by row: the first is (0.5, 0.5)."""
    rows = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    columns = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), dim=-1).flatten(0, 1)


def _sides(height: int, width: int, like: Tensor) -> Float[Tensor, " 2"]:
    """(width, height) as a tensor that still follows symbolic sizes in an export."""
    one = torch.ones((), dtype=like.dtype, device=like.device)
    return torch.stack((one * width, one * height))


def valid_cells(tokens: Tokens) -> tuple[Float[Tensor, "N 2"], ...]:
    """How many columns and rows (x, y) of each level are not padding."""
    ratios = tokens.valid_ratios
    return tuple(
        ratios[:, level] * _sides(height, width, ratios)
        for level, (height, width) in enumerate(tokens.shapes)
    )


def _centres(tokens: Tokens, cells: tuple[Float[Tensor, "N 2"], ...]) -> Float[Tensor, "N S 2"]:
    """Token centres as fractions of `cells`, the extent of each level."""
    levels = [
        cell_centres(height, width, extent) / extent[:, None]
        for (height, width), extent in zip(tokens.shapes, cells, strict=True)
    ]
    return torch.cat(levels, dim=1)


def reference_points(tokens: Tokens) -> Float[Tensor, "N S 2"]:
    """Each token's centre in (0,1) of its unpadded image; above 1 on padding.

    fundamentalvision/Deformable-DETR:models/deformable_transformer.py, get_reference_points.
    """
    return _centres(tokens, valid_cells(tokens))


def on_levels(
    reference: Float[Tensor, "N Q R"], valid_ratios: Float[Tensor, "N L 2"]
) -> Float[Tensor, "N Q L R"]:
    """References in the unpadded image, as fractions of each padded level."""
    ratios = valid_ratios.repeat(1, 1, reference.shape[-1] // 2)
    return reference[:, :, None] * ratios[:, None]


def proposals(tokens: Tokens) -> Float[Tensor, "N S 4"]:
    """A box around each token, cxcywh in (0,1) of the unpadded image.

    Cells are counted in whole numbers: a proposal exactly on the window's edge must not slip
    inside by a rounding error.
    """
    centres = _centres(tokens, tuple(cells.round() for cells in valid_cells(tokens)))
    sides = [
        centres.new_full((height * width, 2), PROPOSAL_SIDE * 2.0**level)
        for level, (height, width) in enumerate(tokens.shapes)
    ]
    return torch.cat((centres, torch.cat(sides).expand(centres.shape)), dim=-1)


def valid_proposals(
    boxes: Float[Tensor, "N S 4"], padding: Bool[Tensor, "N S"]
) -> Bool[Tensor, "N S"]:
    """True where a proposal lies inside the window and its token is not padding."""
    low, high = PROPOSAL_WINDOW
    inside = ((boxes > low) & (boxes < high)).all(dim=-1)
    return inside & ~padding


def pick(values: Float[Tensor, "N S C"], index: Int[Tensor, "N Q"]) -> Float[Tensor, "N Q C"]:
    """The rows of each image at `index`; whole rows are copied, many times faster than `gather`."""
    rows = values.flatten(0, 1).index_select(0, _rows(values, index))
    return rows.unflatten(0, index.shape)


def put(
    values: Float[Tensor, "N S C"], index: Int[Tensor, "N Q"], rows: Float[Tensor, "N Q C"]
) -> Float[Tensor, "N S C"]:
    """A copy of `values` with `rows` at `index`, where no row may come twice."""
    flat = values.flatten(0, 1)
    return flat.index_put((_rows(values, index),), rows.flatten(0, 1)).view_as(values)


def _rows(values: Float[Tensor, "N S C"], index: Int[Tensor, "N Q"]) -> Int[Tensor, " NQ"]:
    """Where the rows of all images are when these lie one after the other."""
    images, tokens = values.shape[:2]
    starts = torch.arange(images, device=index.device) * tokens
    return (index + starts[:, None]).flatten()


def count(shapes: Shapes) -> int:
    """Number of tokens of all levels."""
    return sum(height * width for height, width in shapes)

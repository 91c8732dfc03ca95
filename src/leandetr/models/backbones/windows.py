"""Attention inside windows of a feature map (Swin Transformer, arXiv 2103.14030, section 3.2).

Official layout of keys; after microsoft/Swin-Transformer and the copy that detectors use,
IDEA-Research/DINO:models/dino/swin_transformer.py, which takes maps of any size.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

SEAM = -100.0
"""Added to the attention logit of two cells that only the cyclic shift brought together."""


def whole(cells: Float[Tensor, "N _ _ C"], size: int) -> Float[Tensor, "N H W C"]:
    """Zero-pad maps at the bottom and right until both sides are multiples of `size`."""
    height, width = cells.shape[1:3]
    # counted in whole windows, so that symbolic sizes are seen to be multiples
    rows, columns = (height + size - 1) // size, (width + size - 1) // size
    return F.pad(cells, (0, 0, 0, columns * size - width, 0, rows * size - height))


def windows_of(cells: Float[Tensor, "N H W C"], size: int) -> Float[Tensor, "NV T C"]:
    """Cut maps, whose sides are multiples of `size`, into windows of T = size * size cells."""
    rows, columns = cells.shape[1] // size, cells.shape[2] // size
    return rearrange(cells, "n (y h) (x w) c -> (n y x) (h w) c", y=rows, x=columns, h=size, w=size)


def seams(cells: Float[Tensor, "N H W C"], size: int, shift: int) -> Float[Tensor, "V T T"]:
    """Logits that keep apart, in each window of shifted maps, what the shift brought together.

    A map rolled by `shift` has its first rows and columns at its far end, next to cells that they
    do not touch.
    """
    down = _seam_regions(cells, 1, size, shift)[:, None, :, None]
    across = _seam_regions(cells, 2, size, shift)[None, :, None, :]
    region = (3 * down + across).flatten(2).flatten(0, 1)  # V T
    return SEAM * (region[:, :, None] != region[:, None]).to(cells.dtype)


def _seam_regions(
    cells: Float[Tensor, "N H W C"], axis: int, size: int, shift: int
) -> Int[Tensor, "_ size"]:
    """For each window's cells along an axis: 1 in the last window, 2 if rolled there, else 0."""
    count = cells.shape[axis] // size
    cell = torch.arange(size, device=cells.device)
    cell = torch.arange(count, device=cells.device)[:, None] * size + cell
    end = count * size
    return (cell >= end - size).long() + (cell >= end - shift).long()


def relative_positions(size: int) -> Int[Tensor, "T T"]:
    """Row of the bias table for each pair of cells of a window: (2 * size - 1) rows a side."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    y, x = y.flatten(), x.flatten()
    down = y[:, None] - y[None] + size - 1
    across = x[:, None] - x[None] + size - 1
    return down * (2 * size - 1) + across


class WindowAttention(nn.Module):
    """Multi-head self-attention inside each window, with a learned bias by relative position.

    softmax(q k / sqrt(d) + B) v (arXiv 2103.14030, eq. 4).
    """

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int, *, size: int) -> None:
        super().__init__()
        self.heads = heads
        self.size = size
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * size - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_positions(size))
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(
        self, cells: Float[Tensor, "N H W C"], apart: Float[Tensor, "V T T"] | None
    ) -> Float[Tensor, "N H W C"]:
        """Each cell's mix of its window; `apart` is added to the logits of every image.

        The sides of the maps are multiples of the window's.
        """
        height, width = cells.shape[1:3]
        rows, columns = height // self.size, width // self.size
        query, key, value = rearrange(
            self.qkv(windows_of(cells, self.size)),
            "v t (three m d) -> three v m t d",
            three=3,
            m=self.heads,
        )
        bias = self.relative_position_bias_table[self.relative_position_index]  # T T M
        bias = rearrange(bias, "s t m -> 1 m s t")
        if apart is not None:
            bias = (bias + apart[:, None]).repeat(cells.shape[0], 1, 1, 1)  # NV M T T
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        mixed = rearrange(
            mixed,
            "(n y x) m (h w) d -> n (y h x w) (m d)",
            y=rows,
            x=columns,
            h=self.size,
            w=self.size,
        )
        # symbolic sizes export when rows are cut after the projection, not before
        return rearrange(self.proj(mixed), "n (h w) c -> n h w c", h=height, w=width)

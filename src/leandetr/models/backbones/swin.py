"""Swin Transformer (arXiv 2103.14030) in the official layout, for images of any size."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from leandetr.errors import RecipeError
from leandetr.models.backbones.base import backbones, check_outputs, with_padding
from leandetr.models.backbones.pretrained import check_known
from leandetr.models.backbones.windows import WindowAttention, seams, whole
from leandetr.types import FeatureMaps, Images

PATCH = 4
"""Pixels a side of the patch that becomes one cell of the first stage."""


class PatchEmbed(nn.Module):
    """Patches of 4x4 pixels become cells; images are zero-padded to whole patches."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH, PATCH)
        self.norm = nn.LayerNorm(channels)

    def forward(self, pixels: Float[Tensor, "N 3 _ _"]) -> Float[Tensor, "N H W C"]:
        """One cell a patch."""
        pixels = rearrange(
            whole(rearrange(pixels, "n c h w -> n h w c"), PATCH), "n h w c -> n c h w"
        )
        return self.norm(rearrange(self.proj(pixels), "n c h w -> n h w c"))


class PatchMerging(nn.Module):
    """Each 2x2 cells become one with twice the channels; odd sides are zero-padded.

    The four are concatenated down first, then across, as in
    IDEA-Research/DINO:models/dino/swin_transformer.py, PatchMerging.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(4 * channels)

    def forward(self, cells: Float[Tensor, "N _ _ C"]) -> Float[Tensor, "N H W 2*C"]:
        """The map at half the size."""
        cells = whole(cells, 2)
        height, width = cells.shape[1] // 2, cells.shape[2] // 2
        cells = rearrange(cells, "n (h y) (w x) c -> n h w (x y c)", h=height, w=width, y=2, x=2)
        return self.reduction(self.norm(cells))


class DropPath(nn.Module):
    """In training, drop a residual branch for a random share of the images (arXiv 1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Float[Tensor, "N H W C"]) -> Float[Tensor, "N H W C"]:
        """The branch, zero for some images and larger for the others, so that the mean stays."""
        if not self.training or self.rate == 0:
            return branch
        kept = torch.full_like(branch[:, :1, :1, :1], 1 - self.rate).bernoulli()
        return branch * (kept / (1 - self.rate))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, cells: Float[Tensor, "N H W C"]) -> Float[Tensor, "N H W C"]:
        """Each cell by itself."""
        return self.fc2(F.gelu(self.fc1(cells)))


class SwinBlock(nn.Module):
    """Window attention and an MLP, each normalised before and added to what came in (eq. 3).

    With a `shift` the map is rolled up and left first, so that windows straddle those of the block
    before. Cells that pad the map to whole windows are attended to, as in the official code.
    """

    def __init__(
        self, channels: int, heads: int, *, window: int, shift: int, drop_path: float
    ) -> None:
        super().__init__()
        self.window = window
        self.shift = shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, size=window)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = Mlp(channels, 4 * channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, cells: Float[Tensor, "N H W C"]) -> Float[Tensor, "N H W C"]:
        """The map, each cell having looked at its window."""
        cells = cells + self.drop_path(self.attend(self.norm1(cells)))
        return cells + self.drop_path(self.mlp(self.norm2(cells)))

    def attend(self, cells: Float[Tensor, "N H W C"]) -> Float[Tensor, "N H W C"]:
        """Window attention on a map of any size."""
        padded = whole(cells, self.window)
        apart = None
        if self.shift:
            padded = padded.roll((-self.shift, -self.shift), dims=(1, 2))
            apart = seams(padded, self.window, self.shift)
        mixed = self.attn(padded, apart)
        if self.shift:
            mixed = mixed.roll((self.shift, self.shift), dims=(1, 2))
        # crops; a slice would ask the export whether the map is large enough
        down, across = cells.shape[1] - mixed.shape[1], cells.shape[2] - mixed.shape[2]
        return F.pad(mixed, (0, 0, 0, across, 0, down))


class SwinStage(nn.Module):
    """Blocks at one size, every second one shifted by half a window; `downsample` leads on."""

    def __init__(
        self,
        channels: int,
        heads: int,
        *,
        window: int,
        drop_paths: Sequence[float],
        downsample: nn.Module,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                SwinBlock(channels, heads, window=window, shift=i % 2 * (window // 2), drop_path=p)
                for i, p in enumerate(drop_paths)
            )
        )
        self.downsample = downsample

    def forward(
        self, cells: Float[Tensor, "N _ _ _"]
    ) -> tuple[Float[Tensor, "N _ _ _"], Float[Tensor, "N _ _ _"]]:
        """The stage's own map, and what the next stage starts from."""
        cells = self.blocks(cells)
        return cells, self.downsample(cells)


class Swin(nn.Module):
    """Stage i works on cells of 4 * 2**i pixels with `embed` * 2**i channels.

    The maps of the stages `outputs` come out, each normalised by its own `norm<i>`, finest first;
    `channels` are theirs. Stages after the last output are left out. `drop_path` is the rate of
    the last block of all `depths`; it grows linearly from 0 at the first.
    """

    def __init__(
        self,
        embed: int,
        depths: Sequence[int],
        *,
        heads: Sequence[int],
        window: int,
        outputs: tuple[int, ...],
        drop_path: float,
    ) -> None:
        super().__init__()
        blocks = sum(depths)
        rates = [drop_path * index / max(blocks - 1, 1) for index in range(blocks)]
        last = max(outputs)
        self.patch_embed = PatchEmbed(embed)
        self.layers = nn.ModuleList()
        for index in range(last + 1):
            start = sum(depths[:index])
            width = embed << index
            self.layers.append(
                SwinStage(
                    width,
                    heads[index],
                    window=window,
                    drop_paths=rates[start : start + depths[index]],
                    downsample=PatchMerging(width) if index < last else nn.Identity(),
                )
            )
        for index in outputs:
            self.add_module(f"norm{index}", nn.LayerNorm(embed << index))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                _initialise(module)
        self.channels = tuple(embed << index for index in outputs)
        self.outputs = outputs

    def forward(self, images: Images) -> FeatureMaps:
        """Feature maps, finest first, each with the image's padding at its own size."""
        cells = self.patch_embed(images.pixels)
        maps = []
        for index, stage in enumerate(self.layers):
            level, cells = stage(cells)
            if index in self.outputs:
                level = self.get_submodule(f"norm{index}")(level)
                maps.append(rearrange(level, "n h w c -> n c h w").contiguous())
        return with_padding(maps, images)


def _initialise(linear: nn.Linear) -> None:
    nn.init.trunc_normal_(linear.weight, std=0.02)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


VARIANTS: dict[str, tuple[int, tuple[int, ...], tuple[int, ...]]] = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
"""Variant -> channels of the first stage, blocks and heads of each (arXiv 2103.14030, 3.3)."""


@backbones.register("swin")
@dataclass(frozen=True)
class SwinConfig:
    """Swin-T, S, B or L.

    `window`: cells a side of a window; 7, or 12 for the weights trained at 384 pixels. `outputs`:
    indices of the four stages to return, at strides 4, 8, 16 and 32. `drop_path`: rate of the last
    block; 0.2 in DINO. `frozen_stages`: how many of (patch embedding, first stage, ...) do not
    train; 2 in Sparse DETR. `weights`: "imagenet" (1k), "imagenet-22k" or None.
    """

    variant: str = "tiny"
    window: int = 7
    outputs: tuple[int, ...] = (1, 2, 3)
    drop_path: float = 0.2
    frozen_stages: int = 0
    weights: str | None = None

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise RecipeError(f"Swin variant is one of {list(VARIANTS)}, got '{self.variant}'")
        if self.window < 2:
            raise RecipeError(f"a Swin window has at least 2 cells a side, got {self.window}")
        if not 0 <= self.drop_path < 1:
            raise RecipeError(f"drop_path is a rate from 0 to below 1, got {self.drop_path}")
        if not 0 <= self.frozen_stages <= 5:
            raise RecipeError(
                "frozen_stages counts the patch embedding and four stages and so is 0 to 5, "
                f"got {self.frozen_stages}"
            )
        check_outputs(self.outputs, 4)
        check_known(self.architecture, self.weights)

    @property
    def architecture(self) -> str:
        """`swin-tiny-w7` and so on."""
        return f"swin-{self.variant}-w{self.window}"

    def build(self) -> nn.Module:
        """The backbone, with random weights; stages after the last output are left out."""
        embed, depths, heads = VARIANTS[self.variant]
        swin = Swin(
            embed,
            depths,
            heads=heads,
            window=self.window,
            outputs=self.outputs,
            drop_path=self.drop_path,
        )
        for part in [swin.patch_embed, *swin.layers][: self.frozen_stages]:
            part.requires_grad_(False)
        return swin

"""What the scores of a scoring encoder learn from: the boxes, or where the decoder looked."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from leandetr import boxes as frames
from leandetr.errors import RecipeError
from leandetr.nn import grid
from leandetr.training.losses import focal_loss
from leandetr.training.matcher import PaddedTargets
from leandetr.types import Foreground, Group, Look, Outputs, Shapes, Tokens


def salience_loss(outputs: Outputs, targets: PaddedTargets) -> Float[Tensor, ""]:
    """The loss of the scores in `outputs.salience`, by the teacher that they name.

    Raises `RecipeError` where scores learn from a decoder that does not say where it looks.
    """
    salience, tokens, extent = outputs.salience, outputs.tokens, outputs.extent
    assert salience is not None
    assert tokens is not None
    assert extent is not None
    logits = salience.logits.float()
    if isinstance(salience.teacher, Foreground):
        wanted = foreground_tokens(tokens, extent, targets, salience.teacher.limits)
        return foreground_loss(logits, wanted)
    if not outputs.looks:
        raise RecipeError(
            "expected a decoder that samples, since the encoder's scores learn from where it "
            "looks; this one reported nothing; set decoder=deformable or another encoder"
        )
    looked = decoder_attention(outputs.looks, outputs.groups[0], tokens.shapes)
    return attention_loss(logits, most_attended(looked, tokens.padding, salience.teacher.counts))


def foreground_loss(
    logits: Float[Tensor, "N S"], foreground: Bool[Tensor, "N S"]
) -> Float[Tensor, ""]:
    """Focal loss of all tokens, padding included, over the foreground tokens of each image.

    Sums are divided by an image's number of foreground tokens, at least 1, then averaged over
    images: Focus-DETR (arXiv 2307.12612), section 3.2; huawei-noah/noah-research:Focus-DETR.
    """
    positive = foreground.to(logits.dtype)
    summed = focal_loss(logits[:, None, :, None], positive[:, None, :, None])
    return (summed / positive.sum(1).clamp(min=1)).mean()


@torch.no_grad()
def foreground_tokens(
    tokens: Tokens,
    extent: Int[Tensor, "N 2"],
    targets: PaddedTargets,
    limits: Sequence[tuple[float, float]],
) -> Bool[Tensor, "N S"]:
    """Which tokens lie inside a box whose size is the business of their level.

    `limits` are (above, up to) of each level for the distance in pixels from a token's centre to
    the farthest side of a box. Boxes are measured in pixels of the unpadded image, `extent`.
    Any box counts, in whatever order; the centre sampling that official code computes it never
    uses (huawei-noah/noah-research:Focus-DETR).
    """
    corners = frames.cxcywh_to_xyxy(targets.boxes)
    corners = frames.to_pixels(corners, extent.to(corners.dtype)[:, None])  # N T 4
    step = finest_stride(tokens, extent)
    marked = []
    for (height, width), (above, up_to) in zip(tokens.shapes, limits, strict=True):
        x, y = (
            torch.arange(side, device=step.device) * step + step // 2 for side in (width, height)
        )
        near_x, far_x = _to_sides(x, corners[..., 0], corners[..., 2])  # N T W
        near_y, far_y = _to_sides(y, corners[..., 1], corners[..., 3])  # N T H
        inside = (near_x > 0)[:, :, None] & (near_y > 0)[..., None]  # N T H W
        farthest = torch.maximum(far_x[:, :, None], far_y[..., None])
        fitting = inside & (farthest > above) & (farthest <= up_to)
        marked.append((fitting & targets.real[..., None, None]).any(dim=1).flatten(1))
        step = step * 2
    return torch.cat(marked, dim=1)


def finest_stride(tokens: Tokens, extent: Int[Tensor, "N 2"]) -> Float[Tensor, ""]:
    """Pixels of the network's input from one token of the finest level to the next.

    Every coarser level doubles it. It is a power of two, read off how many valid cells the
    images have: a cell cut by the border makes the quotient too small, the largest is closest.
    """
    cells = grid.valid_cells(tokens)[0].flip(-1)  # rows, columns
    return 2 ** (extent / cells).amax().log2().round()


def _to_sides(
    place: Float[Tensor, " P"], low: Float[Tensor, "N T"], high: Float[Tensor, "N T"]
) -> tuple[Float[Tensor, "N T P"], Float[Tensor, "N T P"]]:
    """Distance of every place to the nearer and to the farther of two sides of each box.

    The nearer one is negative outside of the box.
    """
    before, behind = place - low[..., None], high[..., None] - place
    return torch.minimum(before, behind), torch.maximum(before, behind)


def attention_loss(
    logits: Float[Tensor, "N S"], attended: Bool[Tensor, "N S"]
) -> Float[Tensor, ""]:
    """Binary cross entropy averaged over all tokens, padding included.

    Sparse DETR (arXiv 2111.14330), section 3.3; kakaobrain/sparse-detr:models/deformable_detr.py,
    loss_mask_prediction, which calls it a multilabel soft margin.
    """
    return F.binary_cross_entropy_with_logits(logits, attended.to(logits.dtype))


@torch.no_grad()
def most_attended(
    looked: Float[Tensor, "N S"], padding: Bool[Tensor, "N S"], counts: Int[Tensor, " N"]
) -> Bool[Tensor, "N S"]:
    """The `counts[n]` tokens of image n that the decoder looked at most; padding comes last."""
    looked = looked.masked_fill(padding, -1.0)  # attention is never below 0
    order = looked.argsort(dim=1, descending=True, stable=True)
    rank = torch.arange(order.shape[1], device=order.device)
    return torch.zeros_like(padding).scatter(1, order, rank < counts[:, None])


@torch.no_grad()
def decoder_attention(looks: Sequence[Look], group: Group, shapes: Shapes) -> Float[Tensor, "N S"]:
    """How much a group of queries looked at each token, summed over layers and heads (DAM).

    Sparse DETR (arXiv 2111.14330), section 3.3.
    """
    return torch.stack([_spread(look, group, shapes) for look in looks]).sum(0)


def _spread(look: Look, group: Group, shapes: Shapes) -> Float[Tensor, "N S"]:
    """Each sample's weight on the four tokens around it, as bilinear interpolation would give.

    The place is location * size in cells, half a cell away from where the attention itself
    samples, and what falls outside of the map is lost
    (kakaobrain/sparse-detr:util/dam.py, attn_map_to_flat_grid).
    """
    queries = slice(group.start, group.stop)
    weights = look.weights[:, queries].float()  # N Q M L P
    sizes = torch.tensor([(width, height) for height, width in shapes], device=weights.device)
    first = torch.tensor(_starts(shapes), device=weights.device)[:, None]
    place = look.locations[:, queries].float() * sizes[:, None]
    corner = place.floor()
    looked = weights.new_zeros(len(weights), grid.count(shapes))
    for step in ((0, 0), (1, 0), (0, 1), (1, 1)):
        cell = corner + torch.tensor(step, device=corner.device)
        near = (1 - (place - cell).abs()).prod(-1)
        inside = ((cell >= 0) & (cell < sizes[:, None])).all(-1)
        column, row = torch.where(inside[..., None], cell, 0).long().unbind(-1)
        token = first + row * sizes[:, :1] + column
        looked.scatter_add_(1, token.flatten(1), (weights * near * inside).flatten(1))
    return looked


def _starts(shapes: Shapes) -> list[int]:
    """Index of the first token of each level."""
    return [grid.count(shapes[:level]) for level in range(len(shapes))]


def attention_share(
    looked: Float[Tensor, "N S"], kept: Int[Tensor, "N T"], shapes: Shapes
) -> Float[Tensor, "A N"]:
    """Which share of the decoder's attention falls on the tokens that the encoder kept.

    A is all levels together, then each level: 1 where the scores have learned where the decoder
    looks, 0 too where it does not look at a level at all. The official diagnostic counts all of
    `Salience.kept`, also those that only fill the batch: Sparse DETR (arXiv 2111.14330),
    section 3.3; kakaobrain/sparse-detr:util/dam.py, compute_corr.
    """
    seen = torch.zeros_like(looked).scatter(1, kept, looked.gather(1, kept))
    sides = [height * width for height, width in shapes]
    hit, total = (
        torch.stack([part.sum(1) for part in (every, *every.split(sides, dim=1))])
        for every in (seen, looked)
    )
    return hit / torch.where(total > 0, total, 1.0)

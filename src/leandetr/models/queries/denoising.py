"""Contrastive denoising of DINO (arXiv 2203.03605), section 3.3: training only.

Noised copies of the targets ask to be restored. Each copy comes in two halves: positives, moved by
less than half a box, are to find their target; negatives, moved by more, are to find nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from leandetr import boxes as frames
from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.heads import ProposalHead
from leandetr.models.queries.base import QuerySource, groups, joined
from leandetr.registry import a_share
from leandetr.types import Group, Known, Queries, Sight, Target, Tokens

BOX_EPS = 1e-3
"""Clamp of the inverse sigmoid of noised boxes (IDEA-Research/DINO:util/misc.py)."""
MOST = 500
"""Targets of an image that are noised, drawn anew in each step where there are more: attention
among their copies takes memory with the square of their number. The official code has no limit."""
BUDGET_FROM = 100
"""From this doubled budget on it counts queries; below, it counts groups (official code)."""


@groups.register("denoising")
@dataclass(frozen=True)
class DenoisingConfig:
    """`budget` is the official `dn_number`: how many positives a batch spends on an image.

    `spare_row` gives the label table a row more than there are classes, as IDEA-Research does and
    detrex does not; it is never used.
    """

    budget: int = 100
    label_noise: float = 0.5
    box_noise: float = 0.4
    spare_row: bool = True

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise RecipeError(
                f"expected a denoising budget of at least 1; got {self.budget}; "
                "to train without denoising type --set model.groups=[]"
            )
        a_share(self, "denoising", "label_noise", "box_noise")

    def build(self, dims: Dims) -> nn.Module:
        """The training group for a detector of these sizes."""
        return Denoising(
            dims.dim,
            dims.classes,
            budget=self.budget,
            label_noise=self.label_noise,
            box_noise=self.box_noise,
            spare_row=self.spare_row,
        )


@dataclass(frozen=True)
class Noise:
    """Random draws for every slot: `label_chance`, `size` uniform in [0, 1), `sign` -1 or 1."""

    label_chance: Float[Tensor, "N G"]
    label: Int[Tensor, "N G"]
    sign: Float[Tensor, "N G 4"]
    size: Float[Tensor, "N G 4"]


def draw_noise(images: int, slots: int, classes: int, device: torch.device) -> Noise:
    """Fresh draws from PyTorch's generator of the device."""
    return Noise(
        torch.rand(images, slots, device=device),
        torch.randint(classes, (images, slots), device=device),
        torch.randint(2, (images, slots, 4), device=device) * 2.0 - 1,
        torch.rand(images, slots, 4, device=device),
    )


class Denoising(nn.Module):
    """Adds a group of noised targets that only see their own copy and the main queries.

    With `spare_row` the label table has a row more than there are classes.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        budget: int,
        label_noise: float,
        box_noise: float,
        spare_row: bool = True,
        draw: Callable[[int, int, int, torch.device], Noise] = draw_noise,
    ) -> None:
        super().__init__()
        self.labels = nn.Embedding(classes + int(spare_row), dim)
        self.classes = classes
        self.budget = budget
        self.label_noise = label_noise
        self.box_noise = box_noise
        self.draw = draw

    def forward(
        self,
        queries: Queries,
        tokens: Tokens,
        proposals: ProposalHead | None,
        targets: Sequence[Target],
        source: QuerySource,
    ) -> Queries:
        """The queries with a denoising group behind them; without any target it is empty.

        Slots of images with fewer targets than the fullest hold zeros and the box (0.5, 0.5,
        0.5, 0.5); they count as background and are not hidden (official code). Raises
        `RecipeError` unless the queries have boxes and leave their position to the decoder.
        """
        places = [_some(target) for target in targets]
        targets = [
            Target(one.labels[place], one.boxes[place])
            for one, place in zip(targets, places, strict=True)
        ]
        copies = Copies.of(targets, self._copies(targets))
        noise = self.draw(len(targets), copies.slots, self.classes, queries.content.device)
        content = self.labels(self._noised_labels(copies, noise))
        content = content * copies.used[..., None]
        noised = frames.inverse_sigmoid(self._noised_boxes(copies, noise), BOX_EPS)
        reference = (noised * copies.used[..., None]).sigmoid()
        start = queries.content.shape[1]
        group = Group("denoising", start, start + copies.slots, copies.assignment(places))
        more = Queries(content, None, reference, (), ())
        return joined(queries, more, group, _sight(queries, copies))

    def _copies(self, targets: Sequence[Target]) -> int:
        """How many noised copies of the targets; see `BUDGET_FROM`."""
        fullest = max((len(target.labels) for target in targets), default=0)
        if fullest == 0:
            return 1
        doubled = 2 * self.budget
        return max(doubled // (2 * fullest), 1) if doubled >= BUDGET_FROM else doubled

    def _noised_labels(self, copies: "Copies", noise: Noise) -> Int[Tensor, "N G"]:
        """Labels with a share of `label_noise` / 2 replaced by random ones."""
        flip = noise.label_chance < self.label_noise * 0.5
        return torch.where(flip, noise.label, copies.labels)

    def _noised_boxes(self, copies: "Copies", noise: Noise) -> Float[Tensor, "N G 4"]:
        """Boxes whose corners moved by up to half a side, negatives by half to a whole one."""
        half = copies.boxes[..., 2:].repeat(1, 1, 2) / 2
        step = (noise.size + copies.negative[:, None]) * noise.sign * half * self.box_noise
        corners = frames.cxcywh_to_xyxy(copies.boxes) + step
        return frames.xyxy_to_cxcywh(corners.clamp(0, 1))


@dataclass(frozen=True)
class Copies:
    """The targets of a batch, repeated: per copy a positive and a negative half of T slots each."""

    labels: Int[Tensor, "N G"]
    boxes: Float[Tensor, "N G 4"]
    used: Bool[Tensor, "N G"]
    index: Int[Tensor, " G"]
    copy: Int[Tensor, " G"]
    negative: Bool[Tensor, " G"]
    count: int

    @staticmethod
    def of(targets: Sequence[Target], count: int) -> "Copies":
        """`count` copies of the targets, padded to the fullest image."""
        labels = pad_sequence([t.labels for t in targets], batch_first=True)
        boxes = pad_sequence([t.boxes for t in targets], batch_first=True)
        fullest, device = labels.shape[1], labels.device
        lengths = torch.tensor([len(t.labels) for t in targets], device=device)
        slot = torch.arange(2 * count * fullest, device=device)
        index = slot % max(fullest, 1)
        half = torch.div(slot, max(fullest, 1), rounding_mode="floor")
        return Copies(
            labels=labels[:, index],
            boxes=boxes[:, index],
            used=index < lengths[:, None],
            index=index,
            copy=torch.div(half, 2, rounding_mode="floor"),
            negative=half % 2 == 1,
            count=count,
        )

    @property
    def slots(self) -> int:
        """Number of queries in the group."""
        return len(self.index)

    def assignment(self, places: Sequence[Int[Tensor, " _"]]) -> Known:
        """Positives restore their target, everything else is background.

        `places` are those of the noised targets among all of their image.
        """
        positive = self.used & ~self.negative
        place = pad_sequence(list(places), batch_first=True)[:, self.index]
        return Known(torch.where(positive, place, -1), self.count)


def _some(target: Target) -> Int[Tensor, " _"]:
    """Places of the targets of an image that are noised: all of them up to `MOST`."""
    count, device = len(target.labels), target.labels.device
    if count <= MOST:
        return torch.arange(count, device=device)
    return torch.randperm(count, device=device)[:MOST]


def _sight(queries: Queries, copies: Copies) -> Sight:
    """A copy sees itself and the main queries, and no other group."""
    main, start = queries.groups[0].stop, queries.content.shape[1]
    hidden = torch.ones(
        copies.slots, start + copies.slots, dtype=torch.bool, device=copies.copy.device
    )
    hidden[:, :main] = False
    hidden[:, start:] = copies.copy[:, None] != copies.copy
    return Sight(copies.slots, 0, start + copies.slots, hidden)

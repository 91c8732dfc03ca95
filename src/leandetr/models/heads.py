"""What turns query features into classes and boxes."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandetr import boxes as frames
from leandetr.nn import grid
from leandetr.nn.feed_forward import MLP
from leandetr.types import Proposed, Tokens

PRIOR = 0.01
"""Every class starts at this probability (focal loss, arXiv 1708.02002)."""
BOX_DEPTH = 3
"""Linear layers of a box head, in the whole family."""


def class_head(dim: int, classes: int) -> nn.Linear:
    """A linear class head whose bias starts every class at `PRIOR`."""
    head = nn.Linear(dim, classes)
    nn.init.constant_(head.bias, -math.log((1 - PRIOR) / PRIOR))
    return head


def box_head(dim: int) -> MLP:
    """A box head that starts by moving nothing."""
    head = MLP(dim, 4, hidden=dim, depth=BOX_DEPTH)
    for parameter in head.layers[-1].parameters():
        nn.init.zeros_(parameter)
    return head


def _background_head(dim: int, classes: int) -> nn.Linear:
    return nn.Linear(dim, classes + 1)


def _placing_head(dim: int) -> MLP:
    return MLP(dim, 4, hidden=dim, depth=BOX_DEPTH)


class PredictionHeads(nn.Module):
    """Class and box heads of the decoder: `layers` of each, or one that serves all layers.

    With `background`, one more class, the last, means that there is nothing (DETR); these heads
    place boxes instead of moving them, and start as PyTorch leaves them, as the official ones do.
    `first_size` is the logit of width and height that the first layer starts from: for queries
    whose references have none.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        *,
        layers: int,
        shared: bool,
        background: bool = False,
        first_size: float = 0.0,
    ) -> None:
        super().__init__()
        count = 1 if shared else layers
        class_of, box_of = (
            (_background_head, _placing_head) if background else (class_head, box_head)
        )
        self.classes = nn.ModuleList(class_of(dim, classes) for _ in range(count))
        boxes = [box_of(dim) for _ in range(count)]
        with torch.no_grad():
            *_, bias = boxes[0].parameters()
            bias[2:] += first_size
        self.boxes = nn.ModuleList(boxes)

    def logits(self, layer: int, features: Float[Tensor, "N Q C"]) -> Float[Tensor, "N Q K"]:
        """Class logits of a decoder layer's queries."""
        return self.classes[min(layer, len(self.classes) - 1)](features)

    def shift(self, layer: int, features: Float[Tensor, "N Q C"]) -> Float[Tensor, "N Q 4"]:
        """How far, in logits, each query's reference box moves."""
        return self.boxes[min(layer, len(self.boxes) - 1)](features)


@dataclass(frozen=True)
class Proposals:
    """Tokens as box candidates. `box_logits` are +inf where a token may not propose."""

    features: Float[Tensor, "N S C"]
    logits: Float[Tensor, "N S K"]
    box_logits: Float[Tensor, "N S 4"]
    valid: Bool[Tensor, "N S"]


class ProposalHead(nn.Module):
    """Scores tokens as box candidates: two-stage Deformable DETR (arXiv 2010.04159), appendix.

    Handed to query sources and scoring encoders, so that its weights have one home.
    """

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.classes = class_head(dim, classes)
        self.boxes = box_head(dim)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, tokens: Tokens) -> Proposals:
        """Score every token.

        A padded token, or one whose proposal leaves the window, is described by zeros and keeps
        a box logit of +inf (IDEA-Research/DINO:models/dino/utils.py,
        gen_encoder_output_proposals); it can still be chosen when its score is high.
        """
        boxes, valid = _candidates(tokens)
        features = self._describe(tokens.features, valid)
        return Proposals(features, self.classes(features), _logits(boxes, valid), valid)

    def box_logits(self, tokens: Tokens) -> Float[Tensor, "N S 4"]:
        """The box that each token starts from, in logits; +inf where it may not propose."""
        return _logits(*_candidates(tokens))

    def describe(self, tokens: Tokens) -> Float[Tensor, "N S C"]:
        """Every token with its position, as the proposals would see it: what scoring encoders read.

        Padded tokens and those whose proposal leaves the window are described by zeros.
        """
        _, valid = _candidates(tokens)
        return self._describe(tokens.features + tokens.position, valid)

    def _describe(
        self, features: Float[Tensor, "N S C"], valid: Bool[Tensor, "N S"]
    ) -> Float[Tensor, "N S C"]:
        return self.norm(self.project(torch.where(valid[..., None], features, 0.0)))

    def likeliest(self, features: Float[Tensor, "N Q C"]) -> Float[Tensor, "N Q"]:
        """The logit of the best class of each token, read off its features as they are."""
        return self.classes(features).amax(dim=-1)

    def propose(self, tokens: Tokens, *, agnostic: bool = False) -> Proposed:
        """The proposals of all tokens, for supervision."""
        found = self(tokens)
        boxes = frames.sigmoid(self.place(found.features, found.box_logits))
        return Proposed(found.logits, boxes, agnostic)

    def place(
        self, features: Float[Tensor, "N Q C"], box_logits: Float[Tensor, "N Q 4"]
    ) -> Float[Tensor, "N Q 4"]:
        """Refined box logits of the tokens described by `features`."""
        return self.boxes(features) + box_logits


def _candidates(tokens: Tokens) -> tuple[Float[Tensor, "N S 4"], Bool[Tensor, "N S"]]:
    """A box around each token, and whether it may propose."""
    boxes = grid.proposals(tokens)
    return boxes, grid.valid_proposals(boxes, tokens.padding)


def _logits(boxes: Float[Tensor, "N S 4"], valid: Bool[Tensor, "N S"]) -> Float[Tensor, "N S 4"]:
    """Candidate boxes in logits; +inf where a token may not propose."""
    return torch.log(boxes / (1 - boxes)).masked_fill(~valid[..., None], torch.inf)

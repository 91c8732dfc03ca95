"""What every encoder is: tokens in, refined tokens out."""

from typing import Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from leandetr.models.heads import ProposalHead
from leandetr.nn.deform_attention import SampledAttention
from leandetr.nn.dropout import Dropout
from leandetr.registry import Registry
from leandetr.types import Encoded, Shapes, Tokens

encoders = Registry("encoder", entry_points="leandetr.encoders")


@runtime_checkable
class Encoder(Protocol):
    """An encoder refines tokens; scoring encoders also use the head that proposes boxes."""

    def __call__(self, tokens: Tokens, proposals: ProposalHead | None) -> Encoded:
        """Refine the tokens of a batch."""
        ...


class Gather(nn.Module):
    """x + attention(x), then layer norm: the first half of every deformable encoder layer."""

    def __init__(self, dim: int, attention: SampledAttention, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = attention
        self.norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        features: Float[Tensor, "N Q C"],
        position: Float[Tensor, "N Q C"],
        reference: Float[Tensor, "N Q L 2"],
        *,
        memory: Float[Tensor, "N S C"],
        shapes: Shapes,
        padding: Bool[Tensor, "N S"],
    ) -> Float[Tensor, "N Q C"]:
        """Queries carry their position; keys and values do not."""
        found = self.attention(features + position, reference, memory, shapes, padding)
        return self.norm(features + self.dropout(found))

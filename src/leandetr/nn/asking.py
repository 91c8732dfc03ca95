"""Which tokens ask in a layer, where all of them answer, and where what they learn goes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from leandetr.nn import grid
from leandetr.nn.scoring import write_back


@dataclass(frozen=True)
class Tail:
    """All tokens from `start` on ask; the first `low_count` of them are low-level.

    With `over`, what they were is written over.
    """

    start: int
    low_count: int
    over: bool

    def take(self, values: Float[Tensor, "N S C"]) -> Float[Tensor, "N Q C"]:
        """What belongs to the asking tokens."""
        return values[:, self.start :]

    def put(
        self, values: Float[Tensor, "N S C"], updated: Float[Tensor, "N Q C"]
    ) -> Float[Tensor, "N S C"]:
        """The values with those of the asking tokens replaced."""
        if self.start == 0:
            return updated
        if self.over:
            values[:, self.start :] = updated
            return values
        return torch.cat((values[:, : self.start], updated), dim=1)


@dataclass(frozen=True)
class Chosen:
    """Some low-level tokens ask and all from `start` on, which are high-level.

    Of `kept`, of image n only the first `counts[n]` are updated; the others just fill the batch.
    """

    kept: Int[Tensor, "N T"]
    counts: Int[Tensor, " N"]
    start: int

    @property
    def low_count(self) -> int:
        """How many of the asking tokens are low-level; they come first."""
        return self.kept.shape[1]

    def take(self, values: Float[Tensor, "N S C"]) -> Float[Tensor, "N Q C"]:
        """What belongs to the asking tokens."""
        return torch.cat((grid.pick(values, self.kept), values[:, self.start :]), dim=1)

    def put(
        self, values: Float[Tensor, "N S C"], updated: Float[Tensor, "N Q C"]
    ) -> Float[Tensor, "N S C"]:
        """The values with those of the asking tokens replaced."""
        low, high = updated[:, : self.low_count], updated[:, self.low_count :]
        low = write_back(values[:, : self.start], self.kept, self.counts, low)
        return torch.cat((low, high), dim=1)


Asking = Tail | Chosen
"""Which tokens ask in a layer."""

"""What every decoder is: queries and tokens in, one prediction a layer out."""

from typing import Protocol, runtime_checkable

from leandetr.models.heads import PredictionHeads
from leandetr.registry import Registry
from leandetr.types import Prediction, Queries, Tokens

decoders = Registry("decoder")


@runtime_checkable
class Decoder(Protocol):
    """A decoder lets queries look at tokens and at each other; the heads are lent to it."""

    def __call__(
        self, queries: Queries, tokens: Tokens, heads: PredictionHeads
    ) -> tuple[Prediction, ...]:
        """One prediction a layer, the last is the answer."""
        ...

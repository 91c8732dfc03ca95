"""What official code computes though nobody reads it: papers count it, this package leaves it out.

The answers are the same. Found by comparing our counts with those of the official code, to the
last decimal printed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from leandetr.evaluation.parts import Part
from leandetr.models.decoders.deformable import DeformableDecoder
from leandetr.models.detector import Detector
from leandetr.models.encoders.lite import LiteEncoder, ScoredLiteEncoder
from leandetr.models.encoders.sparse import SparseEncoder
from leandetr.models.queries.mixed import MixedQueries

Note = Callable[[Part, int], None]
"""Told the part and the multiply-adds that official code spends there besides."""


@contextmanager
def unread(model: Detector, note: Note) -> Iterator[None]:
    """Tell `note` what official code would compute besides in every forward pass of the block.

    DINO and Focus-DETR work out a box for every token, not just the chosen ones; Lite DETR's count
    shows that it chooses first. Deformable DETR with refinement works out the boxes of every
    decoder layer twice. Sparse DETR runs the heads of its encoder layers outside training too.
    """
    encoder, queries, decoder = (
        model.get_submodule(name) for name in ("encoder", "queries", "decoder")
    )
    hooks = []
    if isinstance(queries, MixedQueries) and not isinstance(
        encoder, LiteEncoder | ScoredLiteEncoder
    ):
        hooks += _boxes_of_other_tokens(model, queries, note)
    if isinstance(decoder, DeformableDecoder) and decoder.refine:
        hooks += _boxes_again(model, note)
    if isinstance(encoder, SparseEncoder) and encoder.heads is not None:
        hooks += _heads_of_layers(encoder, note)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _boxes_of_other_tokens(model: Detector, queries: nn.Module, note: Note) -> list[Any]:
    assert model.proposals is not None
    seen: list[int] = []

    def see(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(_rows(args[0].features))

    def leave_out(module: nn.Module, args: tuple[Any, ...]) -> None:
        note(Part("queries"), (seen.pop() - _rows(args[0])) * _weights(module))

    return [
        queries.register_forward_pre_hook(see),
        model.proposals.boxes.register_forward_pre_hook(leave_out),
    ]


def _boxes_again(model: Detector, note: Note) -> list[Any]:
    def again(module: nn.Module, args: tuple[Any, ...]) -> None:
        note(Part("heads"), _rows(args[0]) * _weights(module))

    return [head.register_forward_pre_hook(again) for head in model.heads.boxes]


def _heads_of_layers(encoder: SparseEncoder, note: Note) -> list[Any]:
    assert encoder.heads is not None
    heads = zip(encoder.layers, encoder.heads.classes, encoder.heads.boxes, strict=False)

    def predicting(weights: int) -> Callable[..., None]:
        def predict(module: nn.Module, args: tuple[Any, ...]) -> None:
            note(Part("encoder", "layers"), _rows(args[0]) * weights)

        return predict

    return [
        layer.register_forward_pre_hook(predicting(_weights(classes) + _weights(boxes)))
        for layer, classes, boxes in heads
    ]


def _rows(features: Tensor) -> int:
    """Tokens or queries of all images."""
    return features.shape[:-1].numel()


def _weights(module: nn.Module) -> int:
    """Multiply-adds of a token: the weights of all linear layers."""
    return sum(one.weight.numel() for one in module.modules() if isinstance(one, nn.Linear))

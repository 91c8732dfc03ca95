"""Laws that the decoders of DETR and Conditional DETR share."""

from dataclasses import replace

import pytest
import torch

from dense_decoders import one_level, parts, queries
from leandetr.models.decoders.conditional import ConditionalDecoderConfig
from leandetr.models.decoders.detr import DetrDecoderConfig
from leandetr.types import Sight
from tiny import DIM

CONFIGS = {
    "detr": DetrDecoderConfig(3, heads=2, hidden=16),
    "detr-pre-norm": DetrDecoderConfig(3, heads=2, hidden=16, pre_norm=True),
    "conditional": ConditionalDecoderConfig(3, heads=2, hidden=16),
}


@pytest.fixture(params=CONFIGS)
def decoder_and_heads(request):
    return parts(CONFIGS[request.param], background=request.param.startswith("detr"))


def test_padded_tokens_do_not_matter(decoder_and_heads):
    decoder, heads = decoder_and_heads
    asked, tokens = queries(), one_level()
    junk = tokens.features.masked_fill(tokens.padding[..., None], 99.0)
    one, other = (
        decoder(asked, some, heads).layers[-1] for some in (tokens, tokens.with_features(junk))
    )
    torch.testing.assert_close(one.boxes, other.boxes, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.logits, other.logits, atol=1e-6, rtol=0)


def test_hidden_queries_do_not_matter(decoder_and_heads):
    decoder, heads = decoder_and_heads
    sights = (Sight(4, 0, 4), Sight(2, 0, 6))
    asked, tokens = queries(6, sights, torch.randn(2, 6, DIM)), one_level()
    alone = replace(asked, content=asked.content[:, :4], position=asked.position[:, :4], sights=())
    together, apart = (decoder(some, tokens, heads).layers for some in (asked, alone))
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one.boxes[:, :4], other.boxes, atol=1e-5, rtol=0)


def test_order_of_queries_does_not_matter(decoder_and_heads):
    decoder, heads = decoder_and_heads
    asked, order, tokens = queries(), [2, 0, 3, 1], one_level()
    shuffled = replace(asked, position=asked.position[:, order])
    first, second = (decoder(some, tokens, heads).layers[-1] for some in (asked, shuffled))
    torch.testing.assert_close(second.boxes, first.boxes[:, order], atol=1e-5, rtol=0)

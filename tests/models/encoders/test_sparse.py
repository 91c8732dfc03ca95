"""The sparse encoder's own laws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.encoders.sparse import SparseEncoderConfig
from leandetr.models.heads import ProposalHead
from leandetr.types import Attention
from tiny import CLASSES, DIM, blocks, canvas, stir

SHAPES = ((4, 6), (2, 3), (1, 2))
CELLS = (24 + 6 + 1, 12 + 2 + 1)
"""Tokens of each of `two_images` without its padding."""
SMALL = {"heads": 2, "points": 1, "hidden": 16, "layers": 3}


def build(keep=0.3, **ways):
    dims = Dims(DIM, len(SHAPES), CLASSES)
    parts = SparseEncoderConfig(keep, **SMALL | ways).build(dims), ProposalHead(DIM, CLASSES)
    for part in parts:
        stir(part)
    return parts[0].eval(), parts[1]


def two_images():
    return canvas([blocks(4, 6), blocks(3, 4)], SHAPES, junk=3.0)


def changed(before, after):
    return (before.features != after.features).any(dim=-1)


@given(keep=st.integers(1, 999))
def test_only_the_best_tokens_of_each_image_are_refined(keep):
    encoder, head = build(keep / 1000)
    given_ = two_images()
    found = encoder(given_, head)
    counts = [valid * keep // 1000 + 1 for valid in CELLS]
    assert found.salience.counts.tolist() == counts
    moved = changed(given_, found.tokens)
    assert moved.sum(dim=1).tolist() == counts
    assert not (moved & given_.padding).any()
    for image, count in enumerate(counts):
        best = found.salience.kept[image, :count]
        assert moved[image, best].all()
        scores = found.salience.logits[image].masked_fill(given_.padding[image], -torch.inf)
        assert scores[moved[image]].min() >= scores[~moved[image]].max()
        assert torch.equal(scores[best], scores.sort(descending=True).values[:count])


def test_keeping_all_refines_every_valid_token():
    encoder, head = build(1.0)
    given_ = two_images()
    found = encoder(given_, head)
    assert found.salience.counts.tolist() == list(CELLS)
    assert torch.equal(changed(given_, found.tokens), ~given_.padding)


def test_kept_tokens_ask_what_other_kept_tokens_became():
    """Values are the updated tokens: a second layer sees the first one's work."""
    encoder, head = build(0.5, layers=2)
    seen = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda *call: seen.append((call[1], call[-1])))
    given_ = two_images()
    found = encoder(given_, head)
    (first, _, _, before), _ = seen[0]
    (second, _, _, memory), last = seen[1]
    assert torch.equal(before.features, given_.features)
    assert torch.equal(second, seen[0][1])
    assert torch.equal(changed(given_, memory), changed(given_, found.tokens))
    kept = found.salience.kept[0]
    assert torch.equal(first[0], given_.features[0, kept])
    count = int(found.salience.counts[0])
    assert torch.equal(found.tokens.features[0, kept[:count]], last[0, :count])


def test_filling_in_training_is_the_largest_count_and_changes_no_token():
    encoder, head = build()
    given_ = two_images()
    plain = encoder(given_, head)
    trained = encoder.train()(given_, head)
    most = int(trained.salience.counts.max())
    assert trained.salience.kept.shape == (2, most)
    assert plain.salience.kept.shape[1] >= most
    assert torch.equal(trained.salience.kept, plain.salience.kept[:, :most])
    torch.testing.assert_close(trained.tokens.features, plain.tokens.features)


def test_layers_but_the_last_predict_in_training_only():
    encoder, head = build()
    assert encoder(two_images(), head).layers == ()
    given_ = two_images()
    found = encoder.train()(given_, head)
    width = found.salience.kept.shape[1]
    assert len(found.layers) == 2
    for layer in found.layers:
        assert layer.logits.shape == (2, width, CLASSES)
        assert layer.boxes.shape == (2, width, 4)
        assert ((layer.boxes >= 0) & (layer.boxes <= 1)).all()


def test_predictions_start_from_the_kept_tokens_boxes():
    encoder, head = build()
    for part in encoder.heads.boxes.parameters():
        torch.nn.init.zeros_(part)
    given_ = two_images()
    found = encoder.train()(given_, head)
    start = head.box_logits(given_).sigmoid()
    for image, kept in enumerate(found.salience.kept):
        torch.testing.assert_close(found.layers[0].boxes[image], start[image, kept])


@pytest.mark.parametrize("ways", [{"auxiliary": False}, {"layers": 1}], ids=str)
def test_without_auxiliary_heads_nothing_is_predicted(ways):
    encoder, head = build(**ways)
    assert encoder.train()(two_images(), head).layers == ()
    assert not any("heads" in name for name, _ in encoder.named_parameters())


def test_every_weight_learns():
    encoder, head = build()
    found = encoder.train()(two_images(), head)
    total = found.tokens.features.square().sum() + found.salience.logits.square().sum()
    for layer in found.layers:
        total = total + layer.logits.square().sum() + layer.boxes.square().sum()
    total.backward()
    assert all(weight.grad.any() for weight in encoder.parameters())
    assert head.project.weight.grad.any()


def test_scores_learn_from_the_decoder_and_padding_has_the_smallest():
    encoder, head = build()
    given_ = two_images()
    salience = encoder(given_, head).salience
    assert isinstance(salience.teacher, Attention)
    assert torch.equal(salience.teacher.counts, salience.counts)
    assert (salience.logits[given_.padding] == salience.logits.min()).all()


@pytest.mark.parametrize("keep", [0.001, 0.3, 0.999, 1.0])
@pytest.mark.parametrize("training", [True, False])
def test_a_single_token_is_refined(keep, training):
    encoder, head = build(keep)
    alone = canvas([[block[:1, :1] for block in blocks(1, 1)][:1] * 3], ((1, 1),) * 3)
    found = encoder.train(training)(alone, head)
    assert found.salience.counts.tolist() == [3 if keep == 1.0 else 1 + int(3 * keep)]
    assert changed(alone, found.tokens).sum() == found.salience.counts


def test_an_image_of_padding_alone_is_left_as_it_is():
    """Beside a large image a tiny one may have no token at all."""
    encoder, head = build()
    given_ = two_images()
    given_.padding[1] = True
    for training in (True, False):
        found = encoder.train(training)(given_, head)
        assert found.salience.counts.tolist() == [10, 0]
        assert torch.equal(found.tokens.features[1], given_.features[1])
        assert found.tokens.features.isfinite().all()


def test_what_padding_holds_changes_nothing():
    encoder, head = build()
    given_ = two_images()
    other = given_.with_features(
        torch.where(given_.padding[..., None], torch.randn_like(given_.features), given_.features)
    )
    one, two = encoder(given_, head), encoder(other, head)
    assert torch.equal(one.salience.logits, two.salience.logits)
    valid = ~given_.padding
    assert torch.equal(one.tokens.features[valid], two.tokens.features[valid])


@pytest.mark.parametrize("name", ["layers", "heads", "points", "hidden"])
def test_counts_of_nothing_are_refused(name):
    with pytest.raises(RecipeError, match=rf"encoder\.{name} of at least 1; got 0"):
        SparseEncoderConfig(**{name: 0})


def test_shares_that_cannot_be_are_refused():
    with pytest.raises(RecipeError, match=r"keep above 0; .*or encoder=deformable"):
        SparseEncoderConfig(keep=0.0)
    with pytest.raises(RecipeError, match=r"encoder\.keep above 0 and up to 1.*; got 1\.5"):
        SparseEncoderConfig(keep=1.5)
    with pytest.raises(RecipeError, match=r"thousandths; got 0\.3333; type encoder\.keep=0\.333$"):
        SparseEncoderConfig(keep=0.3333)
    with pytest.raises(RecipeError, match=r"type encoder\.keep=0\.001$"):
        SparseEncoderConfig(keep=0.0001)

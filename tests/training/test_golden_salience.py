"""What token scores learn from, against Focus-DETR and Sparse DETR."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from golden_data import Case, cases, load_case
from golden_losses import dino_leaves, dino_outputs, dino_targets, official_name
from leandetr.models.necks import shrink
from leandetr.nn.grid import valid_ratio
from leandetr.recipes.assemble import recipe
from leandetr.training.build import build_criterion
from leandetr.training.matcher import PaddedTargets
from leandetr.training.salience import (
    attention_loss,
    attention_share,
    decoder_attention,
    finest_stride,
    foreground_loss,
    foreground_tokens,
    most_attended,
)
from leandetr.types import Foreground, Group, Look, Match, Outputs, Salience, Shapes, Target, Tokens

LIMITS = ((-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 999999.0))


def tokens_of(extent: Tensor, shapes: Shapes) -> Tokens:
    """Featureless tokens of images of these sizes (height, width) on their common canvas."""
    height, width = extent.amax(0).tolist()
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    canvas = (rows >= extent[:, 0, None, None]) | (columns >= extent[:, 1, None, None])
    holes = [shrink(canvas, torch.empty(len(extent), 1, *shape)) for shape in shapes]
    padding = torch.cat([hole.flatten(1) for hole in holes], 1)
    ratios = torch.stack([valid_ratio(hole, torch.float32) for hole in holes], 1)
    features = torch.zeros(*padding.shape, 1)
    return Tokens(features, features, padding, ratios, shapes)


def shapes_of(case: Case) -> Shapes:
    return tuple((height, width) for height, width in case.meta["spatial_shapes"])


def test_foreground_is_that_of_focus_detr() -> None:
    case = load_case("focus_detr/foreground_supervision")
    stored = case.tensors
    boxes = [stored[f"boxes_{image}"] for image in range(3)]
    targets = PaddedTargets.of([Target(torch.zeros(len(one), dtype=int), one) for one in boxes])
    extent = torch.tensor(case.meta["image_sizes_hw"])
    tokens = tokens_of(extent, shapes_of(case))
    assert finest_stride(tokens, extent) == case.meta["hyper_parameters"]["strides"][0]
    wanted = foreground_tokens(tokens, extent, targets, LIMITS)
    assert torch.equal(wanted, stored["targets"][..., 0].bool())
    sides = [height * width for height, width in tokens.shapes]
    positives = [int(part.sum()) for part in wanted.split(sides, 1)]
    assert positives == case.meta["positives_per_level"]
    logits = stored["logits"][..., 0].clone().requires_grad_()
    loss = foreground_loss(logits, wanted)
    assert_close(loss, stored["loss"], rtol=0, atol=case.meta["tolerance"]["loss"])
    for image, expected in enumerate(stored["loss_per_image"]):
        one = foreground_loss(logits[image : image + 1], wanted[image : image + 1])
        assert_close(one, expected, rtol=1e-5, atol=case.meta["tolerance"]["loss"])
    loss.backward()
    tolerance = case.meta["tolerance"]["grad_logits"]
    assert_close(logits.grad, stored["grad_logits"][..., 0], rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", cases("focus_detr/criterion_*"))
def test_the_whole_criterion_is_that_of_focus_detr(name: str) -> None:
    case = load_case(name)
    leaves = dino_leaves(case)
    outputs = with_salience(case, dino_outputs(case, leaves), leaves["foreground_logits"][..., 0])
    dino = recipe("dino-r50")
    weighed = replace(dino.train.criterion, salience_weight=1.5)
    losses = build_criterion(dino.with_train(criterion=weighed))(outputs, dino_targets(case))
    layers, endings = len(outputs.layers), {"main": "#", "proposals": "_enc", "denoising": "_dn#"}
    compared = 0
    for term in losses.terms:
        key = "select_loss"
        if term.name != "salience":
            key = official_name(term.name, layers, endings).replace("_ce", "_class")
        assert term.weight == case.meta["weight_dict"][key]
        value = torch.tensor(case.meta["losses"][key])
        assert_close(term.value, value, rtol=case.meta["tolerance"]["losses_relative"], atol=1e-6)
        compared += 1
    without_denoising = case.meta["dn_meta"] is None
    absent = [key for key in case.meta["losses"] if "_dn" in key and without_denoising]
    assert compared == len(case.meta["losses"]) - len(absent)
    assert_close(losses.total, torch.tensor(case.meta["total"]), rtol=1e-5, atol=0)
    losses.total.backward()
    for key, leaf in leaves.items():
        tolerance = case.meta["tolerance"]["grads"]
        assert_close(leaf.grad, case.tensors[f"grad_{key}"], rtol=1e-5, atol=tolerance)


def with_salience(case: Case, outputs: Outputs, logits: Tensor) -> Outputs:
    """The outputs with scores of a case whose maps are half as large as its images ask for.

    The official strides are 8 to 64 whatever the maps; ours are read off the valid share, which
    must therefore say here that the images reach beyond the maps.
    """
    extent = torch.tensor(case.meta["image_sizes_hw"])
    tokens = tokens_of(extent, shapes_of(case))
    cells = torch.tensor(tokens.shapes).flip(-1)
    strides = torch.tensor([8.0, 16.0, 32.0, 64.0])[:, None]
    ratios = extent.flip(-1)[:, None] / strides / cells
    none = torch.zeros(len(extent), 0, dtype=torch.long)
    salience = Salience(logits, Foreground(LIMITS), none, torch.zeros(len(extent), dtype=int))
    tokens = replace(tokens, valid_ratios=ratios)
    return replace(outputs, salience=salience, tokens=tokens, extent=extent)


def test_decoder_attention_and_its_loss_are_those_of_sparse_detr() -> None:
    case = load_case("functions/sparse_dam")
    stored, tolerance = case.tensors, case.meta["tolerance"]["atol"]
    shapes = tuple((height, width) for height, width in stored["spatial_shapes"].tolist())
    places, weights = stored["sampling_locations"], stored["attention_weights"]
    layers = range(places.shape[1])
    looks = [Look(places[:, layer], weights[:, layer]) for layer in layers]
    everyone = Group("main", 0, places.shape[2], Match())
    for layer in layers:
        for head in range(places.shape[3]):
            at = slice(head, head + 1)
            one = Look(places[:, layer, :, at], weights[:, layer, :, at])
            seen = decoder_attention([one], everyone, shapes)
            expected = stored["attention_map"][:, layer, head]
            assert_close(seen, expected, rtol=0, atol=tolerance)
    looked = decoder_attention(looks, everyone, shapes)
    assert_close(looked, stored["attention_map_sum"], rtol=0, atol=tolerance)
    wanted = most_attended(looked, stored["padding_mask"], stored["token_numbers"])
    assert torch.equal(wanted, stored["mask_target"].bool())
    logits = stored["mask_prediction"].clone().requires_grad_()
    loss = attention_loss(logits, wanted)
    assert_close(loss, torch.tensor(case.meta["loss_mask_prediction"]), rtol=0, atol=tolerance)
    loss.backward()
    assert_close(logits.grad, stored["grad_mask_prediction"], rtol=0, atol=tolerance)
    share = attention_share(looked, stored["top_tokens"], shapes)
    assert_close(share, stored["correlation"], rtol=0, atol=tolerance)


def test_what_the_decoder_saw_in_a_whole_step_of_sparse_detr() -> None:
    case = load_case("sparse_detr/gradients_rho_0.3")
    stored, images = case.tensors, case.images()
    shapes = ((14, 16), (7, 8), (4, 4), (2, 2))
    padding = tokens_of(images.extent, shapes).padding
    looked = stored["decoder_attention_map"]
    wanted = most_attended(looked, padding, stored["sparse_token_nums"])
    assert torch.equal(wanted, stored["mask_target"].bool())
    losses = case.meta["losses"]
    loss = attention_loss(stored["mask_prediction"], wanted)
    assert_close(loss, torch.tensor(losses["loss_mask_prediction"]), rtol=1e-5, atol=0)
    share = attention_share(looked, stored["kept_tokens"], shapes).mean(1)
    names = ["all", *range(len(shapes))]
    expected = torch.tensor([losses[f"corr_mask_attn_map_dec_{name}"] for name in names])
    assert_close(share, expected, rtol=1e-5, atol=1e-6)

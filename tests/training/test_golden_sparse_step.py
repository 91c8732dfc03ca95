"""One training step of Sparse DETR against the official one."""

import pytest
import torch

from golden_data import load_case
from golden_gradients import check_gradients
from golden_losses import official_name, plain_matches, plain_targets
from golden_sparse import official_detector
from leandetr.training.build import build_criterion
from leandetr.training.matcher import PaddedTargets, Problem
from leandetr.training.salience import decoder_attention, most_attended

NAME = "sparse_detr/gradients_rho_0.3"
ENDINGS = {"main": "#", "proposals": "_enc", "encoder": "_enc#"}
SALIENCE = "loss_mask_prediction"
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def step():
    """The outputs of a training pass; the case has no dropout."""
    case = load_case(NAME)
    model, rules = official_detector(case)
    targets = plain_targets(case)
    return case, model, rules, model.train()(case.images(), targets), targets


@torch.no_grad()
def test_losses_and_matches_equal_official():
    case, model, _, outputs, targets = step()
    t, close = case.tensors, torch.testing.assert_close
    close(outputs.answer.logits[:, ::5], t["pred_logits_sub"], **CLOSE)
    close(outputs.answer.boxes, t["pred_boxes"], **CLOSE)
    criterion = build_criterion(model.recipe)
    check_losses(case, criterion(outputs, targets))
    padded, matcher = PaddedTargets.of(targets), criterion.matcher
    names = [*(f"aux_{index}" for index in range(len(outputs.layers) - 1)), "final"]
    check_matches(case, matcher, Problem(outputs.layers, padded), names)
    check_matches(case, matcher, Problem((outputs.proposals,), padded), ["enc"])
    names = [f"encaux_{index}" for index in range(len(outputs.encoder_layers))]
    assert len(names) == 5
    check_matches(case, matcher, Problem(outputs.encoder_layers, padded), names)


def check_losses(case, losses):
    """Every term, its weight and the total."""
    layers = len([name for name in losses.names if name.startswith("labels/main/")])
    ours = {
        SALIENCE if term.name == "salience" else official_name(term.name, layers, ENDINGS): term
        for term in losses.terms
    }
    weights = {k: v for k, v in case.meta["weight_dict"].items() if k in case.meta["losses"]}
    weights[SALIENCE] = case.meta["args"]["mask_prediction_coef"]
    assert ours.keys() == weights.keys()
    for key, term in ours.items():
        assert term.weight == weights[key], key
        assert term.value.item() == pytest.approx(case.meta["losses"][key], rel=1e-4, abs=1e-6), key
    assert losses.total.item() == pytest.approx(case.meta["total"], rel=1e-5)


def check_matches(case, matcher, problem, names):
    """The pairs of query and target of every layer and image."""
    (pairs,) = matcher([problem])
    for index, name in enumerate(names):
        for image, expected in enumerate(plain_matches(case, name)):
            here = pairs.image == image
            query, target = pairs.query[index, here], pairs.target[index, here]
            assert set(zip(query.tolist(), target.tolist(), strict=True)) == expected, name


@torch.no_grad()
def test_scores_learn_from_where_the_decoder_looked():
    case, _, _, outputs, _ = step()
    t, salience = case.tensors, outputs.salience
    torch.testing.assert_close(salience.logits, t["mask_prediction"], atol=1e-4, rtol=0)
    assert salience.counts.tolist() == t["sparse_token_nums"].tolist()
    assert torch.equal(salience.kept, t["kept_tokens"])
    looked = decoder_attention(outputs.looks, outputs.groups[0], outputs.tokens.shapes)
    torch.testing.assert_close(looked, t["decoder_attention_map"], atol=1e-3, rtol=0)
    wanted = most_attended(looked, outputs.tokens.padding, salience.teacher.counts)
    assert torch.equal(wanted, t["mask_target"].bool())


@pytest.mark.timeout(300)
def test_gradients_equal_official():
    case, model, rules, outputs, targets = step()
    losses = build_criterion(model.recipe)(outputs, targets)
    losses.total.backward()
    check_gradients(case, model, rules)

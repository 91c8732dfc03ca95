"""Whole Focus-DETR detectors against the official ones, boundary by boundary.

In double precision: the last logits of the official float32 run lie up to 4e-4 from it, as much as
two float32 runs differ between convolution kernels (the cases allow 1e-3).
"""

import pytest
import torch

from golden_data import load_case
from golden_focus import official_detector
from leandetr.checkpoints.keymap import to_official
from leandetr.types import Images

CASES = ("focus_detr/focus_r50_single", "focus_detr/focus_r50_masked_q100")
LEGITIMATE_GAP = 2e-6
"""Tokens whose scores lie closer may swap ranks with another order of summation."""
NEAR = {"atol": 1e-4, "rtol": 0, "check_dtype": False}


class Run:
    """One forward pass, with what was seen at the boundaries."""

    def __init__(self, model, images):
        self.asking = []
        hooks = [
            layer.register_forward_hook(lambda module, given, answer: self.asking.append(given[0]))
            for layer in model.encoder.layers
        ]
        with torch.no_grad():
            self.outputs = model(Images(images.pixels.double(), images.padding))
        for hook in hooks:
            hook.remove()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", CASES)
def test_detector_equals_official(name):
    case = load_case(name)
    model, rules = official_detector(case)
    check_keys(case, model, rules)
    run = Run(model.double().eval(), case.images())
    check_encoder(case, run)
    check_predictions(case.tensors, run.outputs)
    if "post_scores" in case.tensors:
        check_detections(case.tensors, model.postprocess, run.outputs.answer)


def check_keys(case, model, rules):
    """Back to official names: every key returns, bit for bit."""
    official = case.weights()
    back = to_official(model.state_dict(), rules)
    assert back.keys() == official.keys()
    assert all(torch.equal(value, official[key]) for key, value in back.items())


def check_encoder(case, run):
    """Scores, how many tokens and which of them each layer refines, its object tokens."""
    t, salience = case.tensors, run.outputs.salience
    torch.testing.assert_close(salience.logits, t["foreground_logits"], **NEAR)
    assert salience.counts.tolist() == t["focus_token_nums"].tolist()
    for index, count in enumerate(case.meta["counts_per_layer"]):
        official = t[f"kept_{index}"].long()
        check_same_tokens(salience.kept[:, :count], official, t["foreground_logits"])
        objects = salience.kept.gather(1, run.asking[index].objects)
        assert torch.equal(ordered(objects), ordered(t[f"object_tokens_{index}"].long())), index
    torch.testing.assert_close(run.outputs.tokens.features[:, ::40], t["memory_t40"], **NEAR)


def check_same_tokens(kept, official, scores):
    """The same tokens, in the same order but for near ties."""
    assert torch.equal(ordered(kept), ordered(official))
    gap = scores.gather(1, kept) - scores.gather(1, official)
    assert gap.abs().max() < LEGITIMATE_GAP


def ordered(tokens):
    return tokens.sort(dim=1).values


def check_predictions(t, outputs):
    """Proposals and every decoder layer."""
    close, loose = torch.testing.assert_close, NEAR | {"atol": 1e-3}
    close(outputs.proposals.logits.amax(dim=-1), t["proposal_scores"], **NEAR)
    close(outputs.proposals.boxes, t["interm_boxes"], **NEAR)
    close(outputs.proposals.logits[:, ::60], t["interm_logits_q60"], **NEAR)
    for index, layer in enumerate(outputs.layers[:-1]):
        close(layer.logits[:, ::60], t["aux_logits_q60"][index], **loose)
        close(layer.boxes[:, ::5], t["aux_boxes_q5"][index], **NEAR)
    close(outputs.answer.logits[:, ::3], t["pred_logits_q3"], **loose)
    close(outputs.answer.boxes, t["pred_boxes"], **NEAR)


def check_detections(t, postprocess, answer):
    """The official post-processing also clips boxes to the image."""
    height, width = t["post_size"][0].tolist()
    (found,) = postprocess(answer, t["post_size"].float())
    torch.testing.assert_close(found.scores, t["post_scores"], **NEAR)
    assert torch.equal(found.labels, t["post_labels"])
    clipped = found.boxes.clamp(min=0).minimum(torch.tensor([width, height, width, height]))
    apart = (clipped[:, None] - t["post_boxes"]).abs().amax(dim=-1)  # D D, in pixels
    apart[found.labels[:, None] != t["post_labels"]] = torch.inf
    rank = torch.arange(len(apart))
    nearest = apart.argmin(dim=1)
    assert apart.amin(dim=1).max() < 0.1
    assert torch.equal(nearest.sort().values, rank)
    # logits move by 4e-4, and so may detections of nearly the same score swap
    gap = (t["post_scores"][nearest] - t["post_scores"]).abs()
    assert gap.max() < NEAR["atol"]

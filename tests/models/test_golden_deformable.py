"""Whole Deformable DETR and H-DETR detectors against the official ones, boundary by boundary."""

import pytest
import torch

from golden_data import cases, load_case
from golden_deformable import official_detector, sliced
from leandetr.checkpoints.keymap import to_official
from leandetr.nn.grid import on_levels
from leandetr.types import Prediction, Target

WHOLE = cases("deformable_detr/r50*", "h_deformable_detr/r50*")


class Run:
    """One forward pass, with what was seen at the boundaries; training groups join in training."""

    def __init__(self, model, images):
        self.seen = {"decoder": [], "around": []}
        hooks = [
            model.backbone.register_forward_hook(self._note("maps")),
            model.neck.register_forward_hook(self._note("tokens")),
            model.queries.register_forward_hook(self._note("queries")),
            *(layer.register_forward_hook(self._decoded) for layer in model.decoder.layers),
        ]
        if hasattr(model.queries, "describe"):
            hooks.append(model.queries.describe.register_forward_hook(self._ranked))
        with torch.no_grad():
            self.outputs = model(images, nothing(len(images.pixels)) if model.training else None)
        for hook in hooks:
            hook.remove()

    def _ranked(self, _, given, __):
        self.seen.setdefault("ranked", given[0])

    def _note(self, name):
        return lambda *call: self.seen.update({name: call[-1]})

    def _decoded(self, _, given, found):
        self.seen["around"].append(given[2])
        self.seen["decoder"].append(found[0])


def nothing(images):
    """Targets without boxes: the hybrid group does not ask for more."""
    empty = Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4))
    return [empty] * images


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", WHOLE)
def test_detector_equals_official(name):
    case = load_case(name)
    model, rules = official_detector(case)
    check_keys(case, model, rules)
    model.train("train" in case.meta["mode"])
    near = {key: case.meta["tolerance"][key] for key in ("atol", "rtol")}
    run = Run(model, case.images())
    check_tokens(case, run, model.neck.level_embedding, near)
    if case.meta["args"]["two_stage"]:
        check_proposals(case, run, near)
    check_layers(case, run, near)
    check_detections(case.tensors, model.postprocess, near)


def check_keys(case, model, rules):
    """Back to official names: every key returns, bit for bit."""
    official = case.weights()
    back = to_official(model.state_dict(), rules)
    assert back.keys() == official.keys()
    assert all(torch.equal(value, official[key]) for key, value in back.items())


def check_tokens(case, run, level_embedding, near):
    """Backbone, padding, positions of every level, and encoded tokens that are no padding."""
    t, close = case.tensors, torch.testing.assert_close
    maps, tokens = run.seen["maps"], run.seen["tokens"]
    for index, (features, padding) in enumerate(zip(maps.maps, maps.padding, strict=True)):
        close(sliced(case, f"feature_{index}_sub", features), t[f"feature_{index}_sub"], **near)
        assert torch.equal(padding, t[f"mask_{index}"])
    positions = tokens.position.split([h * w for h, w in tokens.shapes], dim=1)
    for index, (position, embedding) in enumerate(zip(positions, level_embedding, strict=True)):
        waves = (position - embedding).unflatten(1, tokens.shapes[index]).movedim(-1, 1)
        close(sliced(case, f"pos_{index}_sub", waves), t[f"pos_{index}_sub"], **near)
    real = sliced(case, "memory_sub", ~tokens.padding[..., None])[..., 0]
    memory = sliced(case, "memory_sub", run.outputs.tokens.features)
    close(memory[real], t["memory_sub"][real], **near)


def check_proposals(case, run, near):
    """Every token's proposal, and which are chosen in which order."""
    t, close = case.tensors, torch.testing.assert_close
    proposed = run.outputs.proposals
    assert proposed.agnostic
    close(proposed.logits[..., 0], t["enc_scores"], **near)
    close(proposed.logits[:, ::10], t["enc_logits_sub"], **near)
    close(proposed.boxes, t["enc_boxes"], **near)
    corner = (t["enc_boxes"] == 1).all(dim=-1)
    assert corner.any()
    assert torch.equal((proposed.boxes == 1).all(dim=-1), corner)
    index = t["proposal_index"][:, : run.outputs.groups[0].stop]
    assert torch.equal(run.seen["ranked"].index, index)


def check_layers(case, run, near):
    """Decoder states, references and the predictions of every layer, group by group."""
    t, close, layers = case.tensors, torch.testing.assert_close, run.outputs.layers
    assert len(layers) == len(t["decoder_sub"]) == len(t["aux_boxes"]) + 1
    states = torch.stack(run.seen["decoder"])
    close(sliced(case, "decoder_sub", states), t["decoder_sub"], **near)
    for around, after in zip(run.seen["around"][1:], t["inter_references"], strict=False):
        close(around, on_levels(after, run.outputs.tokens.valid_ratios), **near)
    main = run.outputs.groups[0]
    logits = torch.stack([layer.slice(main.start, main.stop).logits for layer in layers])
    boxes = torch.stack([layer.slice(main.start, main.stop).boxes for layer in layers])
    close(logits[:-1, :, ::15], t["aux_logits_sub"], **near)
    close(boxes[:-1], t["aux_boxes"], **near)
    close(logits[-1], t["pred_logits"], **near)
    close(boxes[-1], t["pred_boxes"], **near)
    if "pred_boxes_one2many" in t:
        check_one_to_many(t, run.outputs, near)


def check_one_to_many(t, outputs, near):
    """The queries of hybrid matching, which exist in training only."""
    close, (_, group) = torch.testing.assert_close, outputs.groups
    assert group.name == "one-to-many"
    layers = [layer.slice(group.start, group.stop) for layer in outputs.layers]
    close(layers[-1].boxes, t["pred_boxes_one2many"], **near)
    close(layers[-1].logits[:, ::2], t["pred_logits_one2many_sub"], **near)
    for index, layer in enumerate(layers[:-1]):
        close(layer.boxes[:, ::2], t["aux_boxes_one2many_sub"][index], **near)


def check_detections(t, postprocess, near):
    """Detections made of the official predictions."""
    stored = Prediction(t["pred_logits"], t["pred_boxes"])
    for row, detections in enumerate(postprocess(stored, t["original_sizes"].float())):
        torch.testing.assert_close(detections.scores, t["post_scores"][row], **near)
        torch.testing.assert_close(detections.boxes, t["post_boxes"][row], atol=1e-3, rtol=1e-5)
        assert torch.equal(detections.labels, t["post_labels"][row])

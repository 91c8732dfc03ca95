"""Whole Sparse DETR detectors against the official ones, boundary by boundary."""

import pytest
import torch

from golden_data import cases, load_case
from golden_sparse import official_detector
from leandetr.checkpoints.keymap import to_official
from leandetr.nn.dropout import Dropout
from leandetr.training.salience import decoder_attention
from leandetr.types import Outputs

WHOLE = cases("sparse_detr/r50_*")
CLOSE = {"atol": 1e-4, "rtol": 0}
SHARE_CLOSE = 0.9
"""Of the last layer's logits; see `tolerance` of the case."""


class Run:
    """One forward pass without dropout, with all that training would see of it."""

    def __init__(self, model, images):
        without_dropout(model)
        self.states = []
        for layer in model.decoder.layers:
            layer.register_forward_hook(lambda *call: self.states.append(call[-1][0]))
        with torch.no_grad():
            self.maps = model.backbone(images)
            self.tokens = model.neck(self.maps, images)
            # its heads speak in training only
            encoded = model.encoder.train()(self.tokens, model.proposals)
            queries, proposed = model.queries(encoded.tokens, model.proposals)
            decoded = model.decoder(queries, encoded.tokens, model.heads, watch=True)
            self.whole = model.eval()(images)
        self.level_embedding = model.neck.level_embedding.detach()
        self.queries = queries
        self.outputs = Outputs.gather(images, encoded, proposed, decoded, queries.groups)


def without_dropout(model):
    for module in model.eval().modules():
        if isinstance(module, Dropout):
            module.p = 0.0


@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", WHOLE)
def test_detector_equals_official(name):
    case = load_case(name)
    model, rules = official_detector(case)
    check_keys(case, model, rules)
    run = Run(model, case.images())
    check_tokens(case.tensors, run)
    if "mask_prediction" in case.tensors:
        check_salience(case.tensors, run)
    check_proposals(case.tensors, run)
    check_layers(case, run)
    check_detections(case.tensors, model.postprocess, run.outputs.answer)


def check_keys(case, model, rules):
    """Back to official names: every key returns, bit for bit."""
    official = case.weights()
    back = to_official(model.state_dict(), rules)
    assert back.keys() == official.keys()
    assert all(torch.equal(value, official[key]) for key, value in back.items())


def check_tokens(t, run):
    """Backbone, padding, positions without the level embedding, encoded tokens."""
    close = torch.testing.assert_close
    for level, (cells, hole) in enumerate(zip(run.maps.maps, run.maps.padding, strict=True)):
        step = cells.shape[1] // t[f"feature_{level}_sub"].shape[1]
        close(cells[:, ::step, ::2, ::2], t[f"feature_{level}_sub"], **CLOSE)
        assert torch.equal(hole, t[f"mask_{level}"])
    sizes = [height * width for height, width in run.tokens.shapes]
    for level, position in enumerate(run.tokens.position.split(sizes, dim=1)):
        waves = (position - run.level_embedding[level]).unflatten(1, run.tokens.shapes[level])
        close(waves.movedim(-1, 1)[:, ::16, ::2, ::2], t[f"pos_{level}_sub"], **CLOSE)
    step = -(-run.tokens.features.shape[1] // t["memory_sub"].shape[1])
    real = ~run.tokens.padding[:, ::step]
    memory = run.outputs.tokens.features[:, ::step, ::8]
    close(memory[real], t["memory_sub"][real], **CLOSE)


def check_salience(t, run):
    """Scores, which tokens are kept in which order, and what the encoder's own heads say."""
    close, salience = torch.testing.assert_close, run.outputs.salience
    close(salience.logits, t["mask_prediction"], **CLOSE)
    assert salience.counts.tolist() == t["sparse_token_nums"].tolist()
    assert torch.equal(salience.kept, t["kept_tokens"])
    layers = run.outputs.encoder_layers
    assert len(layers) == len(t["enc_aux_boxes"])
    for index, layer in enumerate(layers):
        close(layer.logits[:, ::20], t["enc_aux_logits_sub"][index], **CLOSE)
        close(layer.boxes, t["enc_aux_boxes"][index], **CLOSE)


def check_proposals(t, run):
    """The proposals of all tokens, and which of them ask, best first."""
    close, proposed = torch.testing.assert_close, run.outputs.proposals
    scores = proposed.logits.amax(dim=-1)
    close(scores, t["enc_scores"], **CLOSE)
    close(proposed.logits[:, ::10], t["enc_logits_sub"], **CLOSE)
    close(proposed.boxes, t["enc_boxes"], **CLOSE)
    index = t["proposal_index"]
    assert torch.equal(scores.topk(index.shape[1], dim=1).indices, index)
    chosen = run.outputs.tokens.features.gather(1, index[..., None].expand(-1, -1, 256))
    assert torch.equal(run.queries.content, chosen)


def check_layers(case, run):
    """Every layer's predictions, where the decoder looked, and the sum of it over the tokens."""
    t, outputs, close = case.tensors, run.outputs, torch.testing.assert_close
    assert len(outputs.layers) == len(t["aux_boxes"]) + 1
    for index, layer in enumerate(outputs.layers):
        close(run.states[index][:, ::15, ::8], t["decoder_sub"][index], **CLOSE)
        close(layer.boxes, t["inter_references"][index], **CLOSE)
    for index, layer in enumerate(outputs.layers[:-1]):
        close(layer.logits[:, ::15], t["aux_logits_sub"][index], **CLOSE)
        close(layer.boxes, t["aux_boxes"][index], **CLOSE)
    if "decoder_attention_map" in t:
        places = torch.stack([look.locations[:, ::30] for look in outputs.looks], dim=1)
        shares = torch.stack([look.weights[:, ::30] for look in outputs.looks], dim=1)
        close(places, t["decoder_sampling_locations_sub"], **CLOSE)
        close(shares, t["decoder_attention_weights_sub"], **CLOSE)
        looked = decoder_attention(outputs.looks, outputs.groups[0], run.tokens.shapes)
        # sums of hundreds of looks, up to 260
        close(looked, t["decoder_attention_map"], atol=1e-3, rtol=0)
    check_answer(case, outputs.answer)
    # without the heads in between, and with other filling, the answer is the same
    close(run.whole.answer.logits, outputs.answer.logits, **CLOSE)
    close(run.whole.answer.boxes, outputs.answer.boxes, **CLOSE)


def check_answer(case, answer):
    """Where boxes run close to 0 and 1 the official logits move too, see `float64_difference`."""
    close, t = torch.testing.assert_close, case.tensors
    close(answer.boxes, t["pred_boxes"], **CLOSE)
    if "atol" in case.meta["tolerance"]:
        close(answer.logits, t["pred_logits"], **CLOSE)
        return
    close(answer.logits, t["pred_logits"], atol=1e-3, rtol=0)
    off = (answer.logits - t["pred_logits"]).abs().amax(dim=-1)
    assert (off < CLOSE["atol"]).float().mean() >= SHARE_CLOSE


def check_detections(t, postprocess, answer):
    """Detections of our own predictions."""
    found = postprocess(answer, t["original_sizes"].float())
    for row, detections in enumerate(found):
        torch.testing.assert_close(detections.scores, t["post_scores"][row], **CLOSE)
        for box, label in zip(detections.boxes, detections.labels, strict=True):
            same = t["post_boxes"][row][t["post_labels"][row] == label]
            assert (same - box).abs().amax(dim=-1).min() < 0.05  # pixels

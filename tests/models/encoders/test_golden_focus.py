"""Token scores, kept tokens, object tokens and layers of Focus-DETR against the official ones."""

import pytest
import torch
from torch import nn

from golden_data import cases, load_case
from leandetr.checkpoints.keymap import Alias, Rename, fill, to_ours
from leandetr.checkpoints.official.detectron2 import AROUND
from leandetr.checkpoints.official.focus_detr import encoder_rules
from leandetr.models.encoders import Dims
from leandetr.models.encoders.focus import FocusEncoderConfig
from leandetr.models.heads import ProposalHead
from leandetr.nn.grid import valid_ratio
from leandetr.types import Tokens

CLASSES = "transformer.encoder.enhance_MCSP"
RULES = (
    *encoder_rules("transformer", "encoder"),
    *AROUND,
    Rename(f"{CLASSES}.0.{{p}}", "proposals.classes.{p}"),
    Alias(f"{CLASSES}.{{i}}.{{p}}", f"{CLASSES}.0.{{p}}"),
)


class Scored(nn.Module):
    """The encoder, the head it scores with, and what the neck would hold."""

    def __init__(self, case):
        super().__init__()
        h = case.meta["hyper_parameters"]
        config = FocusEncoderConfig(
            keep=h["focus_rho"],
            cascade=tuple(h["cascade_set"]),
            objects=h["topk_sa"],
            heads=h["num_heads"],
            points=h["num_points"],
            hidden=h["feedforward_dim"],
        )
        dims = Dims(h["embed_dim"], h["num_feature_levels"], h["num_classes"])
        self.encoder = config.build(dims)
        self.proposals = ProposalHead(dims.dim, dims.classes)
        self.proposals.boxes = nn.Identity()
        self.neck = nn.Module()
        self.neck.level_embedding = nn.Parameter(torch.empty(dims.levels, dims.dim))
        weights = {f"transformer.{key}": value for key, value in case.weights().items()}
        assert fill(self, weights, RULES) == {}

    def forward(self, maps, case):
        t = case.tensors
        position = [
            t[f"pos_{i}"].to(x).flatten(2).transpose(1, 2).expand(len(x), -1, -1) + embedding
            for i, (x, embedding) in enumerate(zip(maps, self.neck.level_embedding, strict=True))
        ]
        holes = [t[f"mask_{i}"] for i in range(len(maps))]
        tokens = Tokens(
            features=torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1),
            position=torch.cat(position, dim=1),
            padding=torch.cat([hole.flatten(1) for hole in holes], dim=1),
            valid_ratios=torch.stack([valid_ratio(hole, maps[0].dtype) for hole in holes], dim=1),
            shapes=tuple((x.shape[2], x.shape[3]) for x in maps),
        )
        return self.encoder(tokens, self.proposals)


def watch(encoder):
    """What every layer was given and what it answered."""
    seen = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda module, given, answer: seen.append((given[0], answer)))
    return seen


@pytest.mark.parametrize("name", cases("focus_detr/encoder_*"))
def test_encoder_equals_official(name):
    case = load_case(name)
    model, t = Scored(case), case.tensors
    seen = watch(model.encoder)
    encoded = model([t[f"feat_{i}"] for i in range(4)], case)
    check_scores(encoded.salience, t)
    for index, (asking, answer) in enumerate(seen):
        check_layer(index, asking, answer, t)
    torch.testing.assert_close(encoded.tokens.features, t["memory"], atol=5e-5, rtol=0)


def check_scores(salience, t):
    """Raw scores, kept tokens and their numbers; ours may be followed by masked ones."""
    raw = torch.cat([t[f"score_level_{i}"] for i in range(4)], dim=1)
    torch.testing.assert_close(salience.logits, raw, atol=1e-5, rtol=0)
    assert torch.equal(salience.counts, t["focus_token_nums"].to(salience.counts))
    for layer, count in enumerate(t["counts_per_layer"].tolist()):
        assert torch.equal(salience.kept[:, :count], t[f"kept_{layer}"].long()), layer


def check_layer(index, asking, answer, t):
    """Object tokens, and the refined ones of those that the official code looks at."""
    count = t["counts_per_layer"][index]
    assert torch.equal(
        asking.objects.sort().values, t[f"object_tokens_{index}"].long().sort().values
    )
    assert not asking.unused.any()
    expected = t[f"layer_{index}_t6"]
    torch.testing.assert_close(answer[:, :count:6], expected, atol=5e-5, rtol=0)


def test_gradients_equal_official():
    """With the loss that the case states; in float64.

    The gradient of the strengths is a sum of terms that cancel: in float32 the last one moves by
    0.3 percent with the order of summation, so the official one is held to as much.
    """
    case = load_case("focus_detr/encoder_rho05")
    model, t = Scored(case).double(), case.tensors
    maps = [t[f"feat_{i}"].double().requires_grad_() for i in range(4)]
    encoded = model(maps, case)
    memory, logits = encoded.tokens.features, encoded.salience.logits
    loss = 0.1 * (memory[..., :-1] * memory[..., 1:]).sum() + 0.5 * logits.square().sum()
    loss.backward()
    norms = case.meta["grad_norms"]
    official = {f"transformer.{key}": torch.tensor(i) for i, key in enumerate(norms)}
    ours = {int(index): key for key, index in to_ours(official, RULES).state.items()}
    for index, (key, norm) in enumerate(norms.items()):
        gradient = model.get_parameter(ours[index]).grad
        if norm is None:
            assert gradient is None, key
        else:
            assert gradient.norm().item() == pytest.approx(norm, rel=2e-3), key
    check_close(model.encoder.scorer.strength.grad, t["grad_alpha"], atol=3e-3)
    check_close(maps[1].grad, t["grad_feat_1"], atol=1e-4)


def check_close(gradient, official, *, atol):
    scale = official.abs().max()
    torch.testing.assert_close(
        gradient / scale, official / scale, atol=atol, rtol=0, check_dtype=False
    )

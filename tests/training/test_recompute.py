import pytest
import torch

from leandetr.models.encoders import encoders
from leandetr.training.recompute import recompute_layers
from tiny import batch, targets, tiny_model


def gradients(model, seed: int) -> dict[str, torch.Tensor]:
    model.zero_grad()
    torch.manual_seed(seed)
    outputs = model(batch((64, 80)), targets(2))
    sum(layer.logits.square().sum() + layer.boxes.sum() for layer in outputs.layers).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("encoder", ["deformable", "lite", "focus"])
def test_gradients_are_the_same(encoder: str) -> None:
    assert encoder in encoders.names()
    model = tiny_model("dino-nano", encoder).train()
    plain = gradients(model, 0)
    layers = recompute_layers(model)
    assert layers >= 3
    again = gradients(model, 0)
    assert again.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(again[name], value, msg=name)


def test_less_is_kept_for_the_backward_pass() -> None:
    def kept(model) -> int:
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(batch((64, 80)), targets(2))
        return sum(sizes)

    model = tiny_model("dino-nano").train()
    before = kept(model)
    recompute_layers(model)
    assert kept(model) < 0.7 * before

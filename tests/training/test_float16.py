from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.amp.grad_scaler import GradScaler

from leandetr.data.loader import Batch
from leandetr.errors import TrainingError
from leandetr.nn.attention import Attention
from leandetr.recipes.recipe import Recipe
from leandetr.training import build, loop, record, run
from leandetr.training.run import train
from leandetr.training.state import read
from leandetr.training.step import SMALLEST_SCALE, Arithmetic, Skipped, train_step
from leandetr.training.trackers import Trackers
from tiny import batch, targets, tiny_model

HALF = ["train.precision=fp16"]


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pictures and TensorBoard, which take most of the time of so small a run."""
    monkeypatch.setattr(run, "write_preview", lambda images, path: path.touch())
    monkeypatch.setattr(record, "_draw", lambda *arguments: True)
    monkeypatch.setattr(loop, "open_trackers", lambda *arguments: Trackers([]))


def start_at(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scale the first loss by so much."""

    def made(device: str, enabled: bool) -> GradScaler:
        return GradScaler(device, init_scale=scale, enabled=enabled)

    monkeypatch.setattr(build, "GradScaler", made)


def skipped(out: Path) -> list[int]:
    return [row.skipped for row in record.read_rows(out / "metrics.csv")]


def test_a_resumed_run_goes_on_with_the_scale_it_had(
    tiny: Recipe, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny.with_train(accumulate=2, batch=1, precision="fp16")
    with monkeypatch.context() as patch:
        start_at(2.0**120, patch)  # each of the three steps of the first epoch halves it
        out = train(recipe, pictures, tmp_path / "run", overrides=["train.epochs=1"])
    assert read(out / "last" / "state.pt").parts["scaler"]["scale"] == 2.0**117
    train(recipe, pictures, out, resume=True)
    assert read(out / "last" / "state.pt").parts["scaler"]["scale"] == 2.0**114
    assert skipped(out) == [3, 3]
    assert "step 1 skipped: the loss was scaled up too far" in (out / "train.log").read_text()


def test_a_scale_that_fits_trains_in_full_precision_weights(
    tiny: Recipe, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_at(1024.0, monkeypatch)
    out = train(tiny, pictures, tmp_path / "run", overrides=[*HALF, "train.epochs=1"])
    assert skipped(out) == [0]
    assert "many times slower in float16" in (out / "train.log").read_text()
    weights = load_file(out / "last" / "model.safetensors")
    assert all(value.dtype != torch.float16 for value in weights.values())


def test_what_no_scale_mends_ends_the_run(
    tiny: Recipe, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop.train_step

    def spoiled(parts: Any, batches: list[Batch]) -> Any:
        weight = next(parts.model.parameters())
        hook = weight.register_hook(lambda grad: grad * torch.nan)
        done = original(parts, batches)
        hook.remove()
        return done

    monkeypatch.setattr(loop, "train_step", spoiled)
    start_at(SMALLEST_SCALE, monkeypatch)
    with pytest.raises(TrainingError, match=r"skipped because the gradient of .* was not finite"):
        train(tiny, pictures, tmp_path / "run", overrides=HALF)


def test_a_scale_is_halved_until_it_is_the_smallest_and_then_the_gradient_is_named() -> None:
    from accelerate import Accelerator

    model = tiny_model("dino-nano").train()
    parts = build.build_parts(model.recipe.with_train(precision="fp16"), model, Accelerator(), 5)
    assert parts.arithmetic == Arithmetic(model.recipe.train.clip, "fp16", 1)
    object.__setattr__(parts, "scaler", GradScaler("cpu", init_scale=2 * SMALLEST_SCALE))
    name, weight = next(iter(model.named_parameters()))
    weight.register_hook(lambda grad: grad * torch.nan)
    before = weight.detach().clone()
    some = Batch(batch((64, 80)), targets(2), (0, 1), ((64, 80), (64, 80)))
    seen = [train_step(parts, [some])[1] for _ in range(2)]
    what = f"the gradient of {name}"
    assert seen == [Skipped(what, searching=True), Skipped(what)]
    assert parts.scaler.get_scale() == SMALLEST_SCALE
    assert torch.equal(before, weight)


def test_attention_goes_backward_under_autocast() -> None:
    torch.manual_seed(0)
    attention, x = Attention(16, 2), torch.randn(2, 5, 16, requires_grad=True)
    grads = []
    for lower in (torch.float32, torch.float16):
        with torch.autocast("cpu", torch.float16, enabled=lower != torch.float32):
            found = attention(x, x, x)
        assert found.dtype == lower
        grads.append(torch.autograd.grad(found.float().square().sum(), x)[0])
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("detector", ["dino-nano", "lite-dino-nano"])
def test_boxes_and_references_stay_in_single_precision(
    detector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leandetr import ops
    from leandetr.training.build import build_criterion

    model, types = tiny_model(detector).train(), []
    for name, place in (("deform_attn_at", 2), ("key_aware_attn_at", 4)):
        original = getattr(ops, name)

        def seen(*given: Any, original: Any = original, place: int = place) -> Any:
            types.append(given[place].dtype)
            return original(*given)

        monkeypatch.setattr(ops, name, seen)
    with torch.autocast("cpu", torch.float16):
        outputs = model(batch((64, 80)), targets(2))
        losses = build_criterion(model.recipe)(outputs, targets(2))
    assert set(types) == {torch.float32}
    assert {layer.boxes.dtype for layer in outputs.layers} == {torch.float32}
    assert losses.total.dtype == losses.values.dtype == torch.float32

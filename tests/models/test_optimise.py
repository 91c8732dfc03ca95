"""Optimised models answer like the ones they were made from, and only answer."""

import copy
import logging

import pytest
import torch
from torch import nn

from leandetr.boxes import cxcywh_to_xyxy
from leandetr.checkpoints.store import load, save
from leandetr.errors import CheckpointError, LeanDetrError, RecipeError
from leandetr.images import Preprocess
from leandetr.models import optimise as optimising
from leandetr.models import optimise_parts as parts
from leandetr.models.necks import CellWaves
from leandetr.models.optimise_check import TOLERANCES, agreement, check_agreement
from leandetr.models.optimise_folding import fold_norms
from leandetr.models.optimise_parts import TABLES, RememberedWaves
from tiny import batch, family, single_level, targets, tiny_model

KINDS = [*family(with_switches=False), *single_level()]
ENCODERS = ["lite", "focus", "sparse"]


def detector(name: str, encoder: str | None = None) -> nn.Module:
    """A tiny detector whose norms have seen something."""
    torch.manual_seed(7)
    model = tiny_model(name, encoder)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=0.2)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    model.preprocess = Preprocess(short=64, long=96)
    return model


def same_answers(model: nn.Module, fast: nn.Module):
    images = batch((64, 96), (48, 80))
    with torch.inference_mode():
        ours, theirs = model(images).answer, fast(images).answer
    torch.testing.assert_close(theirs.boxes, ours.boxes, atol=1e-4, rtol=0)
    torch.testing.assert_close(theirs.logits, ours.logits, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", KINDS)
def test_single_precision_changes_no_box(name):
    model = detector(name)
    same_answers(model, model.optimise())


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_can_be_optimised(encoder):
    model = detector("dino-nano", encoder)
    same_answers(model, model.optimise())


@pytest.mark.parametrize("name", KINDS)
def test_bfloat16_is_near_and_makes_boxes_and_scores_in_single_precision(name):
    """Detectors that choose tokens may choose others: how near they are is tested on one."""
    model = detector(name)
    fast, images = model.optimise(dtype=torch.bfloat16), batch((64, 96))
    with torch.inference_mode():
        ours, theirs = model(images).answer, fast(images).answer
    assert theirs.boxes.dtype == theirs.logits.dtype == torch.float32
    large = [p for p in fast.get_submodule("encoder").parameters() if p.dim() > 1]
    assert {p.dtype for p in large if p.shape[0] > 1} == {torch.bfloat16}
    if model.proposals is None:
        torch.testing.assert_close(theirs.boxes, ours.boxes, atol=2e-2, rtol=0)
        torch.testing.assert_close(
            theirs.logits.sigmoid(), ours.logits.sigmoid(), atol=5e-2, rtol=0
        )
    assert theirs.boxes.isfinite().all()


@pytest.mark.parametrize("encoder", ENCODERS)
def test_bfloat16_runs_with_every_encoder(encoder):
    fast = detector("dino-nano", encoder).optimise(dtype=torch.bfloat16)
    with torch.inference_mode():
        assert fast(batch((64, 96))).answer.boxes.isfinite().all()


def test_the_original_stays_as_it_is():
    model = detector("dino-nano")
    before = copy.deepcopy(model.state_dict())
    model.optimise(dtype=torch.bfloat16)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert next(model.parameters()).requires_grad


def test_norms_are_folded_whatever_their_kind():
    model = detector("dino-nano")
    assert fold_norms(copy.deepcopy(model.backbone)) == sum(
        isinstance(part, nn.BatchNorm2d) for part in model.backbone.modules()
    )
    fast = model.optimise()
    assert not any(isinstance(part, nn.BatchNorm2d) for part in fast.modules())


def test_a_convolution_with_a_bias_is_folded_too():
    torch.manual_seed(0)
    pair = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    nn.init.normal_(pair[1].running_mean)
    nn.init.normal_(pair[1].bias)
    x = torch.randn(2, 3, 8, 8)
    before = pair(x)
    assert fold_norms(nn.ModuleList([pair])) == 1
    torch.testing.assert_close(pair(x), before, atol=1e-5, rtol=1e-5)


class NormAndReLU(nn.BatchNorm2d):
    """As timm has it in RegNet and others: the activation is in the norm."""

    def forward(self, x):
        return super().forward(x).relu()


class SameConv(nn.Conv2d):
    """As timm has it in EfficientNet: pads by itself."""

    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class Before(nn.Module):
    """The norm comes first."""

    def __init__(self):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(4)
        self.conv1 = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.conv1(self.bn1(x).relu())


@pytest.mark.parametrize(
    "block",
    [
        nn.Sequential(nn.Conv2d(4, 4, 3), NormAndReLU(4)),
        nn.Sequential(SameConv(4, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, affine=False)),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        Before(),
    ],
    ids=["with-activation", "own-padding", "no-weight", "no-statistics", "norm-first"],
)
def test_what_only_looks_like_a_norm_after_a_convolution_stays(block):
    block.eval()
    for norm in (part for part in block.modules() if isinstance(part, nn.BatchNorm2d)):
        if norm.running_mean is not None:
            nn.init.normal_(norm.running_mean)
    x = torch.randn(2, 4, 8, 8)
    before = block(x)
    assert fold_norms(nn.ModuleList([block])) == 0
    torch.testing.assert_close(block(x), before, atol=0, rtol=0)


def test_position_tables_are_kept_for_maps_without_padding():
    plain = CellWaves(20.0, 0.0)
    remembered = RememberedWaves(plain)
    whole, like = torch.zeros(2, 3, 5, dtype=torch.bool), torch.zeros(2, 8, 3, 5)
    padded = whole.clone()
    padded[1, :, 3:] = True
    first = remembered(whole, like)
    assert first.shape == (2, 15, 8)
    torch.testing.assert_close(first, plain(whole, like), rtol=0, atol=0)
    assert remembered(whole[:1], like[:1]).data_ptr() == first.data_ptr()  # the same table again
    torch.testing.assert_close(remembered(padded, like), plain(padded, like), rtol=0, atol=0)
    for side in range(1, 2 * TABLES):
        remembered(torch.zeros(1, 1, side, dtype=torch.bool), torch.zeros(1, 8, 1, side))
    assert len(remembered._kept) == TABLES
    assert remembered(whole, like).data_ptr() != first.data_ptr()  # forgotten, and made anew


def test_position_tables_that_one_thread_looks_at_are_not_changed_by_another():
    remembered = RememberedWaves(CellWaves(20.0, 0.0))
    for side in range(1, TABLES + 1):
        remembered(torch.zeros(1, 1, side, dtype=torch.bool), torch.zeros(1, 8, 1, side))
    for _ in remembered._kept:
        remembered(torch.zeros(1, 2, 2, dtype=torch.bool), torch.zeros(1, 8, 2, 2))
    assert len(remembered._kept) == TABLES


def test_parts_are_exchanged_wherever_they_are_used():
    linear = nn.Linear(2, 2)
    other = type("Derived", (nn.Linear,), {})(2, 2)  # as timm's LayerNorm2d, of another axis
    module = nn.ModuleDict({"all": nn.ModuleList([linear, linear, other]), "again": linear})
    parts.exchange(module, nn.Linear, parts.AnyLinear)
    one, two, left = module["all"]
    assert isinstance(one, parts.AnyLinear)
    assert one is two is module["again"]
    assert left is other


def test_an_optimised_model_is_not_trained():
    fast = detector("dino-nano").optimise()
    with pytest.raises(RecipeError, match=r"train the model that \.optimise"):
        fast(batch((64, 96)), targets(2))
    with pytest.raises(RecipeError, match="cannot be trained"):
        fast(batch((64, 96)), targets=targets(2))
    assert not any(parameter.requires_grad for parameter in fast.parameters())


def test_an_optimised_model_is_not_saved(tmp_path):
    fast = detector("dino-nano").optimise()
    with pytest.raises(CheckpointError, match=r"save the model that \.optimise"):
        save(fast, tmp_path / "model")
    assert not (tmp_path / "model" / "model.safetensors").exists()
    with pytest.raises(CheckpointError, match="is not saved"):
        fast.state_dict()


def test_other_precisions_are_refused():
    with pytest.raises(RecipeError, match=r"torch\.float16"):
        detector("dino-nano").optimise(dtype=torch.float16)


def test_slow_bfloat16_is_said(monkeypatch, caplog):
    monkeypatch.setattr(optimising, "has_bfloat16", lambda device: False)
    with caplog.at_level(logging.WARNING):
        detector("dino-nano").optimise(dtype=torch.bfloat16)
    assert "slower than float32" in caplog.text


def test_the_check_tells_the_largest_differences(caplog):
    with caplog.at_level(logging.INFO):
        detector("dino-nano").optimise(check=True)
    assert "100.0% of" in caplog.text
    assert "boxes differ by at most" in caplog.text


def test_the_check_fails_where_answers_differ():
    model = detector("dino-nano")
    fast = model.optimise()
    with torch.no_grad():
        for head in fast.heads.boxes:
            head.layers[-1].bias += 1
    with pytest.raises(LeanDetrError, match="or the model as it is"):
        check_agreement(model, fast)


def test_agreement_is_measured_in_sides_of_the_image():
    model, images = detector("dino-nano"), batch((64, 96))
    moved = copy.deepcopy(model)
    found = agreement(model, moved, images, TOLERANCES[torch.float32])
    assert (found.boxes, found.scores, found.share) == (0.0, 0.0, 1.0)
    moved.postprocess = lambda answer, sizes, names=(): [
        type(one)(one.boxes + 0.01, one.scores, one.labels)
        for one in model.postprocess(answer, sizes)
    ]
    assert agreement(model, moved, images, TOLERANCES[torch.float32]).share == 0
    loose = agreement(model, moved, images, TOLERANCES[torch.bfloat16])
    assert loose.share == 1
    assert loose.boxes == pytest.approx(0.01, abs=1e-5)


def test_a_trained_model_finds_the_same_in_bfloat16():
    model = load("lite-dino-nano-cells")
    fast = model.optimise(dtype=torch.bfloat16)
    found = check_agreement(model, fast, dtype=torch.bfloat16)
    assert found.share >= 0.9
    assert 0 < found.boxes <= 2e-2


def test_detect_and_predict_work_as_before():
    model = detector("dino-nano")
    image = torch.rand(3, 64, 96)
    (ours,), (theirs,) = (one.predict(image, threshold=0.0) for one in (model, model.optimise()))
    torch.testing.assert_close(theirs.boxes, ours.boxes, atol=1e-2, rtol=0)
    assert torch.equal(theirs.labels, ours.labels)
    assert cxcywh_to_xyxy(theirs.boxes).shape == (len(ours), 4)

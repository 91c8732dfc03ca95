"""Official checkpoints become models and models become official checkpoints, bit for bit."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner, Result

from golden_data import Case, golden_root
from golden_dino import official_detector
from leandetr.checkpoints.coco_names import CATEGORY_IDS, NAMES
from leandetr.checkpoints.convert import convert, export_official
from leandetr.checkpoints.keymap import Alias, Rename, to_official
from leandetr.checkpoints.layouts import rules_for
from leandetr.checkpoints.official import (
    transformers_conditional_detr,
    transformers_deformable_detr,
    transformers_detr,
)
from leandetr.checkpoints.reading import read_checkpoint
from leandetr.checkpoints.store import load
from leandetr.cli import app
from leandetr.errors import CheckpointError, CheckpointMismatch, OutputExists
from leandetr.models.detector import Detector
from leandetr.recipes import build, create_model, override, recipe
from official_states import described

SMALL = [
    "backbone.depth=18",
    "backbone.weights=none",
    "dim=32",
    "classes=7",
    "decoder.layers=2",
    "decoder.hidden=16",
    "encoder.hidden=16",
]
TWO, SOME = "encoder.layers=2", "queries.count=9"
MODELS: dict[str, tuple[str, str, list[str]]] = {
    "detr": ("detr-r50", "official", [TWO, SOME]),
    "detr-pre-norm": (
        "detr-r50",
        "official",
        [TWO, "encoder.pre_norm=true", "decoder.pre_norm=true"],
    ),
    "conditional": ("conditional-detr-r50", "official", [TWO, SOME]),
    "deformable": ("deformable-detr-r50", "official", [TWO, SOME]),
    "deformable-refine": ("deformable-detr-r50-refine", "official", [TWO, SOME]),
    "deformable-two-stage": ("deformable-detr-r50-two-stage", "official", [TWO, SOME]),
    "deformable-single": ("deformable-detr-r50-single-scale", "official", [TWO]),
    "lite-deformable": ("lite-deformable-detr-r50-h3l1-2p1x3", "official", []),
    "h": ("h-detr-r50", "official", [TWO, SOME, "queries.spare=5"]),
    "sparse": ("sparse-detr-r50-rho20", "official", [TWO, SOME]),
    "sparse-rho0": ("sparse-detr-r50-rho0", "official", [TWO, SOME]),
    "dino": ("dino-r50", "official", [TWO, SOME]),
    "dino-5scale": ("dino-r50-5scale", "official", [TWO, SOME]),
    "dino-own-heads": ("dino-r50", "official", [TWO, SOME, "shared_heads=false"]),
    "lite": ("lite-dino-r50-h3l1-2p1x3", "official", [SOME]),
    "lite-without-keys": (
        "lite-dino-r50-h3l1-2p1x3",
        "official",
        [SOME, "encoder.key_aware=false", "decoder.key_aware=false"],
    ),
    "lite-narrow-alone": (
        "lite-dino-r50-h3l1-2p1x3",
        "official",
        [SOME, "encoder.low_hidden=none", "encoder.shared_offsets=true", "encoder.own_key=true"],
    ),
    "focus": ("focus-detr-r50", "official", [SOME, "encoder.cascade=[1.0, 0.5]"]),
    "detrex-dino": (
        "focus-detr-r50",
        "detrex",
        ["encoder=deformable", TWO, SOME, "encoder.hidden=16"],
    ),
    "detrex-detr": ("detr-r50", "detrex", [TWO, SOME]),
    "detrex-conditional": ("conditional-detr-r50", "detrex", [TWO, SOME]),
    "detrex-deformable": ("deformable-detr-r50", "detrex", [TWO, SOME]),
    "detrex-two-stage": ("deformable-detr-r50-two-stage", "detrex", [TWO, SOME]),
    "detrex-h": ("h-detr-r50", "detrex", [TWO, SOME, "queries.spare=5"]),
}
TOLD = ("queries.count", "queries.spare", "encoder.high_levels", "encoder.keep", "encoder.cascade")
"""Settings that keys do not tell, or not surely, at these sizes."""


def detector(name: str) -> tuple[Detector, str]:
    """A small detector, and the layout to save it in."""
    preset, layout, changes = MODELS[name]
    return build(override(recipe(preset), [*SMALL, *changes])), layout


def told(model: Detector) -> list[str]:
    """What a person would have to say of a model."""
    chosen = []
    for path in TOLD:
        part, name = path.split(".")
        value = getattr(getattr(model.recipe.model, part), name, None)
        if value is not None:
            chosen.append(f"{path}={list(value) if isinstance(value, tuple) else value}")
    return chosen


def tensors(model: Detector) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in model.state_dict().items()}


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [key for key in one if not torch.equal(one[key], two[key])] == []


def leandetr(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def small_dino(tmp_path: Path) -> Path:
    """An official checkpoint of a small DINO."""
    model, _ = detector("dino")
    export_official(model, tmp_path / "dino.pth")
    return tmp_path / "dino.pth"


FILES = [(name, ".pth") for name in MODELS] + [
    (name, ".safetensors") for name in ("dino", "focus", "sparse")
]


@pytest.mark.parametrize(("name", "suffix"), FILES)
def test_there_and_back_bit_for_bit(tmp_path, name, suffix):
    model, layout = detector(name)
    path = tmp_path / f"model{suffix}"
    written = export_official(model, path, layout=layout)
    assert_same(read_checkpoint(path).state, written)
    back = convert(path, overrides=told(model))
    assert_same(tensors(back.detector), tensors(model))
    assert back.dropped == {}
    mine, theirs = back.detector.recipe.model, model.recipe.model
    for part in ("neck", "encoder", "queries", "dim", "classes", "shared_heads", "background"):
        assert getattr(mine, part) == getattr(theirs, part), part
    again = export_official(back.detector, tmp_path / f"again{suffix}", layout=layout)
    assert_same(again, written)


def test_a_golden_checkpoint_with_its_arguments(tmp_path):
    """Lite-DINO with key-aware attention in the form in which the repository saves it."""
    name = "lite_detr/lite_dino_r50_h3l1_2p1_x3"
    case = Case(name, golden_root(), described(name))
    wanted, _, dropped = official_detector(case)
    args = argparse.Namespace(**case.meta["hyper_parameters"])
    path = tmp_path / "checkpoint0011.pth"
    weights = case.weights()
    torch.save({"model": weights, "args": args, "epoch": 11, "ema_model": {}}, path)
    found = convert(path, classes=91)
    assert found.recognised.preset == "lite-dino-r50-h3l1-2p1x3"
    assert found.recognised.assumed == ()
    assert found.dropped == dropped
    assert_same(tensors(found.detector), tensors(wanted))
    official = export_official(found.detector, tmp_path / "again.pth")
    assert_same(official, {key: weights[key] for key in official})
    assert official.keys() == weights.keys()


HUGGING = {
    "d_model": 64,
    "backbone": "resnet18",
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 24,
    "num_queries": 5,
    "id2label": {"0": "cat", "1": "dog", "2": "tree"},
}
TIMM = Rename("model.backbone.conv_encoder.model.{rest}", "backbone.{rest}")


@pytest.mark.parametrize("config_there", [True, False])
@pytest.mark.parametrize(
    ("module", "more"),
    [
        (transformers_detr, {"model_type": "detr"}),
        (transformers_conditional_detr, {"model_type": "conditional_detr"}),
        (transformers_deformable_detr, {"model_type": "deformable_detr"}),
        (
            transformers_deformable_detr,
            {"model_type": "deformable_detr", "with_box_refine": True, "two_stage": True},
        ),
    ],
)
def test_folders_of_transformers(tmp_path, module, more, config_there):
    config = HUGGING | more
    model = build(module.recipe(config))
    state = to_official(tensors(model), [TIMM, *module.rules(model.recipe)])
    copies = {key: tensor.clone() for key, tensor in state.items()}
    save_file(copies, tmp_path / "model.safetensors")
    if config_there:
        (tmp_path / "config.json").write_text(json.dumps(config))
    found = convert(tmp_path)
    assert found.recognised.family.layout == "huggingface/transformers"
    assert_same(tensors(found.detector), tensors(model))
    assert found.detector.names == (("cat", "dog", "tree") if config_there else ())
    assert not (config_there and found.recognised.assumed)
    assert found.detector.recipe.model.queries == model.recipe.model.queries


def test_coco_ids_are_cut_to_the_named_classes(tmp_path):
    preset, _, changes = MODELS["dino"]
    model = build(override(recipe(preset), [*SMALL, *changes, "classes=91"]))
    export_official(model, tmp_path / "dino.pth")
    found = convert(tmp_path / "dino.pth", out=tmp_path / "named")
    assert found.detector.names == NAMES
    assert found.detector.category_ids == CATEGORY_IDS
    assert any("cut to the 80 that have names" in note for note in found.notes)
    heads = found.detector.heads.classes[0].weight
    assert torch.equal(heads, model.heads.classes[0].weight[list(CATEGORY_IDS)])
    assert_same(tensors(load(tmp_path / "named")), tensors(found.detector))
    whole = convert(tmp_path / "dino.pth", classes=91).detector
    assert_same(tensors(whole), tensors(model))
    assert (whole.names[1], whole.names[12], whole.names[90]) == (
        "person",
        "unused 12",
        "toothbrush",
    )
    assert whole.category_ids == tuple(range(91))


def test_eighty_classes_are_named_and_others_are_not(tmp_path, small_dino):
    preset, _, changes = MODELS["dino"]
    model = build(override(recipe(preset), [*SMALL, *changes, "classes=80"]))
    export_official(model, tmp_path / "eighty.pth")
    found = convert(tmp_path / "eighty.pth")
    assert (found.detector.names, found.detector.category_ids) == (NAMES, CATEGORY_IDS)
    assert any("taken for COCO's" in note for note in found.notes)
    assert convert(small_dino).detector.names == ()
    assert "7, unnamed" in convert(small_dino).table()


def test_names_can_be_given(small_dino):
    names = [f"kind {index}" for index in range(7)]
    found = convert(small_dino, names=names)
    assert found.detector.names == tuple(names)
    assert found.detector.category_ids == tuple(range(7))
    with pytest.raises(CheckpointError, match="expected 7 names, one for each class; got 2"):
        convert(small_dino, names=["a", "b"])
    with pytest.raises(CheckpointError, match="expected --classes 7, as many as"):
        convert(small_dino, classes=80)


def test_nothing_is_overwritten_unless_asked(tmp_path, small_dino):
    out = tmp_path / "model"
    convert(small_dino, out=out)
    before = (out / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(OutputExists, match="expected to write new files"):
        convert(small_dino, out=out)
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    convert(small_dino, out=out, overwrite=True)
    assert (out / "model.safetensors").stat().st_mtime_ns > before
    model = load(out)
    target = tmp_path / "back.pth"
    export_official(model, target)
    with pytest.raises(OutputExists):
        export_official(model, target)


@pytest.mark.parametrize(
    ("harm", "match"),
    [
        (lambda s: s.pop("transformer.enc_output.bias"), "missing: proposals.project.bias"),
        (lambda s: s.update(odd=torch.zeros(1)), "1 official keys are not known: odd"),
        (lambda s: s.update({"label_enc.weight": torch.zeros(8, 31)}), "other shapes: .*31"),
        (lambda s: s.pop("class_embed.0.weight"), "expected a key like class_embed"),
        (lambda s: s.update({"mask_head.lay1.weight": torch.zeros(1)}), "segmentation model"),
        (
            lambda s: s.update({"bbox_embed.1.layers.1.bias": torch.ones(32)}),
            "differ, though the model shares them",
        ),
    ],
)
def test_checkpoints_that_do_not_fit_leave_nothing_behind(tmp_path, small_dino, harm, match):
    state = read_checkpoint(small_dino).state
    harm(state)
    path = tmp_path / "bad.pth"
    torch.save({"model": state}, path)
    with pytest.raises(CheckpointMismatch, match=match) as caught:
        convert(path, out=tmp_path / "out")
    assert str(caught.value).startswith(f"{path}: ")
    assert not (tmp_path / "out").exists()


def test_half_precision_is_told(tmp_path, small_dino):
    state = {key: t.half() for key, t in read_checkpoint(small_dino).state.items()}
    torch.save({"model": state}, tmp_path / "half.pth")
    found = convert(tmp_path / "half.pth")
    assert "weights stored as float16 are float32 now" in found.notes
    assert {t.dtype for t in found.detector.parameters()} == {torch.float32}


def test_averaged_weights_can_be_chosen(tmp_path, small_dino):
    state = read_checkpoint(small_dino).state
    averaged = {key: tensor + 1 for key, tensor in state.items()}
    torch.save({"model": state, "ema": averaged}, tmp_path / "both.pth")
    plain, ema = convert(tmp_path / "both.pth"), convert(tmp_path / "both.pth", part="ema")
    one, two = tensors(plain.detector), tensors(ema.detector)
    assert torch.equal(one["decoder.norm.bias"] + 1, two["decoder.norm.bias"])


def test_detectors_of_no_repository_are_refused(tmp_path):
    model = create_model("deformable-detr-nano", num_classes=3)
    with pytest.raises(CheckpointMismatch):
        export_official(model, tmp_path / "x.pth", layout="transformers-js")
    mixed = build(override(recipe("dino-r50"), [*SMALL, "encoder=sparse", TWO, SOME]))
    with pytest.raises(CheckpointMismatch, match="no official name for encoder"):
        export_official(mixed, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"expected a file that ends in \.pth"):
        export_official(model, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_of_an_export(tmp_path, monkeypatch):
    model, _ = detector("dino")

    def full(state: Any, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        export_official(model, tmp_path / "x.pth")
    assert list(tmp_path.iterdir()) == []


def test_every_parameter_goes_to_one_official_key():
    """Aliases aside, no two parameters share an official name."""
    model, layout = detector("sparse")
    rules = [rule for rule in rules_for(model.recipe, layout) if not isinstance(rule, Alias)]
    assert len(to_official(tensors(model), rules)) == len(tensors(model))


def test_the_verb_tells_what_it_found_and_goes_both_ways(tmp_path, small_dino):
    out = tmp_path / "model"
    done = leandetr("convert", small_dino, "--out", out, "--set", "encoder.heads=8")
    assert done.exit_code == 0, done.output
    assert "recognised  DINO, as IDEA-Research/DINO saves it" in done.stdout
    assert "classes     7, unnamed" in done.stdout
    assert f"written to  {out}" in done.stdout
    back = tmp_path / "back.safetensors"
    done = leandetr("convert", out, "--to", "official", "--out", back)
    assert done.exit_code == 0, done.output
    assert_same(load_file(back), read_checkpoint(small_dino).state)


def test_the_verb_takes_names_from_a_file_and_says_one_sentence_on_errors(tmp_path, small_dino):
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\nd\ne\nf\ng g\n")
    done = leandetr("convert", small_dino, "--out", tmp_path / "model", "--names", names)
    assert done.exit_code == 0, done.output
    assert load(tmp_path / "model").names == ("a", "b", "c", "d", "e", "f", "g g")
    done = leandetr("convert", small_dino, "--out", tmp_path / "model")
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "--overwrite" in done.stderr
    done = leandetr("convert", names, "--out", tmp_path / "other")
    assert done.exit_code == 2
    assert "expected weights" in done.stderr
    assert not (tmp_path / "other").exists()

"""A model with a class for each of COCO's ids becomes one of the 80 names, exactly."""

import pytest
import torch

from leandetr.checkpoints import store
from leandetr.checkpoints.class_rows import class_rows, keep_classes
from leandetr.checkpoints.coco_names import (
    CATEGORIES,
    CATEGORY_IDS,
    ID_CLASSES,
    NAMES,
    to_eighty,
)
from leandetr.errors import CheckpointError
from leandetr.recipes import build
from tiny import batch, family, single_level, tiny, tiny_model

UNUSED = [index for index in range(ID_CLASSES) if index not in CATEGORIES]


def with_ids(detector):
    """A tiny detector with a class for each id, of which the unused ones score low everywhere."""
    model = tiny_model(detector, classes=ID_CLASSES)
    state = model.state_dict()
    for name in class_rows(model.recipe):
        if name.endswith("bias"):
            state[name][UNUSED] -= 50
    model.load_state_dict(state)
    return model


def test_the_names_are_cocos():
    assert len(NAMES) == len(set(NAMES)) == len(CATEGORY_IDS) == 80
    assert list(CATEGORY_IDS) == sorted(CATEGORY_IDS)
    assert UNUSED == [0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert CATEGORIES[1] == NAMES[0] == "person"
    assert CATEGORIES[90] == NAMES[79] == "toothbrush"


@pytest.mark.parametrize("detector", [*family(), *single_level()])
def test_the_logits_and_boxes_of_the_named_classes_stay_the_same(detector):
    model = with_ids(detector)
    cut = to_eighty(model)
    images = batch((64, 80), (48, 64))
    with torch.no_grad():
        before, after = model(images).answer, cut(images).answer
    rows = [*CATEGORY_IDS, *([ID_CLASSES] if model.recipe.model.background else [])]
    torch.testing.assert_close(after.logits, before.logits[..., rows], rtol=0, atol=1e-6)
    torch.testing.assert_close(after.boxes, before.boxes, rtol=0, atol=1e-6)
    for new, old in zip(cut.heads.classes, model.heads.classes, strict=True):
        assert torch.equal(new.weight, old.weight[rows])
        assert torch.equal(new.bias, old.bias[rows])
    assert (cut.names, cut.category_ids) == (NAMES, CATEGORY_IDS)
    assert cut.recipe.model.classes == 80
    assert not cut.training


def test_the_label_table_keeps_its_last_row():
    model = tiny_model("dino-nano", classes=ID_CLASSES)
    cut = to_eighty(model)
    table, former = cut.training_groups[0].labels.weight, model.training_groups[0].labels.weight
    assert table.shape[0] == 81
    assert torch.equal(table[0], former[1])
    assert torch.equal(table[80], former[91])


def test_the_cut_model_is_saved_and_loaded(tmp_path):
    cut = to_eighty(tiny_model("dino-nano", classes=ID_CLASSES))
    store.save(cut, tmp_path)
    loaded = store.load(tmp_path)
    assert (loaded.names, loaded.category_ids) == (NAMES, CATEGORY_IDS)
    state = loaded.state_dict()
    assert all(torch.equal(state[name], value) for name, value in cut.state_dict().items())


def test_the_old_model_is_left_alone():
    model = tiny_model("dino-nano", classes=ID_CLASSES)
    cut = to_eighty(model)
    with torch.no_grad():
        for parameter in cut.parameters():
            parameter.zero_()
    assert model.names == ()
    assert model.recipe.model.classes == ID_CLASSES
    assert model.heads.classes[0].weight.abs().sum() > 0


@pytest.mark.parametrize("classes", [80, 92])
def test_other_numbers_of_classes_are_refused(classes):
    with pytest.raises(CheckpointError, match=rf"expected a model with 91 classes.* got {classes}"):
        to_eighty(build(tiny(classes=classes)))


@pytest.mark.parametrize("detector", [*family(), *single_level()])
def test_every_weight_with_a_row_for_each_class_is_found(detector):
    recipe = tiny(detector)
    found = class_rows(recipe)
    heads = {name for name in found if name.startswith("heads.classes.")}
    assert len(heads) == 2 * len(build(recipe).heads.classes)
    extra = 1 if recipe.model.background else 0
    assert {found[name] for name in heads} == {extra}
    tables = {name: rows for name, rows in found.items() if name.startswith("training_groups")}
    assert set(tables.values()) <= {0, 1}  # with a row for background or without
    assert not any("boxes" in name for name in found)


def test_a_width_as_large_as_the_classes_is_no_row_of_classes():
    recipe = tiny(classes=16)  # as many as channels
    assert class_rows(recipe).keys() == class_rows(tiny()).keys()


def test_classes_can_be_chosen_in_any_order():
    model = tiny_model("dino-nano")
    cut = keep_classes(model, (2, 0), names=("c", "a"), category_ids=(3, 1))
    assert torch.equal(cut.heads.classes[0].bias, model.heads.classes[0].bias[[2, 0]])
    assert cut.names == ("c", "a")


@pytest.mark.parametrize("keep", [(0, 3), (-1,), ()])
def test_classes_that_are_not_there_are_refused(keep):
    with pytest.raises(CheckpointError, match="expected classes from 0 to 2, at least one"):
        keep_classes(tiny_model("dino-nano"), keep, names=(), category_ids=())

"""Fine-tuning keeps all that fits, by shape and by class name, and tells what it did."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leandetr.checkpoints import store
from leandetr.checkpoints.coco_names import ID_CLASSES, to_eighty
from leandetr.models.backbones import NanoResNetConfig
from leandetr.models.heads import PRIOR
from leandetr.recipes import build
from leandetr.training.rows import level_names
from leandetr.training.transfer import NOT_THERE, Fresh, Partly, transfer
from tiny import CLASSES, QUERIES, batch, family, single_level, tiny, tiny_model

NAMES = ("cat", "dog", "tree")
HEADS = ("heads.classes.0.weight", "heads.classes.0.bias")


def named(names, detector="dino-nano", **changes):
    """A tiny detector whose classes have these names."""
    model = tiny_model(detector, classes=len(names), **changes)
    model.names = tuple(names)
    model.category_ids = tuple(range(len(names)))
    return model


def fresh(names=(), detector="dino-nano", **changes):
    """A tiny detector as it is before training."""
    model = build(tiny(detector, **{"classes": len(names) or CLASSES} | changes))
    model.names = tuple(names)
    return model


@pytest.mark.parametrize("detector", [*family(), *single_level()])
def test_the_same_detector_takes_everything_over(detector):
    old, new = named(NAMES, detector), fresh(NAMES, detector)
    told = transfer(old, new)
    state = old.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in new.state_dict().items())
    assert set(told.kept) == set(state)
    assert (told.partly, told.fresh, told.unused) == ((), (), ())


names = st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=5, unique=True)


@settings(max_examples=10)
@given(before=names, now=names)
def test_classes_go_along_under_their_names(before, now):
    old, new = named(before), fresh(now)
    start = {name: value.clone() for name, value in new.state_dict().items()}
    told = transfer(old, new)
    shared = [name for name in now if name in before]
    table = "training_groups.0.labels.weight"
    for key in (*HEADS, "proposals.classes.weight", table):
        goal, given = new.state_dict()[key], old.state_dict()[key]
        for row, name in enumerate(now):
            wanted = given[before.index(name)] if name in before else start[key][row]
            assert torch.equal(goal[row], wanted)
    assert torch.equal(new.state_dict()[table][-1], old.state_dict()[table][-1])
    assert told.classes.known == tuple(shared)
    assert told.classes.left_out == len(before) - len(shared)
    anew = {item.name for item in told.fresh} | {item.name for item in told.partly}
    assert (HEADS[0] in anew) == (shared != now)


def test_the_case_of_a_name_does_not_matter_and_nothing_else_is_alike():
    old, new = named(("Cat", "dog")), fresh(("cAT", "dogs", "tree"))
    told = transfer(old, new)
    assert told.classes.known == ("cAT",)
    assert Partly(HEADS[0], 1, 3) in told.partly
    assert "classes: 1 of 3 known by name; new: dogs, tree; 1 of the old model left out" in (
        told.table()
    )


def test_new_classes_start_at_the_prior():
    old, new = named(("cat", "dog")), fresh(("dog", "tree"))
    transfer(old, new)
    for head in (*new.heads.classes, new.proposals.classes):
        assert head.bias[1].sigmoid().item() == pytest.approx(PRIOR)
    assert torch.equal(new.heads.classes[0].bias[0], old.heads.classes[0].bias[1])


def test_background_stays_background():
    old, new = named(("cat", "dog"), "detr-r50"), fresh(("dog", "tree", "sea"), "detr-r50")
    start = new.heads.classes[0].bias.detach().clone()
    told = transfer(old, new)
    bias, given = new.heads.classes[0].bias, old.heads.classes[0].bias
    assert torch.equal(bias[[0, 3]], given[[1, 2]])
    assert torch.equal(bias[[1, 2]], start[[1, 2]])
    assert Partly(HEADS[1], 2, 4) in told.partly


def test_a_score_of_any_object_is_kept_whatever_the_classes():
    old, new = named(NAMES, "h-detr-nano"), fresh(("sea", "sky"), "h-detr-nano")
    assert old.recipe.model.queries.agnostic
    told = transfer(old, new)
    assert torch.equal(new.proposals.classes.weight[0], old.proposals.classes.weight[0])
    assert told.classes.known == ()
    assert HEADS[0] in {item.name for item in told.fresh}


@pytest.mark.parametrize(("before", "now"), [((), NAMES), (NAMES, ()), ((), ())])
def test_classes_without_names_are_told_apart_by_number(before, now):
    old, new = tiny_model("dino-nano"), fresh(now)
    old.names = before
    told = transfer(old, new)
    assert torch.equal(new.heads.classes[0].weight, old.heads.classes[0].weight)
    assert "so they are taken over by number" in told.table()


def test_other_numbers_of_classes_without_names_share_none():
    old, new = tiny_model("dino-nano", classes=5), fresh(NAMES)
    told = transfer(old, new)
    assert {item.name for item in told.fresh} == {
        f"{home}.{kind}"
        for home in ("heads.classes.0", "heads.classes.1", "proposals.classes")
        for kind in ("weight", "bias")
    } & set(new.state_dict())
    assert Partly("training_groups.0.labels.weight", 1, 4) in told.partly  # background
    assert "classes: 5 in the old model, 3 here, not both named: all are fresh" in told.table()


@settings(max_examples=10)
@given(before=st.integers(1, 6), now=st.integers(1, 6), spares=st.tuples(*[st.integers(0, 3)] * 2))
def test_the_first_queries_are_taken_over(before, now, spares):
    recipes = [
        tiny(queries=replace(tiny().model.queries, count=count, spare=spare), top=count)
        for count, spare in zip((before, now), spares, strict=True)
    ]
    old, new = map(build, recipes)
    start = new.queries.content.weight.detach().clone()
    told = transfer(old, new)
    rows, given = new.queries.content.weight, old.queries.content.weight
    both, spare = min(before, now), min(spares)
    assert torch.equal(rows[:both], given[:both])
    assert torch.equal(rows[both:now], start[both:now])
    assert torch.equal(rows[now : now + spare], given[before : before + spare])
    assert torch.equal(rows[now + spare :], start[now + spare :])
    assert (f"queries: {before} in the old model, {now} here" in told.table()) == (before != now)


def test_more_queries_are_partly_kept():
    few = replace(tiny().model.queries, spare=0)
    wide = fresh(queries=replace(few, count=QUERIES + 3))
    told = transfer(tiny_model("dino-nano", queries=few), wide)
    assert told.partly == (Partly("queries.content.weight", QUERIES, QUERIES + 3),)
    assert f"queries.content: {QUERIES} of {QUERIES + 3} rows" in told.table()


@pytest.mark.parametrize("levels", [4, 5])
def test_more_levels_leave_the_former_ones_alone(levels):
    neck = replace(tiny().model.neck, levels=levels)
    old, new = tiny_model("dino-nano"), fresh(neck=neck)
    told = transfer(old, new)
    assert torch.equal(new.neck.level_embedding[:3], old.neck.level_embedding)
    assert Partly("neck.level_embedding", 3, levels) in told.partly
    assert Fresh("neck.extend.0.0.weight", NOT_THERE) in told.fresh
    attention, former = (model.decoder.layers[0].cross_attention for model in (new, old))
    samples = attention.weights.weight.view(2, levels, 2, -1)
    assert torch.equal(samples[:, :3], former.weights.weight.view(2, 3, 2, -1))
    places = attention.offsets.linear.bias.view(2, levels, 2, 2)
    assert torch.equal(places[:, :3], former.offsets.linear.bias.view(2, 3, 2, 2))


def test_a_finer_level_moves_the_others_along():
    wide = NanoResNetConfig(widths=(8, 8, 16, 16), outputs=(0, 1, 2, 3))
    neck = replace(tiny().model.neck, levels=5)
    old = tiny_model("dino-nano", neck=replace(neck, levels=4))
    new = fresh(backbone=wide, neck=neck)
    told = transfer(old, new)
    assert level_names(new.recipe) == ["stage 0", "stage 1", "stage 2", "stage 3", "extra 0"]
    assert torch.equal(new.neck.project[1][0].weight, old.neck.project[0][0].weight)
    assert torch.equal(new.neck.extend[0][0].weight, old.neck.extend[0][0].weight)
    assert torch.equal(new.neck.level_embedding[1:], old.neck.level_embedding)
    assert Fresh("neck.project.0.0.weight", NOT_THERE) in told.fresh


def test_other_heads_or_points_share_no_sample():
    decoder = replace(tiny().model.decoder, points=4)
    told = transfer(tiny_model("dino-nano"), fresh(decoder=decoder))
    anew = {item.name for item in told.fresh}
    assert "decoder.layers.0.cross_attention.offsets.linear.weight" in anew
    assert "decoder.layers.0.cross_attention.value.weight" in told.kept


def test_another_encoder_starts_anew_and_the_rest_is_kept():
    old, new = named(NAMES), fresh(NAMES, encoder="lite")
    told = transfer(old, new)
    assert {item.name.split(".")[0] for item in told.fresh} == {"encoder"}
    assert {item.reason for item in told.fresh} == {NOT_THERE}
    assert {name.split(".")[0] for name in told.unused} == {"encoder"}
    assert not any(name.startswith("encoder") for name in told.kept)
    assert "encoder.layers.*.feed_forward.linear1 (4 tensors): only in the old model" in (
        told.table()
    )


def test_another_width_says_both_shapes():
    new = fresh(dim=32)
    told = transfer(tiny_model("dino-nano"), new)
    reasons = {item.name: item.reason for item in told.fresh}
    assert reasons["decoder.norm.weight"] == "(16,) in the old model, (32,) here"
    assert {name for name in new.state_dict() if name.startswith("backbone")} <= set(told.kept)


def test_the_table_counts_every_tensor():
    old, new = named(NAMES), fresh(("dog", "bird"), encoder="lite")
    told = transfer(old, new)
    total = len(told.kept) + len(told.partly) + len(told.fresh)
    assert total == len(new.state_dict())
    lines = told.table().splitlines()
    assert lines[0].split() == ["kept", "partly", "fresh", "unused"]
    rows = [line.split() for line in lines[1 : lines.index("partly:")]]
    assert sum(int(row[1]) + int(row[2]) + int(row[3]) for row in rows) == total
    assert sum(int(row[4]) for row in rows) == len(told.unused)


def test_the_old_model_stays_as_it_is():
    old = named(NAMES)
    before = {name: value.clone() for name, value in old.state_dict().items()}
    new = fresh(("tree",))
    transfer(old, new)
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in old.state_dict().items())


def test_a_shipped_and_a_saved_model_give_their_weights(tmp_path):
    shipped = store.load("lite-dino-nano-cells")
    store.save(shipped, tmp_path)
    for old in (shipped, store.load(tmp_path)):
        new = build(old.recipe.with_model(classes=2))
        new.names = (old.names[1].upper(), "something else")
        told = transfer(old, new)
        assert told.classes.known == (new.names[0],)
        assert told.fresh == ()
        images = batch((64, 96))
        with torch.no_grad():
            logits = [model.eval()(images).layers[0].logits for model in (old, new)]
        assert logits[0].shape[:2] == logits[1].shape[:2]


def test_a_model_of_cocos_ids_gives_the_classes_it_names():
    old = to_eighty(tiny_model("dino-nano", classes=ID_CLASSES))
    new = fresh(("dog", "unicorn", "person"))
    told = transfer(old, new)
    assert told.classes.known == ("dog", "person")
    weight = old.heads.classes[0].weight
    assert torch.equal(new.heads.classes[0].weight[[0, 2]], weight[[16, 0]])

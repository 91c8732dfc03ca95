import pytest
import torch

from golden_data import load_case, loaded, rules
from leandetr.errors import RecipeError
from leandetr.models.backbones import SwinConfig
from leandetr.models.backbones.swin import DropPath, PatchMerging, Swin
from leandetr.types import Images


def tiny(**changes):
    arguments = {
        "heads": (2, 4),
        "window": 3,
        "outputs": (0, 1),
        "drop_path": 0.0,
    }
    return Swin(8, (2, 2), **{**arguments, **changes})


def blank(*shape):
    return Images(torch.randn(shape[0], 3, *shape[1:]), torch.zeros(shape, dtype=torch.bool))


@pytest.mark.golden
def test_keys_and_shapes_are_the_official_ones():
    case = load_case("dino/dino_swin_t_4scale")
    loaded.discard(case.name)  # keys are not outputs: the whole model is proven elsewhere
    prefix = "backbone.0."
    expected = {
        key[len(prefix) :]: tuple(shape)
        for key, shape in case.meta["key_shapes"].items()
        if key.startswith(prefix)
    }
    backbone = SwinConfig().build()
    assert {key: tuple(value.shape) for key, value in backbone.state_dict().items()} == expected
    table = rules().tensor("relative_position_index", (49, 49))
    own = backbone.state_dict()["layers.0.blocks.0.attn.relative_position_index"]
    assert torch.equal(own, torch.from_numpy(table))


@pytest.mark.parametrize(
    ("variant", "parameters"),
    # the paper's classifiers (28, 50, 88, 197 million) without head and last norm, plus our norms
    [("tiny", 27_520_506), ("small", 48_838_410), ("base", 86_744_760), ("large", 194_997_780)],
)
def test_parameter_counts(variant, parameters):
    with torch.device("meta"):
        backbone = SwinConfig(variant).build()
    assert sum(p.numel() for p in backbone.parameters()) == parameters


@pytest.mark.parametrize("size", [(24, 24), (25, 50), (13, 37), (4, 4), (1, 1)])
def test_any_image_size_is_taken(size):
    backbone = tiny()
    fine, coarse = backbone(blank(2, *size)).maps
    height, width = -(-size[0] // 4), -(-size[1] // 4)
    assert fine.shape == (2, 8, height, width)
    assert coarse.shape == (2, 16, -(-height // 2), -(-width // 2))


def test_patches_are_merged_down_first_then_across():
    merging = PatchMerging(1)
    with torch.no_grad():
        merging.reduction.weight.zero_()
        merging.reduction.weight[0, 1] = 1  # second of the four
    merging.norm = torch.nn.Identity()
    cells = torch.arange(15.0).reshape(1, 3, 5, 1)
    found = merging(cells)[0, :, :, 0]
    assert torch.equal(found, torch.tensor([[5.0, 7.0, 9.0], [0.0, 0.0, 0.0]]))


def test_a_shift_lets_windows_talk_but_not_across_the_edge():
    backbone = tiny(outputs=(0,))
    batch = blank(1, 36, 36)  # 9 x 9 cells, 3 x 3 windows
    batch.pixels.requires_grad_()
    backbone(batch).maps[0][0, 0, 0, 0].backward()
    seen = (
        batch.pixels.grad[0].abs().sum(0).unflatten(0, (9, 4)).unflatten(2, (9, 4)).sum((1, 3)) > 0
    )
    # the corner cell sits alone with its 1 x 1 neighbours after the shift: its own window only
    assert seen[:3, :3].all()
    assert not seen[3:].any()
    assert not seen[:, 3:].any()
    batch.pixels.grad = None
    backbone(batch).maps[0][0, 0, 3, 3].backward()
    seen = (
        batch.pixels.grad[0].abs().sum(0).unflatten(0, (9, 4)).unflatten(2, (9, 4)).sum((1, 3)) > 0
    )
    assert seen[:6, :6].all()
    assert not seen[6:].any()


def test_drop_path_keeps_the_mean_and_is_off_in_evaluation():
    drop = DropPath(0.25)
    branch = torch.ones(4000, 1, 1, 2)
    found = drop.train()(branch)
    assert found.unique().tolist() == pytest.approx([0, 4 / 3])
    assert found.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(found[..., 0], found[..., 1])
    assert drop.eval()(branch) is branch


def test_drop_path_grows_from_the_first_block_to_the_last():
    backbone = SwinConfig(drop_path=0.22).build()
    rates = [module.rate for module in backbone.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.02 * index for index in range(12)])


def test_gradients_reach_every_parameter_through_drop_path():
    backbone = tiny(drop_path=0.5).train()
    sum(level.square().mean() for level in backbone(blank(16, 24, 24)).maps).backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_frozen_stages_do_not_train():
    backbone = SwinConfig(frozen_stages=2).build()
    frozen = {key for key, p in backbone.named_parameters() if not p.requires_grad}
    first = ("patch_embed.", "layers.0.")
    assert frozen == {key for key, _ in backbone.named_parameters() if key.startswith(first)}
    assert all(p.requires_grad for p in SwinConfig().build().parameters())


def test_runs_in_bfloat16():
    backbone = tiny().to(torch.bfloat16)
    batch = blank(1, 30, 30)
    maps = backbone(Images(batch.pixels.to(torch.bfloat16), batch.padding)).maps
    assert all(level.dtype == torch.bfloat16 for level in maps)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(level.isfinite().all() for level in tiny()(batch).maps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "huge"}, "one of .'tiny', 'small', 'base', 'large'., got 'huge'"),
        ({"window": 1}, "at least 2 cells a side, got 1"),
        ({"drop_path": 1.0}, "from 0 to below 1, got 1.0"),
        ({"frozen_stages": 6}, "four stages and so is 0 to 5, got 6"),
        ({"outputs": ()}, "indices of its 4 stages"),
        ({"window": 8, "weights": "imagenet"}, "are known for swin-tiny-w8"),
    ],
)
def test_impossible_configs_say_what_to_type(arguments, message):
    with pytest.raises(RecipeError, match=message):
        SwinConfig(**arguments)

"""The catalogue of published weights names presets, whole addresses and hashes."""

import re

import pytest
import torch

from leandetr.checkpoints.families import transformers
from leandetr.checkpoints.keymap import to_official
from leandetr.checkpoints.layouts import FAMILIES, family_of, rules_for
from leandetr.checkpoints.load_official import differences, untold
from leandetr.checkpoints.recognise import recognise
from leandetr.checkpoints.released import HUB, RELEASED, ZOO
from leandetr.recipes.assemble import build, list_models, recipe
from leandetr.recipes.published import PUBLISHED


def test_every_entry_is_of_a_preset():
    assert set(RELEASED) <= set(list_models())


@pytest.mark.parametrize("name", RELEASED)
def test_addresses_are_whole_and_pinned(name):
    entry = RELEASED[name]
    assert re.fullmatch(r"https://[\w.-]+/[\w./%-]+\.(pth|zip|safetensors)", entry.url)
    assert entry.page.startswith("https://")
    assert entry.sha256 is None or re.fullmatch(r"[0-9a-f]{8,64}", entry.sha256)
    if entry.url.startswith(HUB):
        assert re.search(r"/resolve/[0-9a-f]{40}/model\.safetensors$", entry.url)


def test_files_have_different_names_in_the_cache():
    names = [entry.file for entry in RELEASED.values()]
    assert len(set(names)) == len(names)
    assert RELEASED["deformable-detr-r50"].file == "deformable-detr.safetensors"
    assert RELEASED["detr-r50"].file == "detr-r50-e632da11.pth"


def test_the_hashes_of_detr_are_in_the_names():
    assert [RELEASED[f"detr-{name}"].sha256 for name in ("r50", "r50-dc5", "r101", "r101-dc5")] == [
        "e632da11",
        "f0fb7ef5",
        "2c7b67e5",
        "a2e86def",
    ]


@pytest.mark.parametrize("name", RELEASED)
def test_what_is_not_as_accurate_as_the_paper_says_why(name):
    entry, published = RELEASED[name], PUBLISHED[name]
    assert entry.ap == published.ap or entry.note


def published(name, state):
    """Our state dict under the keys of the published file."""
    entry, wanted = RELEASED[name], recipe(name)
    if entry.url.startswith(HUB):
        kind = family_of(wanted).name
        family = next(f for f in FAMILIES if f.name == kind and f.layout == transformers.LAYOUT)
        official = to_official(state, family.rules(wanted))
        inside = transformers.NAMES.backbone  # a ResNet of timm, whose names are ours
        own = {
            key.replace("backbone", inside, 1): tensor
            for key, tensor in state.items()
            if key.startswith("backbone.")
        }
        return {key: t for key, t in official.items() if not key.startswith(inside)} | own
    layout = "detrex" if entry.page == ZOO else "official"  # Focus-DETR's own is that of detrex
    return to_official(state, rules_for(wanted, layout))


@pytest.mark.parametrize("name", RELEASED)
def test_the_preset_is_told_from_a_file_in_the_published_layout(name):
    wanted = recipe(name)
    with torch.device("meta"):
        empty = build(wanted).state_dict()
    state = {  # one number a tensor: different, and no memory
        key: torch.tensor(float(index)).expand(tensor.shape)
        for index, (key, tensor) in enumerate(empty.items())
    }
    found = recognise(published(name, state), overrides=untold(wanted))
    other = [said.split()[0] for said in differences(found.recipe, wanted)]
    assert other == sorted(RELEASED[name].differs)

"""Golden cases of losses as our values: predictions, targets, and what the terms are called.

Two layouts: that of the DINO and Focus-DETR cases, and that of all others.
"""

import torch
from torch import Tensor

from golden_data import Case
from leandetr.types import Group, Known, Match, Outputs, Prediction, Proposed, Target

Leaves = dict[str, Tensor]
"""Stored predictions by name, ready to take gradients."""
KINDS = {"labels": ("loss_ce", "loss_class"), "boxes": ("loss_bbox",), "giou": ("loss_giou",)}


def official_name(name: str, layers: int, endings: dict[str, str]) -> str:
    """`boxes/denoising/0` as official code calls it, `loss_bbox_dn_0`; `_0` goes where `#` is."""
    kind, group, *layer = name.split("/")
    number = f"_{layer[0]}" if layer and (int(layer[0]) < layers - 1 or group == "encoder") else ""
    return KINDS[kind][0] + endings[group].replace("#", number)


def plain_leaves(case: Case) -> Leaves:
    """The predictions of a case of the plain layout: all that has a gradient."""
    gradients = [key for key in case.tensors if key.startswith("grad.")]
    names = [key.removeprefix("grad.") for key in gradients]
    return {name: case.tensors[name].clone().requires_grad_() for name in names}


def plain_targets(case: Case) -> list[Target]:
    """The targets of a case of the plain layout."""
    stored = case.tensors
    images = range(len(case.meta["targets_per_image"]))
    return [Target(stored[f"target_labels_{n}"], stored[f"target_boxes_{n}"]) for n in images]


def plain_outputs(case: Case, leaves: Leaves) -> Outputs:
    """Main queries first, one-to-many behind them; proposals of `enc` are class-agnostic."""
    main = leaves["pred_logits"].shape[1]
    groups = (Group("main", 0, main, Match()),)
    layers = _layers(leaves, "")
    if "one2many.pred_logits" in leaves:
        args = case.meta["args"]
        many = Match(args["k_one2many"])
        stop = main + leaves["one2many.pred_logits"].shape[1]
        groups += (Group("one-to-many", main, stop, many, args["lambda_one2many"]),)
        pairs = zip(layers, _layers(leaves, "one2many_"), strict=True)
        layers = [
            Prediction(
                torch.cat((one.logits, more.logits), 1), torch.cat((one.boxes, more.boxes), 1)
            )
            for one, more in pairs
        ]
    proposals = None
    if "enc.pred_logits" in leaves:
        proposals = Proposed(leaves["enc.pred_logits"], leaves["enc.pred_boxes"], agnostic=True)
    return Outputs(tuple(layers), proposals, groups)


def _layers(leaves: Leaves, prefix: str) -> list[Prediction]:
    """All decoder layers of one branch, the last one last."""
    last = f"{prefix[:-1]}." if prefix else ""
    count = sum(f"{prefix}aux_{index}.pred_logits" in leaves for index in range(10))
    names = [*(f"{prefix}aux_{index}." for index in range(count)), last]
    return [Prediction(leaves[f"{n}pred_logits"], leaves[f"{n}pred_boxes"]) for n in names]


def plain_matches(case: Case, name: str) -> list[set[tuple[int, int]]]:
    """The official pairs of an output, image by image; copies of a target are the same one."""
    pairs = []
    for image, count in enumerate(case.meta["targets_per_image"]):
        query = case.tensors[f"match_{name}_{image}_query"].tolist()
        target = case.tensors[f"match_{name}_{image}_target"].tolist()
        pairs.append({(q, t % max(count, 1)) for q, t in zip(query, target, strict=True)})
    return pairs


def dino_leaves(case: Case) -> Leaves:
    """The predictions of a DINO or Focus-DETR case: all that has a gradient."""
    names = [key.removeprefix("grad_") for key in case.tensors if key.startswith("grad_")]
    return {name: case.tensors[name].clone().requires_grad_() for name in names}


def dino_targets(case: Case) -> list[Target]:
    """The targets of a DINO or Focus-DETR case, image by image."""
    count = len(case.meta["boxes_per_image"])
    stored = case.tensors
    return [Target(stored[f"target_{n}_labels"], stored[f"target_{n}_boxes"]) for n in range(count)]


def dino_outputs(case: Case, leaves: Leaves) -> Outputs:
    """Main queries first, denoising behind them."""
    logits, boxes = leaves["pred_logits"], leaves["pred_boxes"]
    groups = (Group("main", 0, logits.shape[2], Match()),)
    if case.meta["dn_meta"] is not None:
        logits = torch.cat((logits, leaves["dn_logits"]), 2)
        boxes = torch.cat((boxes, leaves["dn_boxes"]), 2)
        groups += (Group("denoising", groups[0].stop, logits.shape[2], _known(case)),)
    layers = tuple(Prediction(*pair) for pair in zip(logits, boxes, strict=True))
    proposed = "interm" if "interm_logits" in leaves else "enc"
    proposals = Proposed(leaves[f"{proposed}_logits"], leaves[f"{proposed}_boxes"])
    return Outputs(layers, proposals, groups)


def _known(case: Case) -> Known:
    """Slots of the denoising queries: group g holds target t of each image at g * width + t."""
    said = case.meta["dn_meta"]
    groups = said["num_dn_group"] if "num_dn_group" in said else said["dn_num"]
    size = case.tensors["dn_logits"].shape[2]
    counts = case.meta["boxes_per_image"]
    slots = torch.full((len(counts), groups, size // groups), -1)
    for row, count in enumerate(counts):
        slots[row, :, :count] = torch.arange(count)
    return Known(slots.flatten(1), groups)

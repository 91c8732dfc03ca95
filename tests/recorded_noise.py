"""The official random draws of a denoising case, put into our slots."""

import torch

from golden_data import Case
from leandetr.models.queries.denoising import Noise
from leandetr.types import Target


def targets_of(case: Case) -> list[Target]:
    """The stored ground truth."""
    t = case.tensors
    images = len(case.meta["boxes_per_image"])
    return [Target(t[f"target_{i}_labels"], t[f"target_{i}_boxes"]) for i in range(images)]


def recorded(case: Case):
    """A `draw` for `Denoising` that replays the case; unused slots draw zeros."""
    t = case.tensors
    prefix = "dn_" if "dn_label_rand" in t else ""
    counts = case.meta["boxes_per_image"]
    chance, sign, size = (t[prefix + key] for key in ("label_rand", "box_sign_bit", "box_rand"))
    ratio = case.meta["hyper_parameters"].get("dn_label_noise_ratio", 0.5) * 0.5
    label = torch.zeros(len(chance), dtype=torch.long)
    label[chance < ratio] = t[prefix + "new_label"]

    def draw(images, slots, classes, device):
        fullest = max(counts)
        noise = Noise(
            torch.ones(images, slots),
            torch.zeros(images, slots, dtype=torch.long),
            torch.ones(images, slots, 4),
            torch.zeros(images, slots, 4),
        )
        flat = 0
        for half in range(slots // max(fullest, 1)):
            for image, count in enumerate(counts):
                here = slice(half * fullest, half * fullest + count)
                there = slice(flat, flat + count)
                noise.label_chance[image, here] = chance[there]
                noise.label[image, here] = label[there]
                noise.sign[image, here] = sign[there] * 2 - 1
                noise.size[image, here] = size[there]
                flat += count
        assert flat == len(chance)
        return noise

    return draw

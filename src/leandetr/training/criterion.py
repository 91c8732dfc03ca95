"""What a batch of outputs costs: match, compare, weigh, add.

Every decoder layer is supervised, group by group, and so are the encoder's proposals. A group
says itself how its queries find their targets (`types.Match`, `types.Known`); nothing here
knows denoising or one-to-many matching by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from leandetr.training.losses import box_loss, focal_loss, giou_loss, one_hot_at
from leandetr.training.matcher import Matcher, PaddedTargets, Pairs, stack_layers
from leandetr.types import Group, Known, Match, Outputs, Prediction, Target


@dataclass(frozen=True)
class LossTerm:
    """One number of the loss, unweighted: `name` is term/group/layer, such as `labels/main/5`."""

    name: str
    value: Float[Tensor, ""]
    weight: float


@dataclass(frozen=True)
class Losses:
    """The weighted sum to go backward from, and the terms it is made of."""

    total: Float[Tensor, ""]
    terms: tuple[LossTerm, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the terms, in order."""
        return tuple(term.name for term in self.terms)

    @property
    def values(self) -> Float[Tensor, " terms"]:
        """Values of the terms, detached, in one tensor on their device."""
        return torch.stack([term.value.detach() for term in self.terms])

    def first_bad(self) -> str | None:
        """Name of the first term that is NaN or infinite, or None."""
        bad = (~self.values.isfinite()).nonzero()
        return self.terms[int(bad[0])].name if len(bad) else None


@dataclass(frozen=True)
class _Task:
    """Layers that share queries and a way to be assigned; `layered` adds the layer to names."""

    name: str
    layers: tuple[Prediction, ...]
    assign: Match | Known
    layered: bool = True

    def normaliser(self, held: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """What sums are divided by when the batch holds `held` boxes.

        The officials clamp before they repeat for denoising, and after for one-to-many.
        """
        if isinstance(self.assign, Known):
            return held.clamp(min=1) * self.assign.repeat
        return (held * self.assign.repeat).clamp(min=1)


class Criterion:
    """Outputs and targets to losses, numerically those of IDEA-Research/DINO:models/dino/dino.py.

    Sums are divided by the number of boxes in the batch, averaged over processes, at least 1;
    in a group that may use each target several times, by that many times more.
    """

    def __init__(
        self,
        matcher: Matcher,
        *,
        class_weight: float = 1.0,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        giou_eps: float = 1e-6,
    ) -> None:
        self.matcher = matcher
        self.class_weight = class_weight
        self.box_weight = box_weight
        self.giou_weight = giou_weight
        self.alpha = alpha
        self.gamma = gamma
        self.giou_eps = giou_eps

    def __call__(self, outputs: Outputs, targets: Sequence[Target]) -> Losses:
        """The losses of one batch; computed in float32 whatever autocast says.

        A batch without any box gives the class loss of background and zero box losses, still
        connected to every box that was predicted.
        """
        with torch.autocast(outputs.layers[0].boxes.device.type, enabled=False):
            padded = PaddedTargets.of(targets)
            held = average_boxes(padded)
            tasks = _tasks(outputs)
            total, terms = torch.zeros((), device=padded.boxes.device), []
            for task, pairs in zip(tasks, self._assign(tasks, padded), strict=True):
                for name, values, weight in self._compare(task, pairs, padded, held):
                    total = total + weight * values.sum()
                    terms += _terms(name, task, values, weight)
        return Losses(total, tuple(terms))

    def _assign(self, tasks: Sequence[_Task], targets: PaddedTargets) -> list[Pairs]:
        """The pairs of every task, with one copy from the device for all that need matching."""
        matched = [task for task in tasks if isinstance(task.assign, Match)]
        solved = iter(
            self.matcher([(task.layers, task.assign.repeat) for task in matched], targets)
        )
        return [
            known_pairs(task.assign.targets, len(task.layers))
            if isinstance(task.assign, Known)
            else next(solved)
            for task in tasks
        ]

    def _compare(
        self, task: _Task, pairs: Pairs, targets: PaddedTargets, held: Float[Tensor, ""]
    ) -> list[tuple[str, Float[Tensor, " Y"], float]]:
        """Name, value per layer and weight of each term of a task."""
        logits, predicted = stack_layers(task.layers)
        layer = torch.arange(len(logits), device=logits.device)[:, None]
        label = targets.labels[pairs.image, pairs.target]
        positive = one_hot_at(logits, pairs.image, pairs.query, label)
        found = predicted[layer, pairs.image, pairs.query]  # Y P 4
        wanted = targets.boxes[pairs.image, pairs.target]
        boxes = task.normaliser(held)
        labels = focal_loss(logits, positive, alpha=self.alpha, gamma=self.gamma)
        return [
            ("labels", labels / boxes, self.class_weight),
            ("boxes", box_loss(found, wanted) / boxes, self.box_weight),
            ("giou", giou_loss(found, wanted, eps=self.giou_eps) / boxes, self.giou_weight),
        ]


def average_boxes(targets: PaddedTargets) -> Float[Tensor, ""]:
    """Boxes in the batch, averaged over the processes of a distributed run."""
    count = targets.real.sum().float()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return count


def known_pairs(assigned: Int[Tensor, "N G"], layers: int) -> Pairs:
    """The pairs of queries that know their target; -1 is background and in no pair."""
    image, query = (assigned >= 0).nonzero(as_tuple=True)
    target = assigned[image, query]
    return Pairs(image, query.expand(layers, -1), target.expand(layers, -1))


def _tasks(outputs: Outputs) -> list[_Task]:
    """Every group over all layers, then the proposals."""
    tasks = [_group_task(outputs.layers, group) for group in outputs.groups]
    if outputs.proposals is not None:
        tasks.append(_Task("proposals", (outputs.proposals,), Match(), layered=False))
    return tasks


def _group_task(layers: Sequence[Prediction], group: Group) -> _Task:
    sliced = tuple(layer.slice(group.start, group.stop) for layer in layers)
    return _Task(group.name, sliced, group.assign)


def _terms(name: str, task: _Task, values: Float[Tensor, " Y"], weight: float) -> list[LossTerm]:
    ends = [f"/{index}" if task.layered else "" for index in range(len(task.layers))]
    return [
        LossTerm(f"{name}/{task.name}{end}", value, weight)
        for end, value in zip(ends, values.unbind(), strict=True)
    ]

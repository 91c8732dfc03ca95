"""What a batch of outputs costs: match, compare, weigh, add.

Every decoder layer is supervised, group by group, and so are the encoder's proposals, its own
heads and its scores, where it has them. A group says itself how its queries find their targets
(`types.Match`, `types.Known`); nothing here knows denoising or one-to-many matching by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from leandetr.training.classification import BACKGROUND, Classification
from leandetr.training.losses import box_loss, giou_loss
from leandetr.training.matcher import Matcher, PaddedTargets, Pairs, Problem, stack_layers
from leandetr.training.salience import salience_loss
from leandetr.types import Known, Match, Outputs, Prediction, Target


@dataclass(frozen=True)
class LossTerm:
    """One number of the loss, unweighted: `name` is term/group/layer, such as `labels/main/5`."""

    name: str
    value: Float[Tensor, ""]
    weight: float


@dataclass(frozen=True)
class Share:
    """What a batch is of the step that learns from it.

    The step has `held` boxes, averaged over processes; `part` is this batch's share of its images.
    """

    held: Float[Tensor, ""]
    part: float = 1.0


@dataclass(frozen=True)
class Losses:
    """The weighted sum to go backward from, and the terms it is made of."""

    total: Float[Tensor, ""]
    terms: tuple[LossTerm, ...]

    @classmethod
    def joined(cls, parts: Sequence["Losses"]) -> "Losses":
        """The losses of a step from those of its batches, each computed with its `Share`."""
        totals = torch.stack([losses.total.detach() for losses in parts])
        terms: dict[str, LossTerm] = {}
        for term in (term for losses in parts for term in losses.terms):
            former = terms[term.name].value if term.name in terms else 0
            terms[term.name] = replace(term, value=former + term.value.detach())
        return cls(totals.sum(), tuple(terms.values()))

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
class Weights:
    """What the terms count; `encoder` multiplies all terms of an encoder's own heads."""

    labels: float = 1.0
    boxes: float = 5.0
    giou: float = 2.0
    salience: float = 1.0
    encoder: float = 1.0


@dataclass(frozen=True)
class _Task:
    """Predictions over the same queries, each with a name, and how all find their targets.

    `weight` multiplies every term.
    """

    names: tuple[str, ...]
    layers: tuple[Prediction, ...]
    targets: PaddedTargets
    assign: Match | Known
    weight: float = 1.0

    def normaliser(self, held: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """What sums are divided by when the batch holds `held` boxes.

        The officials clamp before they repeat for denoising, and after for one-to-many.
        """
        if isinstance(self.assign, Known):
            return held.clamp(min=1) * self.assign.repeat
        return (held * self.assign.repeat).clamp(min=1)


class Criterion:
    """Outputs and targets to losses, numerically those of each paper's official SetCriterion.

    Sums are divided by the number of boxes in the batch, averaged over processes, at least 1;
    in a group that may use each target several times, by that many times more. `matcher` and
    `classification` must mean the same kind of logits.
    """

    def __init__(
        self,
        matcher: Matcher,
        classification: Classification,
        *,
        weights: Weights,
        giou_eps: float = 1e-6,
    ) -> None:
        self.matcher = matcher
        self.classification = classification
        self.weights = weights
        self.giou_eps = giou_eps

    def __call__(
        self, outputs: Outputs, targets: Sequence[Target], share: Share | None = None
    ) -> Losses:
        """The losses of one batch; computed in float32 whatever autocast says.

        Several batches of one step, each with its `share`, add up to the loss of one large batch.
        A batch without any box gives the class loss of background and zero box losses, still
        connected to every box that was predicted.
        """
        with torch.autocast(outputs.layers[0].boxes.device.type, enabled=False):
            padded = PaddedTargets.of(targets)
            share = share or Share(average_boxes(targets))
            tasks = _tasks(outputs, padded, self.weights.encoder)
            total, terms = torch.zeros((), device=padded.boxes.device), []
            for task, pairs in zip(tasks, self._assign(tasks), strict=True):
                for kind, values, weight in self._compare(task, pairs, share):
                    total = total + weight * values.sum()
                    terms += _named(kind, task, values, weight)
            if outputs.salience is not None:
                value = salience_loss(outputs, padded) * share.part
                terms.append(LossTerm("salience", value, self.weights.salience))
                total = total + self.weights.salience * value
        return Losses(total, tuple(terms))

    def _assign(self, tasks: Sequence[_Task]) -> list[Pairs]:
        """The pairs of every task, with one copy from the device for all that need matching."""
        solved = iter(
            self.matcher(
                [
                    Problem(task.layers, task.targets, task.assign.repeat)
                    for task in tasks
                    if isinstance(task.assign, Match)
                ]
            )
        )
        return [
            known_pairs(task.assign.targets, len(task.layers))
            if isinstance(task.assign, Known)
            else next(solved)
            for task in tasks
        ]

    def _compare(
        self, task: _Task, pairs: Pairs, share: Share
    ) -> list[tuple[str, Float[Tensor, " Y"], float]]:
        """Kind, value per layer and weight of each term of a task."""
        logits, predicted = stack_layers(task.layers)
        layer = torch.arange(len(logits), device=logits.device)[:, None]
        found = predicted[layer, pairs.image, pairs.query]  # Y P 4
        wanted = task.targets.boxes[pairs.image, pairs.target]
        classes = torch.full(logits.shape[:3], BACKGROUND, device=logits.device)
        classes[layer, pairs.image, pairs.query] = task.targets.labels[pairs.image, pairs.target]
        boxes, weights = task.normaliser(share.held), self.weights
        labels = self.classification.loss(logits, classes, boxes)
        if self.classification.averages:
            labels = labels * share.part
        overlap = giou_loss(found, wanted, eps=self.giou_eps) / boxes
        return [
            ("labels", labels, weights.labels * task.weight),
            ("boxes", box_loss(found, wanted) / boxes, weights.boxes * task.weight),
            ("giou", overlap, weights.giou * task.weight),
        ]


def average_boxes(targets: Sequence[Target]) -> Float[Tensor, ""]:
    """Boxes in a batch, averaged over the processes of a distributed run."""
    boxes = sum(target.boxes.shape[0] for target in targets)
    count = torch.tensor(float(boxes), device=targets[0].boxes.device)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(count)
        count = count / torch.distributed.get_world_size()
    return count


def known_pairs(assigned: Int[Tensor, "N G"], layers: int) -> Pairs:
    """The pairs of queries that know their target; -1 is background and in no pair."""
    image, query = (assigned >= 0).nonzero(as_tuple=True)
    target = assigned[image, query]
    return Pairs(image, query.expand(layers, -1), target.expand(layers, -1))


def _tasks(outputs: Outputs, targets: PaddedTargets, encoder_weight: float) -> list[_Task]:
    """Every group over all decoder layers, then the proposals, then the encoder's own heads.

    Layers of an encoder are a task each, since they may hold different numbers of tokens.
    """
    tasks = []
    for group in outputs.groups:
        layers = tuple(layer.slice(group.start, group.stop) for layer in outputs.layers)
        names = tuple(f"{group.name}/{index}" for index in range(len(layers)))
        tasks.append(_Task(names, layers, targets, group.assign, group.weight))
    if outputs.proposals is not None:
        wanted = targets.agnostic() if outputs.proposals.agnostic else targets
        tasks.append(_Task(("proposals",), (outputs.proposals,), wanted, Match()))
    for index, layer in enumerate(outputs.encoder_layers):
        tasks.append(_Task((f"encoder/{index}",), (layer,), targets, Match(), encoder_weight))
    return tasks


def _named(kind: str, task: _Task, values: Float[Tensor, " Y"], weight: float) -> list[LossTerm]:
    """One term a layer."""
    return [
        LossTerm(f"{kind}/{name}", value, weight)
        for name, value in zip(task.names, values.unbind(), strict=True)
    ]

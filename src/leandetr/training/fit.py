"""How many images a batch fit in memory: tried on a GPU, measured and reckoned on a processor.

    train("dino-r50", "my/data", "runs/mine", overrides=["train.batch=16"], fit_memory=True)

A step goes on learning from 16 images, in as many batches as it takes.
"""

import gc
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import psutil
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from leandetr.checkpoints import store
from leandetr.data.dataset import DetectionData
from leandetr.data.loader import Batch, DetectionSet
from leandetr.errors import TrainingError
from leandetr.evaluation.memory import peak_memory
from leandetr.recipes.assemble import build
from leandetr.recipes.recipe import Recipe
from leandetr.training.build import build_parts
from leandetr.training.criterion import Share
from leandetr.training.memory import is_out_of_memory
from leandetr.training.step import Parts, learn, update
from leandetr.types import Images, Target

if TYPE_CHECKING:
    from accelerate import Accelerator

log = logging.getLogger(__name__)

LOOKED_AT = 32
"""Images whose size after augmentation is looked at."""

SHARE = 0.9, 0.8
"""Of the free memory of a GPU, and beside it, what training may take; workers need some, too."""

OVERHEAD = 1.75
"""What a step takes on a processor over what its tensors do: scratch space inside operators, and
what the allocator keeps. Measured: 1.4 (a nano model in bf16) to 1.75 (one in fp32)."""

WAYS_OUT = (
    "type --set train.recompute=true, --set train.precision=bf16 or a smaller preprocess.short, "
    "or choose a smaller recipe"
)


@dataclass(frozen=True)
class Worst:
    """The largest that a batch may hold: the padded (height, width), and boxes in an image."""

    size: tuple[int, int]
    boxes: int

    @classmethod
    def of(cls, recipe: Recipe, data: DetectionData) -> "Worst":
        """What images measure as they are, and some of them augmented. Raises `DataError`."""
        how, count = recipe.train, len(data)
        shown = DetectionSet(data, recipe.preprocess, augment=how.augment, seed=how.seed)
        sizes = [recipe.preprocess.resized(*sample.size) for sample in data.samples]
        sizes += [shown.view(i).size for i in range(0, count, -(-count // LOOKED_AT))]
        height, width = (max(side) for side in zip(*sizes, strict=True))
        return cls((height, width), data.most_boxes)

    def batch(self, images: int, classes: int) -> Batch:
        """A batch of so many such images, of noise, on the CPU."""
        pixels = torch.randn(images, 3, *self.size)
        padding = torch.zeros(images, *self.size, dtype=torch.bool)
        targets = [
            Target(
                torch.randint(classes, (self.boxes,)),
                torch.rand(self.boxes, 4) * 0.5 + torch.tensor((0.25, 0.25, 0.0, 0.0)),
            )
            for _ in range(images)
        ]
        return Batch(Images(pixels, padding), targets, tuple(range(images)), (self.size,) * images)


class Alone:
    """What a step asks of Accelerate, for a process that waits for no other."""

    num_processes, process_index, is_main_process = 1, 0, True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def prepare_model(self, model: torch.nn.Module) -> torch.nn.Module:
        """The model as it is."""
        return model

    def no_sync(self, model: torch.nn.Module) -> Any:
        """Nothing to hold back."""
        del model
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients."""
        loss.backward()


def fit_to_memory(recipe: Recipe, data: DetectionData, accelerator: "Accelerator") -> Recipe:
    """The recipe with the largest batches that fit, and as many images a step as before.

    All processes have to ask for it at the same time, before any of them has a model.
    """
    how, device = recipe.train, accelerator.device
    total, worst = how.batch * how.accumulate, Worst.of(recipe, data)
    counts = [count for count in range(total, 0, -1) if total % count == 0]
    look = _measured if device.type == "cpu" else _tried
    batch, told = look(recipe, worst, counts, accelerator)
    if accelerator.num_processes > 1:
        from accelerate.utils import gather_object

        batch = min(gather_object([batch]))
    if accelerator.is_main_process:
        height, width = worst.size
        several = " a process" * (accelerator.num_processes > 1)
        changed = "train.batch and train.accumulate stay"
        if batch != how.batch:
            changed = f"train.batch: {how.batch} -> {batch}, "
            changed += f"train.accumulate: {how.accumulate} -> {total // batch}"
        log.info(
            "memory: batches of %d, of images of up to %d x %d pixels with %d boxes (%s); so %s, "
            "and a step learns from %d images%s",
            *(batch, height, width, worst.boxes, told, changed, total, several),
        )
    return recipe.with_train(batch=batch, accumulate=total // batch)


def as_before(recipe: Recipe, out: Path) -> Recipe:
    """The recipe with the batches of the run in `out`, if a step learns from as many images."""
    last = out / "last"
    if not (last / store.RECIPE).exists():
        return recipe
    how, before = recipe.train, store.read_recipe(last).train
    if before.batch * before.accumulate != how.batch * how.accumulate:
        return recipe
    return recipe.with_train(batch=before.batch, accumulate=before.accumulate)


def _tried(
    recipe: Recipe, worst: Worst, counts: Sequence[int], accelerator: "Accelerator"
) -> tuple[int, str]:
    """The first of `counts` whose steps do not run out of memory, and what it took.

    Raises `TrainingError` if there is none.
    """
    device, several = accelerator.device, accelerator.num_processes > 1
    room = SHARE[0] * free_memory(device)
    for count in counts:
        peak = _peak_of_trial(recipe, worst, count, device, several)
        _free(device)
        if peak is not None and (peak <= room or count == 1):
            return count, f"tried, {_bytes(peak)} of {_bytes(room)}"
    height, width = worst.size
    raise TrainingError(
        f"expected memory for at least one image of {height} x {width} pixels with {worst.boxes} "
        f"boxes, but a step with it runs out of {_bytes(room)}; {WAYS_OUT}"
    )


def _peak_of_trial(
    recipe: Recipe, worst: Worst, count: int, device: torch.device, several: bool
) -> int | None:
    """Bytes that two steps of `count` images take; None if there are not so many."""
    try:
        start = _allocated(device)
        parts = _trial(recipe, device)
        # processes that learn together keep another copy of the gradients
        spare = [torch.empty_like(p) for p in parts.model.parameters() if several]
        for _ in range(2):
            _step(parts, worst, count)
        del spare
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    return _allocated(device) - start


def _measured(
    recipe: Recipe, worst: Worst, counts: Sequence[int], accelerator: "Accelerator"
) -> tuple[int, str]:
    """The first of `counts` that has room, reckoned from steps of one image and of two."""
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE") or accelerator.num_processes)
    room = SHARE[1] * free_memory(accelerator.device) / neighbours
    parts = _trial(recipe, accelerator.device)
    _step(parts, worst, 1)  # the optimiser's averages are made
    resting = sum(tensor.nbytes for tensor in _lasting(parts))
    one = more = OVERHEAD * peak_memory(lambda: _step(parts, worst, 1), accelerator.device)
    if resting + 2 * one <= room:
        two = peak_memory(lambda: _step(parts, worst, 2), accelerator.device)
        more = OVERHEAD * two - one
    for count in counts:
        need = resting + one + (count - 1) * more
        if need <= room:
            return count, f"measured, about {_bytes(need)} of {_bytes(room)}"
    log.warning("memory: even one image a batch may be too much; %s", WAYS_OUT)
    return 1, f"measured, about {_bytes(resting + one)} of {_bytes(room)}"


def _trial(recipe: Recipe, device: torch.device) -> Parts:
    """A model with all that training needs, to be thrown away."""
    parts = build_parts(recipe, build(recipe), cast("Accelerator", Alone(device)), 1)
    parts.model.train()
    return replace(parts, scaler=GradScaler(enabled=False))  # a skipped step would take less


def _step(parts: Parts, worst: Worst, images: int) -> None:
    batch = worst.batch(images, parts.model.recipe.model.classes).to(parts.accelerator.device)
    held = torch.tensor(float(max(images * worst.boxes, 1)), device=parts.accelerator.device)
    learn(parts, batch, Share(held))
    update(parts)


def _lasting(parts: Parts) -> Iterator[Tensor]:
    """What is in memory from one step to the next."""
    for model in (parts.model, *([] if parts.ema is None else [parts.ema])):
        yield from model.parameters()
        yield from model.buffers()
    for state in parts.optimiser.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device; on a processor within the limit of a container, too."""
    if device.type == "cuda":
        _free(device)
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        lines = (group / "memory.stat").read_text().splitlines()
        cached = {name: int(size) for name, size in map(str.split, lines)}["inactive_file"]
    except (OSError, ValueError, KeyError):  # no such group, or the word max
        return free
    return min(free, max(limit - used + cached, 0))


def _allocated(device: torch.device) -> int:
    """Most bytes in use so far, since the memory was freed; 0 where nobody counts."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _bytes(size: int | float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"

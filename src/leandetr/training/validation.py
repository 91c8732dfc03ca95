"""Validation by every process of a run: each looks at its share, the first one scores them all."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from leandetr.data.dataset import DetectionData, to_coco
from leandetr.evaluation.coco import CocoScores, score
from leandetr.evaluation.evaluate import category_of, detect
from leandetr.models.detector import Detector

if TYPE_CHECKING:
    from accelerate import Accelerator


class Validation:
    """Scores a model on `data`, every image once, however many processes share the work.

    All processes have to call it; only the first gets scores. Raises `DataError` when it is made
    if `data` has a class that the model lacks.
    """

    def __init__(
        self,
        data: DetectionData,
        model: Detector,
        *,
        accelerator: "Accelerator",
        batch: int,
        workers: int,
    ) -> None:
        category_of(model, data)
        self.data = data
        self.accelerator = accelerator
        self.batch = batch
        self.workers = workers

    def __call__(self, model: Detector) -> CocoScores | None:
        """The scores, on the first process."""
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        if processes > 1:
            _share_buffers(model)
        mine = replace(self.data, samples=self.data.samples[process::processes])
        found = detect(model, mine, batch=self.batch, workers=self.workers) if len(mine) else []
        if processes > 1:
            from accelerate.utils import gather_object

            found = gather_object(found)
        return score(to_coco(self.data), found) if self.accelerator.is_main_process else None


def _share_buffers(model: Detector) -> None:
    """Statistics of batch norms become the first process's, which are those that are saved."""
    for buffer in model.buffers():
        torch.distributed.broadcast(buffer, src=0)

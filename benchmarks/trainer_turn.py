"""What one turn of a training benchmark does, on every side alike."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from leandetr.data.dataset import DetectionData
from leandetr.images import Preprocess


@dataclass(frozen=True)
class Turn:
    """What a turn trains on and for how long: `warm` steps that do not count, then `steps`."""

    data: DetectionData
    side: int
    batch: int
    warm: int
    steps: int
    workers: int

    @property
    def preprocess(self) -> Preprocess:
        """Short side `side`, long side as in DETR's 800 by 1333."""
        return Preprocess(self.side, self.side * 1333 // 800)

    @property
    def pictures(self) -> DetectionData:
        """The photos, over and over: enough for one epoch of all steps."""
        needed = self.batch * (self.warm + self.steps)
        times = -(-needed // len(self.data))
        return replace(self.data, samples=(self.data.samples * times)[:needed])

    def pace(self, marks: Sequence[float]) -> float:
        """Images a second, from the times at which steps ended."""
        if len(marks) != self.warm + self.steps:
            raise SystemExit(f"expected {self.warm + self.steps} steps; got {len(marks)}")
        return self.batch * self.steps / (marks[-1] - marks[self.warm - 1])

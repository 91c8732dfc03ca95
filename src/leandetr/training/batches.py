"""Which images make up which batch: seeded, another order each epoch, able to start anywhere."""

import signal
from collections.abc import Iterator
from itertools import islice

import torch
from torch.utils.data import DataLoader, Sampler

from leandetr.data.loader import Batch, DetectionSet, collate


class EpochBatches(Sampler[list[int]]):
    """Shuffled batches of indices, a function of (seed, epoch) alone.

    Every process of a distributed run gets an equal share; a share that comes out short is filled
    from the start of the order. An incomplete last batch is dropped unless it is the only one. In
    an epoch of several `rounds` every index comes so many times.
    """

    def __init__(
        self,
        items: int,
        batch: int,
        *,
        seed: int,
        process: int = 0,
        processes: int = 1,
        rounds: int = 1,
    ) -> None:
        self.items = items
        self.batch = batch
        self.seed = seed
        self.rounds = rounds
        self.process = process
        self.processes = processes
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Iterate over `epoch` next, leaving out its first `start` batches."""
        self.epoch = epoch
        self.start = start

    def __len__(self) -> int:
        return max(self._share // self.batch, 1)

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order: list[int] = []
        for _ in range(self.rounds):
            order += torch.randperm(self.items, generator=generator).tolist()
        order = (order * self.processes)[: self._share * self.processes]
        mine = order[self.process :: self.processes]
        for index in range(self.start, len(self)):
            yield mine[index * self.batch : (index + 1) * self.batch]

    @property
    def _share(self) -> int:
        """Images an epoch and process."""
        return -(-self.items * self.rounds // self.processes)


class Batches:
    """The batches of every epoch, made by workers that stay; the same whatever their number.

    Nothing is drawn from the global random state.
    """

    def __init__(self, data: DetectionSet, order: EpochBatches, *, workers: int = 0) -> None:
        self.data = data
        self._order = order
        self._loader = DataLoader(
            data,
            batch_sampler=order,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            worker_init_fn=_leave_signals,
            generator=torch.Generator().manual_seed(order.seed),
        )

    def __len__(self) -> int:
        return len(self._order)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of `epoch`, without its first `start`."""
        self.data.set_epoch(epoch)
        self._order.set_epoch(epoch, start)
        yield from self._loader


def steps(batches: Iterator[Batch], size: int) -> Iterator[list[Batch]]:
    """The batches of one step after another, `size` each; the last may be fewer."""
    while step := list(islice(batches, size)):
        yield step


def _leave_signals(worker: int) -> None:
    """Ctrl-C is for the main process, which ends its step and then its workers."""
    del worker
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

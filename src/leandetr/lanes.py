"""Batches side by side on one processor: each on its share of PyTorch's threads.

Threads that share a batch wait for each other after every operator, and while Python decides which
comes next all of them wait. Two batches at a time, each on half of the threads, leave fewer gaps:
docs/benchmarks.md, "Feeding", has what that gains.

    with Lanes(model, batch=8) as lanes:
        found = list(lanes.map(look, batches))  # of lanes.share images each
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import nn

MOST = 2
"""Batches at a time: two fill the gaps, and Python itself is a queue for more."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def lanes_of(model: nn.Module, batch: int) -> int:
    """How many lanes a model should have where `batch` images may be under way at once.

    One on a GPU, for a single image or thread, and where a lane would compute something else:
    autocast belongs to the thread that switched it on. Also for a compiled model, whose pieces
    are made in the first call.
    """
    weight = next(model.parameters(), None)
    elsewhere = weight is not None and weight.device.type != "cpu"
    compiled = any(part._compiled_call_impl is not None for part in model.modules())
    if elsewhere or compiled or torch.is_autocast_enabled("cpu"):
        return 1
    return max(1, min(MOST, batch, torch.get_num_threads()))


class Lanes:
    """Threads that work side by side within a `with` block; where one is best, the caller works.

    `share` is the images of a lane's batch, so that no more than `batch` are under way. The model
    is in evaluation mode meanwhile.
    """

    def __init__(self, model: nn.Module, batch: int) -> None:
        self.count = lanes_of(model, batch)
        self.share = max(1, batch // self.count)
        self._model = model
        self._trains = model.training
        self._pool: ThreadPoolExecutor | None = None

    def map(self, work: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
        """`work` of every item, in order; an item is asked for when its turn is near.

        What an item raises is raised in its place, and nothing further is begun.
        """
        if self._pool is None:
            yield from map(work, items)
            return
        waiting: deque[Future[Answer]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(work, item))
                if len(waiting) > self.count:  # one beyond those at work, so that none runs dry
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()

    def __enter__(self) -> "Lanes":
        self._model.eval()
        try:
            if self.count > 1:
                self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
        self._model.train(self._trains)

    def _start(self) -> None:
        """Start every thread, and give each its share of PyTorch's.

        PyTorch's number is the calling thread's, but also the one that other threads begin with
        when they first ask for it: each lane asks at once, and only then the caller sets its own
        again.
        """
        threads = torch.get_num_threads()
        together = threading.Barrier(self.count + 1)

        def begin() -> None:
            torch.set_num_threads(max(1, threads // self.count))
            torch.get_num_threads()
            together.wait()

        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="leandetr-lane")
        try:
            for _ in range(self.count):
                self._pool.submit(begin)
            together.wait()
        finally:
            together.abort()  # no lane waits for one that could not be started
            torch.set_num_threads(threads)

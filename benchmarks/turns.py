"""Times that may be compared: what is measured takes turns, and the shortest of each counts."""

import time
from collections.abc import Callable, Mapping

import torch


def clock() -> float:
    """Seconds: of the processor with one thread, where others do not count; else of the wall."""
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def unit() -> str:
    """What `clock` tells."""
    return "processor time" if torch.get_num_threads() == 1 else "wall time"


def best_of(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The shortest milliseconds of each call; they take turns."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            began = clock()
            call()
            best[name] = min(best[name], 1000 * (clock() - began))
    return best

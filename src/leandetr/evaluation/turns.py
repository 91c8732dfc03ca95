"""Times that may be compared: models take turns, so that whatever slows one slows all of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

Result = TypeVar("Result")
Item = TypeVar("Item")


def timed(call: Callable[[], Result], device: torch.device) -> tuple[Result, float]:
    """What `call` returns, and the milliseconds until the device was done with it."""
    _wait(device)
    began = time.perf_counter()
    result = call()
    _wait(device)
    return result, 1000 * (time.perf_counter() - began)


def in_turn(items: Sequence[Item], round_number: int) -> Iterator[Item]:
    """All items; each round starts with the next one, so that none always follows the same."""
    for place in range(len(items)):
        yield items[(place + round_number) % len(items)]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

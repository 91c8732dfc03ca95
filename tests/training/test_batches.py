from itertools import chain

import pytest
import torch

from leandetr.training.batches import EpochBatches, steps


def batches(order: EpochBatches, epoch: int, start: int = 0) -> list[list[int]]:
    order.set_epoch(epoch, start)
    return list(order)


def test_an_epoch_is_a_function_of_seed_and_number() -> None:
    first, second = EpochBatches(20, 4, seed=1), EpochBatches(20, 4, seed=1)
    torch.manual_seed(5)
    batches(first, 0)
    assert batches(first, 3) == batches(second, 3)
    assert batches(first, 3) != batches(first, 4)
    assert batches(first, 3) != batches(EpochBatches(20, 4, seed=2), 3)
    assert sorted(chain(*batches(first, 3))) == list(range(20))


def test_an_epoch_can_start_in_the_middle() -> None:
    order = EpochBatches(20, 4, seed=0)
    whole = batches(order, 2)
    assert batches(order, 2, start=3) == whole[3:]
    assert len(order) == 5


@pytest.mark.parametrize(("items", "expected"), [(9, [4, 4]), (8, [4, 4]), (3, [3]), (4, [4])])
def test_an_incomplete_batch_is_dropped_unless_alone(items: int, expected: list[int]) -> None:
    order = EpochBatches(items, 4, seed=0)
    assert [len(batch) for batch in order] == expected
    assert len(order) == len(expected)


@pytest.mark.parametrize("items", [1, 7, 8])
def test_processes_share_an_epoch_evenly(items: int) -> None:
    shares = [EpochBatches(items, 1, seed=0, process=one, processes=3) for one in range(3)]
    taken = [list(chain(*batches(share, 0))) for share in shares]
    assert len({len(one) for one in taken}) == 1
    assert set(chain(*taken)) == set(range(items))


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    batches(EpochBatches(20, 4, seed=1), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_step_takes_so_many_batches_and_the_last_what_is_left() -> None:
    found = list(steps(iter("abcde"), 2))  # pyright: ignore[reportArgumentType]
    assert found == [["a", "b"], ["c", "d"], ["e"]]

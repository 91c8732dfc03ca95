"""Images of one shape share a batch, and none is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leandetr.batching import arrange, padding_share

sides = st.integers(1, 5)
shapes = st.lists(st.tuples(sides, sides), max_size=30)


@given(shapes, st.integers(1, 6), st.sampled_from([0.0, 0.1, 0.5]))
def test_every_image_is_in_one_batch_and_none_has_too_much_padding(
    sizes: list[tuple[int, int]], most: int, padding: float
) -> None:
    batches = arrange(sizes, most, padding=padding)
    assert sorted(index for batch in batches for index in batch) == list(range(len(sizes)))
    assert [batch[0] for batch in batches] == sorted(batch[0] for batch in batches)
    for batch in batches:
        assert 1 <= len(batch) <= most
        assert batch == sorted(batch)
        assert padding_share([sizes[index] for index in batch]) <= padding


@given(shapes, st.integers(1, 6))
def test_without_padding_there_are_no_more_batches_than_shapes_ask_for(
    sizes: list[tuple[int, int]], most: int
) -> None:
    needed = sum(-(-sizes.count(size) // most) for size in set(sizes))
    assert len(arrange(sizes, most)) == needed


def test_padding_share_is_what_the_largest_sides_leave() -> None:
    assert padding_share([(2, 2), (4, 2)]) == pytest.approx(4 / 16)
    assert padding_share([(2, 4), (4, 2)]) == pytest.approx(0.5)
    assert padding_share([(3, 7)]) == 0

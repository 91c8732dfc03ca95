"""Names beside points: no two overlap, none leaves the picture or hides a point or a line."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from leandetr.evaluation.label_places import Box, place

FRAME = Box(0.0, 0.0, 1000.0, 600.0)
SIZE = (90.0, 14.0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, unique=True))
def test_names_with_room_stay_apart_and_inside(cells: list[tuple[int, int]]) -> None:
    points = [(100.0 * x + 50, 60.0 * y + 30) for x, y in cells[:12]]
    boxes = place(points, [SIZE] * len(points), FRAME, gap=6.0)
    for box, other in itertools.combinations(boxes, 2):
        assert box.overlap(other) == 0
    for box in boxes:
        assert box.overlap(FRAME) == box.area


def test_a_crowd_is_named_without_overlap() -> None:
    points = [(500.0 + 7 * i, 300.0 + 5 * (i % 3)) for i in range(8)]
    boxes = place(points, [SIZE] * 8, FRAME, gap=6.0)
    assert all(a.overlap(b) == 0 for a, b in itertools.combinations(boxes, 2))


def test_a_name_steps_aside_for_a_line_and_for_the_edge() -> None:
    free, crossed = (
        place([(500.0, 300.0)], [SIZE], FRAME, gap=6.0, lines=lines)[0]
        for lines in ([], [((500.0, 300.0), (900.0, 300.0))])
    )
    line = Box(510.0, 299.0, 900.0, 301.0)
    assert free.overlap(line) > 0
    assert crossed.overlap(line) == 0
    (at_edge,) = place([(990.0, 300.0)], [SIZE], FRAME, gap=6.0)
    assert at_edge.right < 990


def test_the_nearest_place_of_a_name() -> None:
    assert Box(0.0, 0.0, 10.0, 4.0).nearest((12.0, 2.0)) == (10, 2)
    assert Box(0.0, 0.0, 10.0, 4.0).nearest((5.0, 9.0)) == (5, 4)

"""Deal images into splits so that every class has its share in each: seeded and stratified.

After Sechidis et al., "On the Stratification of Multi-Label Data" (ECML PKDD 2011): the rarest
class is dealt first, each of its images to the split that lacks most of that class.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from leandetr.data.dataset import DetectionData
from leandetr.data.twins import origin, same_bytes
from leandetr.errors import DataError


def split(data: DetectionData, shares: Mapping[str, float], seed: int) -> dict[str, list[int]]:
    """Indices of the images of each split; copies of one image stay together.

    Every split gets at least one image. Raises `DataError` for shares that cannot be dealt.
    """
    if any(not 0 < share < 1 for share in shares.values()) or len(shares) < 2:
        said = ", ".join(f"{name} {round(share, 6):g}" for name, share in shares.items())
        raise DataError(f"expected shares above 0 that leave some for train, got {said}")
    groups = _groups(data)
    if len(groups) < len(shares):
        raise DataError(
            f"{data.name}: {len(data)} images ({len(groups)} different) cannot be dealt into "
            f"{len(shares)} splits; add images, or ask for fewer splits"
        )
    room = shared(len(data), {name: share * 1e6 for name, share in shares.items()}, least=1)
    return _deal(data, groups, room, seed)


def pick(data: DetectionData, count: int, seed: int) -> list[int]:
    """Indices of `count` images, each class about as often as in all."""
    rest = len(data) - count
    if rest == 0:
        return list(range(len(data)))
    groups = [[index] for index in range(len(data))]
    return _deal(data, groups, {"picked": count, "rest": rest}, seed)["picked"]


def shared(count: int, weights: Mapping[str, float | int], least: int = 0) -> dict[str, int]:
    """`count` in whole numbers, proportional to `weights`; the largest remainders round up."""
    total = sum(weights.values())
    exact = {name: count * weight / total for name, weight in weights.items()}
    parts = {name: max(least, int(number)) for name, number in exact.items()}
    order = sorted(exact, key=lambda name: exact[name] - int(exact[name]), reverse=True)
    for name in order:
        if sum(parts.values()) < count:
            parts[name] += 1
    while sum(parts.values()) > count:
        parts[max(parts, key=lambda name: parts[name])] -= 1
    return parts


def _groups(data: DetectionData) -> list[list[int]]:
    """Images that have to stay together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    paths = [sample.path for sample in data.samples]
    together = same_bytes(paths)
    made: dict[str, list[int]] = {}
    for index, path in enumerate(paths):
        if (name := origin(path)) is not None:
            made.setdefault(name, []).append(index)
    bonds = [(first, one) for first, *rest in (*together, *made.values()) for one in rest]
    ends = np.array(bonds, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(bonds)), (ends[0], ends[1])), shape=(len(paths), len(paths)))
    found: dict[int, list[int]] = {}
    for index, one in enumerate(connected_components(graph, directed=False)[1].tolist()):
        found.setdefault(one, []).append(index)
    return list(found.values())


@dataclass
class _Hand:
    """What one split still lacks: images in all, and images of each class."""

    room: int
    wanted: dict[int, float]

    def take(self, size: int, classes: Mapping[int, int]) -> None:
        self.room -= size
        for label, number in classes.items():
            self.wanted[label] -= number


def _deal(
    data: DetectionData, groups: Sequence[list[int]], room: Mapping[str, int], seed: int
) -> dict[str, list[int]]:
    """Groups of images to splits with `room` for so many images each."""
    order = np.random.default_rng(seed).permutation(len(groups)).tolist()
    held = [_classes(data, group) for group in groups]
    totals = sum(held, Counter())
    hands = {
        name: _Hand(size, {label: n * size / len(data) for label, n in totals.items()})
        for name, size in room.items()
    }
    dealt: dict[str, list[int]] = {name: [] for name in room}
    left = dict.fromkeys(order)  # an ordered set
    lists = {label: [one for one in order if held[one][label]] for label in totals}

    def give(one: int, label: int | None) -> None:
        size = len(groups[one])

        def lack(name: str) -> tuple[bool, float, int]:
            hand = hands[name]
            wanted = 0.0 if label is None else hand.wanted[label]
            return hand.room >= min(size, 1), wanted, hand.room

        empty = [name for name in hands if not dealt[name]]
        name = max(hands if len(left) > len(empty) else empty, key=lack)
        hands[name].take(size, held[one])
        dealt[name] += groups[one]
        del left[one]

    for label in sorted(totals, key=lambda label: (len(lists[label]), label)):
        for one in lists[label]:
            if one in left:
                give(one, label)
    for one in list(left):
        give(one, None)
    return dealt


def _classes(data: DetectionData, group: Sequence[int]) -> Counter[int]:
    """How many images of a group hold each class."""
    return Counter(label for index in group for label in set(data.samples[index].labels.tolist()))

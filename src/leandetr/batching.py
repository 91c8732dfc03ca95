"""Which images share a batch: those of one shape, so that nothing is padding.

A convolution sees the border of an image in its padding, so what is found in a padded image is a
little different from what is found in the same image alone. In batches of one shape it is not.
"""

from collections.abc import Sequence

Size = tuple[int, int]
"""(height, width) in pixels, as prepared for the network."""


def arrange(sizes: Sequence[Size], most: int, *, padding: float = 0.0) -> list[list[int]]:
    """Indices of `sizes` in batches of at most `most`, none with a larger share of padding.

    Indices rise within a batch, and batches come in the order of their first ones. With `padding`
    above 0, images of similar shape join: the tall ones first, the wide ones last.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: (sizes[i][0] / sizes[i][1], sizes[i], i)):
        last = batches[-1] if batches else []
        fits = padding_share([sizes[i] for i in (*last, index)]) <= padding
        if 0 < len(last) < most and fits:
            last.append(index)
        else:
            batches.append([index])
    return sorted(sorted(batch) for batch in batches)


def padding_share(sizes: Sequence[Size]) -> float:
    """Share of the pixels of a batch of such images that is padding."""
    whole = len(sizes) * max(height for height, _ in sizes) * max(width for _, width in sizes)
    return 1 - sum(height * width for height, width in sizes) / whole

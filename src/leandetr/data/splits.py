"""Names of splits: what people call the one for training, for choosing and for the last word."""

from collections.abc import Iterable

from leandetr.errors import DataError
from leandetr.registry import did_you_mean

ALIKE = {
    "train": ("train", "training", "trainset", "train2017", "train2014", "train2012", "train2007"),
    "val": ("val", "valid", "validation", "dev", "val2017", "val2014", "val2012", "val2007"),
    "test": ("test", "testing", "testset", "test2017", "test2012", "test2007"),
}
"""Names that mean the same, the usual one as the key; case does not count."""


def usual(split: str) -> str:
    """What a split is called here: valid, Validation and val2017 are all val."""
    lower = split.lower()
    return next((name for name, others in ALIKE.items() if lower in others), split)


def in_order(split: str) -> tuple[int, str]:
    """A key to sort by: train, val, test, and then the others by name."""
    return ([*ALIKE, usual(split)].index(usual(split)), split)


def match(asked: str, known: Iterable[str]) -> str | None:
    """The split that is meant by `asked`: the one of this name, or the only one alike."""
    names = list(known)
    if asked in names:
        return asked
    alike = [name for name in names if usual(name) == usual(asked)]
    return alike[0] if len(alike) == 1 else None


def no_split(root: object, split: str, known: Iterable[str], looked: str) -> DataError:
    """The error that says which splits there are instead."""
    names = sorted(known)
    near = f"{did_you_mean(split, names)} " if names else ""
    return DataError(
        f"{root}: no split '{split}'; {near}"
        f"(looked for {looked}; splits found: {', '.join(names) or 'none'})"
    )

"""Every error LeanDETR raises on purpose.

LeanDetrError
├── RecipeError          a recipe, preset name or override that cannot be built
├── ImageError           one image that cannot be used
│   ├── UnreadableImage      not an image, truncated, empty
│   └── ImageTooLarge        more pixels than the limit allows
├── DataError            a data set or annotation file that cannot be used
├── CheckpointError      a weights file or model folder that cannot be used
│   └── CheckpointMismatch   keys or shapes differ from the model's
├── OutputExists         the command would overwrite what a user made
├── NetworkUnavailable   a download was needed and could not be had
├── TrainingError        a run that cannot start or go on
├── UncountedOperator    work whose multiply-adds nobody knows
└── MissingExtra         an optional dependency is not installed

A message says what was expected, what came, and what to type next.
"""


class LeanDetrError(Exception):
    """Base of all errors raised on purpose: catch it to catch them all."""


class RecipeError(LeanDetrError):
    """A recipe, preset name or override that cannot be built."""


class ImageError(LeanDetrError):
    """One image that cannot be used; the others of a batch still can."""


class UnreadableImage(ImageError):
    """The file is empty, truncated or not an image."""


class ImageTooLarge(ImageError):
    """The image has more pixels than the limit, which the caller can raise."""


class DataError(LeanDetrError):
    """A data set or annotation file that cannot be used."""


class CheckpointError(LeanDetrError):
    """A weights file or model folder that cannot be used."""


class CheckpointMismatch(CheckpointError):
    """The keys or shapes of a weights file differ from those of the model."""


class OutputExists(LeanDetrError):
    """The command would overwrite something a user made."""


class NetworkUnavailable(LeanDetrError):
    """A download was needed and could not be had; the message names the file to fetch by hand."""


class TrainingError(LeanDetrError):
    """A training run that cannot start or cannot go on."""


class UncountedOperator(LeanDetrError):
    """An operator whose multiply-adds nobody has said: a count without it would be wrong."""


class MissingExtra(LeanDetrError):
    """An optional dependency is not installed."""

    def __init__(self, doing: str, package: str, extra: str) -> None:
        """Say what needed the package: `MissingExtra("drawing", "supervision", "viz")`."""
        super().__init__(f"{doing} needs {package}; type: pip install 'leandetr[{extra}]'")

"""The values that flow from images to boxes; every stage takes one of them and returns the next.

Axes, here and everywhere: N images, S tokens (of all levels, finest first), L levels, C channels,
Q queries, K classes, T targets, H W rows and columns.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Shapes = tuple[tuple[int, int], ...]
"""(H, W) of every level, finest first; always Python ints, never a tensor."""


@dataclass(frozen=True)
class Images:
    """A batch of normalised images, zero-padded right and bottom; `padding` is True there."""

    pixels: Float[Tensor, "N 3 H W"]
    padding: Bool[Tensor, "N H W"]

    @property
    def extent(self) -> Int[Tensor, "N 2"]:
        """Height and width of each image without its padding, in pixels."""
        return torch.stack([(~self.padding).any(dim).sum(1) for dim in (2, 1)], dim=1)

    def to(self, device: torch.device | str) -> "Images":
        """The same batch on another device."""
        return Images(self.pixels.to(device), self.padding.to(device))


@dataclass(frozen=True)
class FeatureMaps:
    """What a backbone sees, finest level first, with the image's padding at each level's size."""

    maps: tuple[Float[Tensor, "N _ _ _"], ...]
    padding: tuple[Bool[Tensor, "N _ _"], ...]


@dataclass(frozen=True)
class Tokens:
    """All cells of all levels in one row, finest level first.

    `position` carries the sine embedding plus the level embedding. `valid_ratios` is the (x, y)
    share of each level that is not padding.
    """

    features: Float[Tensor, "N S C"]
    position: Float[Tensor, "N S C"]
    padding: Bool[Tensor, "N S"]
    valid_ratios: Float[Tensor, "N L 2"]
    shapes: Shapes

    @property
    def starts(self) -> tuple[int, ...]:
        """Index of the first token of each level."""
        starts = [0]
        for height, width in self.shapes[:-1]:
            starts.append(starts[-1] + height * width)
        return tuple(starts)

    def level(self, index: int) -> Float[Tensor, "N HW C"]:
        """Features of one level."""
        height, width = self.shapes[index]
        start = self.starts[index]
        return self.features[:, start : start + height * width]

    def with_features(self, features: Float[Tensor, "N S C"]) -> "Tokens":
        """The same grid with other features."""
        return replace(self, features=features)


@dataclass(frozen=True)
class Prediction:
    """Class logits and boxes: cxcywh in (0,1) of each unpadded image."""

    logits: Float[Tensor, "N Q K"]
    boxes: Float[Tensor, "N Q 4"]

    def slice(self, start: int, stop: int) -> "Prediction":
        """The predictions of queries `start` to `stop`."""
        return Prediction(self.logits[:, start:stop], self.boxes[:, start:stop])


@dataclass(frozen=True)
class Proposed(Prediction):
    """Boxes that tokens propose. With `agnostic` they are trained to be an object, as class 0."""

    agnostic: bool = False


@dataclass(frozen=True)
class Match:
    """Queries find their targets by Hungarian matching; each target may be used `repeat` times."""

    repeat: int = 1


@dataclass(frozen=True)
class Known:
    """Queries know their target: its index within the image's targets, or -1 for background.

    `repeat` is how many queries of the group hold each target; losses are divided by it.
    """

    targets: Int[Tensor, "N G"]
    repeat: int


@dataclass(frozen=True)
class Group:
    """Queries `start` to `stop` share one way to be assigned to targets.

    `weight` multiplies all losses of the group (`lambda` of H-DETR's one-to-many branch).
    """

    name: str
    start: int
    stop: int
    assign: Match | Known
    weight: float = 1.0


@dataclass(frozen=True)
class Sight:
    """What `rows` queries in a row see: queries `start` to `stop`, but those `hidden` from them."""

    rows: int
    start: int
    stop: int
    hidden: Bool[Tensor, "rows seen"] | None = None


@dataclass(frozen=True)
class Queries:
    """What the decoder asks with.

    `reference` is in (0,1) of the unpadded image: points (R = 2) or boxes cxcywh (R = 4).
    `sights` are those of all queries, in order; with none of them, everybody sees everybody.
    """

    content: Float[Tensor, "N Q C"]
    position: Float[Tensor, "N Q C"] | None
    reference: Float[Tensor, "N Q R"] | None
    sights: tuple[Sight, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Foreground:
    """Scores learn from the boxes: a token inside an object of its level's size is to score high.

    `limits` are (above, up to) of each level, finest first, in pixels of the network's input: which
    distances from token to farthest side of a box are its business (Focus-DETR, section 3.2).
    """

    limits: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Attention:
    """Scores learn from where the decoder looks most: at `counts[n]` tokens (Sparse DETR)."""

    counts: Int[Tensor, " N"]


@dataclass(frozen=True)
class Salience:
    """What a scoring encoder thinks of each token, and which it refined.

    `logits` are the raw scores of all tokens, padding included; `teacher` is what they learn from.
    `kept` are the tokens that were refined at least once, best first: of image n only the first
    `counts[n]`, the others only fill the batch.
    """

    logits: Float[Tensor, "N S"]
    teacher: Foreground | Attention
    kept: Int[Tensor, "N T"]
    counts: Int[Tensor, " N"]


@dataclass(frozen=True)
class Encoded:
    """Refined tokens, what scoring encoders learned, and predictions of an encoder's own heads."""

    tokens: Tokens
    salience: Salience | None = None
    layers: tuple[Prediction, ...] = ()

    @property
    def learns_from_attention(self) -> bool:
        """Whether the decoder has to say where it looked, for the scores to learn from it."""
        return self.salience is not None and isinstance(self.salience.teacher, Attention)


@dataclass(frozen=True)
class Look:
    """Where the queries of one decoder layer looked, and how much they took from there.

    `locations` are (x, y) in (0,1) of each padded level; the weights of a head sum to 1.
    """

    locations: Float[Tensor, "N Q M L P 2"]
    weights: Float[Tensor, "N Q M L P"]


@dataclass(frozen=True)
class Decoded:
    """One prediction a decoder layer; the last is the answer. `looks` only where asked for."""

    layers: tuple[Prediction, ...]
    looks: tuple[Look, ...] = ()


@dataclass(frozen=True)
class Outputs:
    """Everything the criterion and the post-processing look at.

    `layers` holds one prediction a decoder layer; the last is the answer. `proposals` are the
    encoder's boxes that are supervised too, if there are any. `tokens` are the encoded tokens and
    `extent` is the height and width of each unpadded image, in pixels of the network's input.
    """

    layers: tuple[Prediction, ...]
    proposals: Proposed | None
    groups: tuple[Group, ...]
    salience: Salience | None = None
    encoder_layers: tuple[Prediction, ...] = ()
    looks: tuple[Look, ...] = ()
    tokens: Tokens | None = None
    extent: Int[Tensor, "N 2"] | None = None

    @staticmethod
    def gather(
        images: Images,
        encoded: Encoded,
        chosen: Proposed | None,
        decoded: Decoded,
        groups: tuple[Group, ...],
    ) -> "Outputs":
        """What came out of the stages of one forward pass."""
        learned = (encoded.salience, encoded.layers, decoded.looks, encoded.tokens)
        return Outputs(decoded.layers, chosen, groups, *learned, images.extent)

    @property
    def answer(self) -> Prediction:
        """The last layer's predictions of the main queries, without training-only groups."""
        main = self.groups[0]
        return self.layers[-1].slice(main.start, main.stop)


@dataclass(frozen=True)
class Target:
    """What is really in one image: class indices and boxes, cxcywh in (0,1) of the image."""

    labels: Int[Tensor, " T"]
    boxes: Float[Tensor, "T 4"]

    def to(self, device: torch.device | str) -> "Target":
        """The same target on another device."""
        return Target(self.labels.to(device), self.boxes.to(device))


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first: boxes xyxy in pixels of the image as given."""

    boxes: Float[Tensor, "D 4"]
    scores: Float[Tensor, " D"]
    labels: Int[Tensor, " D"]
    names: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or self.scores.shape != (count,):
            raise ValueError(
                f"expected boxes (D, 4) and scores (D,), "
                f"got {tuple(self.boxes.shape)} and {tuple(self.scores.shape)}"
            )
        if self.labels.shape != (count,):
            raise ValueError(f"expected {count} labels, got {tuple(self.labels.shape)}")

    def __len__(self) -> int:
        return len(self.boxes)

    def above(self, threshold: float) -> "Detections":
        """Only the detections that score at least `threshold`."""
        keep = self.scores >= threshold
        return replace(
            self, boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep]
        )

    def name(self, index: int) -> str:
        """The class name of detection `index`; its number where no names are known."""
        label = int(self.labels[index])
        return self.names[label] if label < len(self.names) else str(label)

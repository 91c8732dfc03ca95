"""COCO's 80 classes, and models that were trained with its category ids as class numbers.

The ids run from 1 to 90 with ten gaps. Most official detectors have a class for each id and one for
the 0 that nobody uses: 91 classes, of which eleven never had an example.
"""

from leandetr.checkpoints.class_rows import keep_classes
from leandetr.errors import CheckpointError
from leandetr.models.detector import Detector

ID_CLASSES = 91
"""Classes of a model whose class number is the category id."""

CATEGORIES = {
    1: "person",
    2: "bicycle",
    3: "car",
    4: "motorcycle",
    5: "airplane",
    6: "bus",
    7: "train",
    8: "truck",
    9: "boat",
    10: "traffic light",
    11: "fire hydrant",
    13: "stop sign",
    14: "parking meter",
    15: "bench",
    16: "bird",
    17: "cat",
    18: "dog",
    19: "horse",
    20: "sheep",
    21: "cow",
    22: "elephant",
    23: "bear",
    24: "zebra",
    25: "giraffe",
    27: "backpack",
    28: "umbrella",
    31: "handbag",
    32: "tie",
    33: "suitcase",
    34: "frisbee",
    35: "skis",
    36: "snowboard",
    37: "sports ball",
    38: "kite",
    39: "baseball bat",
    40: "baseball glove",
    41: "skateboard",
    42: "surfboard",
    43: "tennis racket",
    44: "bottle",
    46: "wine glass",
    47: "cup",
    48: "fork",
    49: "knife",
    50: "spoon",
    51: "bowl",
    52: "banana",
    53: "apple",
    54: "sandwich",
    55: "orange",
    56: "broccoli",
    57: "carrot",
    58: "hot dog",
    59: "pizza",
    60: "donut",
    61: "cake",
    62: "chair",
    63: "couch",
    64: "potted plant",
    65: "bed",
    67: "dining table",
    70: "toilet",
    72: "tv",
    73: "laptop",
    74: "mouse",
    75: "remote",
    76: "keyboard",
    77: "cell phone",
    78: "microwave",
    79: "oven",
    80: "toaster",
    81: "sink",
    82: "refrigerator",
    84: "book",
    85: "clock",
    86: "vase",
    87: "scissors",
    88: "teddy bear",
    89: "hair drier",
    90: "toothbrush",
}
"""Category id -> name, in the order of the annotation files."""

NAMES = tuple(CATEGORIES.values())
"""The 80 names, in order."""

CATEGORY_IDS = tuple(CATEGORIES)
"""Their ids; also the rows to keep of a head with a class for each id."""


def to_eighty(model: Detector) -> Detector:
    """A detector of the 80 named classes from one whose class numbers are COCO's category ids.

    The weights of the kept classes are the same to the bit. A query source that ranks tokens by
    their best class no longer counts the eleven unused ones, and a softmax no longer divides by
    them; a trained model gives them next to nothing. Raises `CheckpointError` unless `model` has 91
    classes.
    """
    classes = model.recipe.model.classes
    if classes != ID_CLASSES:
        raise CheckpointError(
            f"expected a model with {ID_CLASSES} classes, one for each category id of COCO and one "
            f"for 0; got {classes}; to name its classes set model.names and model.category_ids"
        )
    return keep_classes(model, CATEGORY_IDS, names=NAMES, category_ids=CATEGORY_IDS)

"""LeanDETR: detection transformers that can be read, checked and trained.

    import leandetr

    leandetr.train("lite-dino-nano", data="my/data", out="runs/mine")
    found = leandetr.load("runs/mine").predict(["photo.jpg"])
    leandetr.draw("photo.jpg", found[0]).save("found.png")

Names are imported when first used, so `import leandetr` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leandetr.checkpoints.load_official import load_official
    from leandetr.checkpoints.publish import publish
    from leandetr.checkpoints.store import load, save, shipped_models
    from leandetr.deploy.draw import draw
    from leandetr.errors import LeanDetrError
    from leandetr.evaluation.coco import CocoScores
    from leandetr.evaluation.evaluate import evaluate
    from leandetr.evaluation.profile import profile
    from leandetr.models.detector import Detector
    from leandetr.recipes.assemble import create_model, list_models, recipe
    from leandetr.training.run import train
    from leandetr.types import Detections

__version__ = "0.1.0"

__all__ = [
    "CocoScores",
    "Detections",
    "Detector",
    "LeanDetrError",
    "__version__",
    "create_model",
    "draw",
    "evaluate",
    "list_models",
    "load",
    "load_official",
    "profile",
    "publish",
    "recipe",
    "save",
    "shipped_models",
    "train",
]

_HOMES = {
    "CocoScores": "leandetr.evaluation.coco",
    "Detections": "leandetr.types",
    "Detector": "leandetr.models.detector",
    "LeanDetrError": "leandetr.errors",
    "create_model": "leandetr.recipes.assemble",
    "draw": "leandetr.deploy.draw",
    "evaluate": "leandetr.evaluation.evaluate",
    "list_models": "leandetr.recipes.assemble",
    "load": "leandetr.checkpoints.store",
    "load_official": "leandetr.checkpoints.load_official",
    "profile": "leandetr.evaluation.profile",
    "publish": "leandetr.checkpoints.publish",
    "recipe": "leandetr.recipes.assemble",
    "save": "leandetr.checkpoints.store",
    "shipped_models": "leandetr.checkpoints.store",
    "train": "leandetr.training.run",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'leandetr' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

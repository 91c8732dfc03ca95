"""A model goes to the Hugging Face hub, with a card that says what it is and how to load it.

publish(model, "hf:owner/name")              # and back: leandetr.load("hf:owner/name")
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from leandetr.checkpoints import hub
from leandetr.checkpoints.store import load, save
from leandetr.errors import CheckpointError
from leandetr.models.detector import Detector

SHOWN = 100
"""How many classes a card lists."""


def publish(
    model: Detector | str | Path,
    target: str,
    *,
    private: bool = False,
    message: str = "Publish a LeanDETR model",
) -> str:
    """Upload a detector, or the one in a model folder, to `hf:owner/name`; returns its address.

    The repository is made if it is not there; `private` says who may see a new one. Its model card
    is written once and then left to its owner. Raises `CheckpointError` for a name that is none and
    for one that is not yours, `NetworkUnavailable`, `MissingExtra` without huggingface-hub.
    """
    reference = hub.parse(target)
    if reference.revision is not None:
        raise CheckpointError(
            f"expected a repository to publish to, got the revision '{reference.revision}' too; "
            f"type hf:{reference.repository}"
        )
    detector = model if isinstance(model, Detector) else load(model)
    with TemporaryDirectory() as name:
        folder = Path(name)
        save(detector, folder)
        (folder / hub.CARD).write_text(card(detector, reference), encoding="utf-8")
        return hub.upload(folder, reference, private=private, message=message)


def card(model: Detector, reference: hub.Reference) -> str:
    """The model card: what the recipe is, which classes it knows, how to load it."""
    head = yaml.safe_dump(
        {
            "library_name": "leandetr",
            "pipeline_tag": "object-detection",
            "tags": ["leandetr", "object-detection", "detection-transformer"],
        },
        sort_keys=False,
    )
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    size = model.preprocess
    return f"""---
{head}---

# {reference.repository.split("/")[1]}

A [LeanDETR](https://pypi.org/project/leandetr/) detector: recipe `{model.recipe.name}`,
{millions:.1f} million parameters, images with the short side at {size.short} pixels and the long
side at {size.long} at most. All settings are in `recipe.yaml`.

```python
import leandetr  # pip install 'leandetr[hub]'

model = leandetr.load("{reference}")
found = model.predict(["photo.jpg"])
```

## Classes

{_classes(model)}
"""


def _classes(model: Detector) -> str:
    """The classes by name, or how many there are."""
    if not model.names:
        return f"{model.recipe.model.classes} classes without names."
    more = len(model.names) - SHOWN
    return ", ".join(model.names[:SHOWN]) + (f", and {more} more" if more > 0 else "")

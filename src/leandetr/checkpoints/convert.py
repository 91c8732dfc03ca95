"""Official checkpoints become model folders, and models become official checkpoints.

conversion = convert("checkpoint0011.pth", out="models/dino")
print(conversion.table())            # what it was taken for, what was left out, what was assumed
export_official(conversion.detector, "checkpoint.pth")
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from leandetr.checkpoints.coco_names import (
    CATEGORIES,
    CATEGORY_IDS,
    ID_CLASSES,
    NAMES,
    to_eighty,
)
from leandetr.checkpoints.keymap import check_fits, fill, to_official, to_ours
from leandetr.checkpoints.layouts import OFFICIAL, rules_for
from leandetr.checkpoints.official.transformers_layout import class_names
from leandetr.checkpoints.reading import Official, read_checkpoint
from leandetr.checkpoints.recognise import Recognised, recognise
from leandetr.checkpoints.store import save
from leandetr.errors import CheckpointError, CheckpointMismatch
from leandetr.files import refuse_existing, whole
from leandetr.models.detector import Detector
from leandetr.recipes.assemble import build

SUFFIXES = (".pth", ".pt", ".safetensors")
"""What an exported checkpoint may be."""


@dataclass(frozen=True)
class Conversion:
    """A converted detector, in evaluation mode, and what was found out on the way.

    `dropped` are the official keys that have no use here, with reasons.
    """

    detector: Detector
    recognised: Recognised
    dropped: dict[str, str]
    notes: tuple[str, ...]

    def table(self) -> str:
        """What a person should read before using the model."""
        found, recipe = self.recognised, self.detector.recipe
        preset = "" if found.preset else ", of sizes that no preset has"
        named = "named" if self.detector.names else "unnamed"
        rows = [
            ("recognised", f"{found.family.name}, as {found.family.layout} saves it"),
            ("recipe", recipe.name + preset),
            ("classes", f"{recipe.model.classes}, {named}"),
            *(("note", note) for note in self.notes),
            *(("assumed", f"{why}; change it with --set") for why in found.assumed),
        ]
        for reason in dict.fromkeys(self.dropped.values()):
            keys = [key for key, why in self.dropped.items() if why == reason]
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            rows.append(("left out", f"{keys[0]}{more}: {reason}"))
        return "\n".join(f"{what:<12}{text}" for what, text in rows)


def convert(
    path: str | Path,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    part: str | None = None,
    classes: int | None = None,
    names: Sequence[str] | None = None,
    overwrite: bool = False,
) -> Conversion:
    """The detector in an official checkpoint; with `out`, also saved as a model folder.

    `overrides` are `path=value` texts of the recipe for what keys do not tell, `part` says which
    weights of the file, `names` what its classes are called. A head with COCO's 91 category ids is
    cut to the 80 named classes; `classes=91` keeps it whole. Nothing is written unless every
    official key is used and every parameter filled.

    Raises `CheckpointError` for a file that is no checkpoint, `CheckpointMismatch` for one of
    another family or of sizes that do not fit, `OutputExists` where there is a model already.
    """
    if out is not None and any(Path(out).glob("*")):
        refuse_existing([Path(out)], overwrite=overwrite)
    official = read_checkpoint(path, part=part)
    try:
        recognised = recognise(official.state, official.args, overrides=overrides)
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"{path}: {error}") from error
    family, recipe = recognised.family, recognised.recipe
    detector = build(recipe)
    try:
        dropped = fill(detector, official.state, family.rules(recipe))
    except CheckpointMismatch as error:
        raise CheckpointMismatch(
            f"{path}: taken for {family.name} as {family.layout} saves it, but {error}"
        ) from error
    notes = [*official.notes, *recognised.notes, *_precision(official.state)]
    detector, told = _with_classes(detector, official, classes=classes, names=names)
    if out is not None:
        save(detector, out)
    return Conversion(detector.eval(), recognised, dropped, (*notes, *told))


def export_official(
    model: Detector, path: str | Path, *, layout: str = OFFICIAL, overwrite: bool = False
) -> dict[str, Tensor]:
    """Write a model under the keys of its paper's repository; returns what was written.

    A `.pth` file holds the state dict under "model", as the repositories save it, a `.safetensors`
    file the tensors alone. `layout` is `official` or `detrex`. Keys that the official code has and
    never uses are not written. Raises `CheckpointMismatch` for a detector that the repository does
    not have, `OutputExists` where there is a file already.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}")
    refuse_existing([path], overwrite=overwrite)
    state = {key: tensor.detach().cpu() for key, tensor in model.state_dict().items()}
    rules = rules_for(model.recipe, layout)
    official = to_official(state, rules)
    check_fits(state, to_ours(official, rules).state)  # nothing may get lost on the way
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            if path.suffix == ".safetensors":
                save_file({key: tensor.clone() for key, tensor in official.items()}, partial)
            else:
                torch.save({"model": official}, partial)
    except OSError as error:
        raise CheckpointError(f"{path}: could not be written ({error})") from error
    return official


def _precision(state: dict[str, Tensor]) -> list[str]:
    """A note where weights come in another precision than ours."""
    kinds = {str(t.dtype).removeprefix("torch.") for t in state.values() if t.is_floating_point()}
    others = sorted(kinds - {"float32"})
    return [f"weights stored as {', '.join(others)} are float32 now"] if others else []


def _with_classes(
    detector: Detector, official: Official, *, classes: int | None, names: Sequence[str] | None
) -> tuple[Detector, list[str]]:
    """The detector with names for its classes, perhaps fewer of them, and notes on both."""
    count = detector.recipe.model.classes
    told = tuple(names) if names is not None else class_names(official.args)
    if told and len(told) != count:
        raise CheckpointError(f"expected {count} names, one for each class; got {len(told)}")
    if classes not in (None, count) and (count, classes) != (ID_CLASSES, len(NAMES)):
        raise CheckpointError(
            f"expected --classes {count}, as many as the checkpoint has"
            + (f", or {len(NAMES)}" if count == ID_CLASSES else "")
            + f"; got {classes}; for other classes train the converted model on your data"
        )
    ids = count == ID_CLASSES and (not told or tuple(told[i] for i in CATEGORY_IDS) == NAMES)
    if ids and classes != count:
        note = f"{count} classes are COCO's category ids; cut to the {len(NAMES)} that have names"
        return to_eighty(detector), [f"{note} (--classes {count} keeps all)"]
    if ids:
        told = tuple(CATEGORIES.get(index, f"unused {index}") for index in range(count))
    notes = []
    if not told and count == len(NAMES):
        told, notes = NAMES, [f"{count} classes are taken for COCO's (--names for others)"]
    detector.names = told
    detector.category_ids = CATEGORY_IDS if told == NAMES else tuple(range(len(told)))
    return detector, notes

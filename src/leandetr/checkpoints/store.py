"""A model on disk is a folder: `model.safetensors`, `recipe.yaml`, `labels.json`. Never a pickle.

    save(model, "runs/cells")
    model = load("runs/cells")                  # or a shipped model: load("lite-dino-nano-cells")
    model = load("hf:owner/name")               # or one from the Hugging Face hub

Every file is whole or the one that was there before: a crash while saving destroys nothing.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor

from leandetr.checkpoints import hub
from leandetr.checkpoints.keymap import check_fits
from leandetr.errors import CheckpointError, CheckpointMismatch, RecipeError
from leandetr.files import whole
from leandetr.models.detector import Detector
from leandetr.recipes.assemble import create_model, list_models, recipe
from leandetr.recipes.codec import from_dict, to_dict
from leandetr.recipes.recipe import Recipe
from leandetr.registry import did_you_mean

WEIGHTS, RECIPE, LABELS = "model.safetensors", "recipe.yaml", "labels.json"
FORMAT = 1
"""Version of the folder's layout, written as `format` into recipe.yaml; raised when it changes."""

RUN_MODELS = ("best", "last")
"""Model folders within the folder of a training run, in the order in which they are preferred."""

ZOO = Path(__file__).parent.parent / "zoo"
"""Models that come with the package."""


def save(model: Detector, folder: str | Path) -> None:
    """Write `model` with its recipe, class names and category ids into `folder`.

    A model that is there already is replaced, once all of the new one is on disk. Raises
    `CheckpointError` when the names do not fit the recipe or the folder cannot be written.
    """
    folder = Path(folder)
    labels = {"names": list(model.names), "category_ids": list(model.category_ids)}
    _check_labels(labels, model.recipe, folder)
    text = yaml.safe_dump(
        {"format": FORMAT} | to_dict(model.recipe), sort_keys=False, allow_unicode=True
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:  # renamed only after the last of them is written
            partial = {
                name: files.enter_context(whole(folder / name))
                for name in (RECIPE, LABELS, WEIGHTS)
            }
            partial[RECIPE].write_text(text, encoding="utf-8")
            text = json.dumps(labels, indent=2, ensure_ascii=False)
            partial[LABELS].write_text(text + "\n", encoding="utf-8")
            # not save_file: that makes a file only its owner may read
            partial[WEIGHTS].write_bytes(to_bytes(_tensors(model), metadata={"format": "pt"}))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder}: the model could not be written ({error}); choose a folder that can be"
        ) from error


def load(model: str | Path) -> Detector:
    """The detector in a folder that `save` or `train` wrote, or a shipped one; in evaluation mode.

    `hf:owner/name` is one on the Hugging Face hub, `hf:owner/name@revision` a former state of it. A
    folder of that name wins over a shipped model. Raises `CheckpointError` saying what is missing
    or damaged, `CheckpointMismatch` when weights and recipe do not belong together.
    """
    folder = find(model)
    chosen, labels, tensors = read_recipe(folder), _labels(folder), _weights(folder)
    _check_labels(labels, chosen, folder)
    try:
        detector = create_model(chosen)
    except RecipeError as error:
        raise CheckpointError(f"{folder / RECIPE}: {error}") from error
    try:
        check_fits(_tensors(detector), tensors)
    except CheckpointMismatch as error:
        raise CheckpointMismatch(f"{folder / WEIGHTS}: with {RECIPE} beside it, {error}") from error
    detector.load_state_dict(tensors, strict=False)
    detector.names = tuple(labels["names"])
    detector.category_ids = tuple(labels["category_ids"])
    return detector.eval()


def shipped_models() -> list[str]:
    """Names of the trained models that come with the package, sorted; `load` takes them."""
    return sorted(path.parent.name for path in ZOO.glob(f"*/{WEIGHTS}"))


def find(model: str | Path) -> Path:
    """The folder that `model` names: a model, the best (else the last) of a run, a shipped one.

    What `hf:owner/name` names is downloaded first. Raises `CheckpointError` with what it might have
    been, or `NetworkUnavailable`.
    """
    if hub.is_reference(model):
        return hub.download(hub.parse(str(model)), (WEIGHTS, RECIPE, LABELS))
    path = Path(model).expanduser()
    if path.is_dir():
        inner = (path / name for name in RUN_MODELS if (path / name / WEIGHTS).is_file())
        return path if (path / WEIGHTS).is_file() else next(inner, path)
    if path.exists():
        raise CheckpointError(
            f"{path}: expected a model folder, got a file; give the folder that holds {WEIGHTS}"
        )
    name = str(model)
    shipped = shipped_models()
    if name in shipped:
        return ZOO / name
    if name in list_models():
        raise CheckpointError(
            f"'{name}' is a recipe and has no weights yet; train it first: "
            f"leandetr train {name} --data DIR --out FOLDER"
        )
    raise CheckpointError(f"no model folder '{name}', and no shipped model; {_near(path, shipped)}")


def recipe_of(name: str) -> Recipe:
    """The recipe that `name` stands for: a preset, a YAML file, a model folder or a shipped model.

    A preset wins over a folder of the same name. Raises `RecipeError` with the near presets, or
    `CheckpointError`.
    """
    path = Path(name).expanduser()
    is_model = path.exists() or name in shipped_models() or hub.is_reference(name)
    if name in list_models() or not is_model:
        return recipe(name)
    return read_recipe(path if path.is_file() else find(name))


def read_recipe(folder: str | Path) -> Recipe:
    """The recipe of a model folder, or of a YAML file. Raises `CheckpointError`."""
    path = Path(folder)
    path = _existing(path, RECIPE) if path.is_dir() else path
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: expected a recipe in YAML ({reason})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a recipe in YAML, got {values!r:.60}")
    version = values.pop("format", FORMAT)
    if not isinstance(version, int) or version > FORMAT:
        raise CheckpointError(
            f"{path}: written in format {version}, this LeanDETR reads up to {FORMAT}; "
            "type: pip install --upgrade leandetr"
        )
    try:
        return from_dict(values)
    except RecipeError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _tensors(model: Detector) -> dict[str, Tensor]:
    """Parameters and saved buffers, each once: a module in two places has its first name."""
    state = model.state_dict()
    named = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    return {name: state[name].detach().cpu().contiguous() for name in named if name in state}


def _labels(folder: Path) -> dict[str, Any]:
    path = _existing(folder, LABELS)
    try:
        labels = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: expected JSON with names and category_ids ({error})"
        ) from error
    fine = isinstance(labels, dict) and all(
        isinstance(labels.get(key), list) and all(isinstance(item, kind) for item in labels[key])
        for key, kind in (("names", str), ("category_ids", int))
    )
    if not fine:
        raise CheckpointError(f'{path}: expected {{"names": [text], "category_ids": [integers]}}')
    return labels


def _weights(folder: Path) -> dict[str, Tensor]:
    path = _existing(folder, WEIGHTS)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: is damaged or no safetensors file ({error}); copy or train it again"
        ) from error


def _existing(folder: Path, name: str) -> Path:
    """The file `name` of a model folder, or an error that tells where models are below it."""
    path = folder / name
    if path.is_file():
        return path
    inner = sorted(str(found.parent) for found in folder.glob(f"*/{WEIGHTS}"))
    hint = (
        f"did you mean {' or '.join(inner[:3])}?"
        if inner
        else f"a model folder holds {WEIGHTS}, {RECIPE} and {LABELS}"
    )
    raise CheckpointError(f"{folder}: has no {name}; {hint}")


def _check_labels(labels: dict[str, Any], recipe: Recipe, folder: Path) -> None:
    """As many names and ids as classes, or none at all for a model without names."""
    counts = {key: len(labels[key]) for key in ("names", "category_ids")}
    for key, count in counts.items():
        if count not in (0, recipe.model.classes):
            raise CheckpointError(
                f"{folder / LABELS}: expected {recipe.model.classes} {key}, one for each class of "
                f"the recipe, got {count}"
            )


def _near(path: Path, shipped: list[str]) -> str:
    """What a path that is not there might have been: a model or run beside it, a shipped one.

    Or a recipe, for verbs that take both; of these only the near ones are told.
    """
    beside = {str(found.parent) for found in path.parent.glob(f"*/{WEIGHTS}")}
    beside |= {str(found.parent.parent) for found in path.parent.glob(f"*/*/{WEIGHTS}")}
    models = [*shipped, *beside]
    near = did_you_mean(str(path), [*models, *list_models()])
    return near if near.startswith("did you mean") else did_you_mean(str(path), models)

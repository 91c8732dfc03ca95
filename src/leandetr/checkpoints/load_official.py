"""The weights a paper published, as a detector: downloaded where there is a network, or given.

model = load_official("detr-r50")
model = load_official("lite-dino-r50-h3l1-2p1x3", "r50_s3ex3_50.4.pth")
"""

import json
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leandetr.checkpoints.convert import convert
from leandetr.checkpoints.released import RELEASED
from leandetr.errors import CheckpointError, CheckpointMismatch, RecipeError
from leandetr.fetch import cache_folder, fetch
from leandetr.files import whole
from leandetr.meter import tell
from leandetr.models.detector import Detector
from leandetr.recipes.assemble import recipe
from leandetr.recipes.codec import to_dict
from leandetr.recipes.recipe import Recipe

UNTOLD = (
    "backbone.dilate_last",
    "encoder.blocks",
    "encoder.high_levels",
    "encoder.keep",
    "encoder.cascade",
    "queries.count",
)
"""Settings that the keys of a checkpoint do not tell; the preset does."""

FREE = ("classes", "groups", "top", "backbone.weights", "backbone.frozen_stages")
"""Settings in which a checkpoint may differ from its preset: they change no prediction's making."""

CHECKPOINTS = (".pth", ".pt", ".pkl", ".safetensors")


def load_official(name: str, weights: str | Path | None = None) -> Detector:
    """The detector of a preset with its published weights, in evaluation mode.

    They are downloaded once and kept in the cache; `weights` is a file that you have instead, in
    any layout that `convert` reads. Raises `NetworkUnavailable` telling what to fetch by hand,
    `CheckpointError` where nobody has published any or the file is damaged, `CheckpointMismatch`
    where it holds another model than the preset, `RecipeError` for an unknown name.
    """
    wanted = recipe(name)
    path = _published(name) if weights is None else Path(weights).expanduser()
    try:
        detector = convert(unpacked(path), overrides=untold(wanted)).detector
    except RecipeError as error:  # a part that the preset has and the checkpoint lacks
        raise CheckpointMismatch(f"{path} does not hold {name}: {error}") from error
    differs = RELEASED[name].differs if name in RELEASED else ()
    other = differences(detector.recipe, wanted, but=differs)
    if other:
        more = f", and {len(other) - 3} more" if len(other) > 3 else ""
        raise CheckpointMismatch(
            f"{path} does not hold {name}: {', '.join(other[:3])}{more}; to load it as what it is, "
            f"type: leandetr convert {path} --out FOLDER"
        )
    detector.recipe = detector.recipe.with_name(name)
    return detector


def untold(wanted: Recipe) -> list[str]:
    """What the preset says of things that keys do not tell, as overrides of what they tell."""
    settings = _settings(wanted)
    return [f"{path}={json.dumps(settings[path])}" for path in UNTOLD if path in settings]


def differences(found: Recipe, wanted: Recipe, but: Sequence[str] = ()) -> list[str]:
    """What a checkpoint's model has otherwise than the preset, in words; `but` may differ."""
    there, here = _settings(found), _settings(wanted)
    return [
        f"{path} is {there.get(path)} there, {here.get(path)} in the preset"
        for path in sorted((there.keys() | here.keys()) - set(but))
        if there.get(path) != here.get(path)
    ]


def _published(name: str) -> Path:
    """The published file, downloaded first if it is not in the cache."""
    if name not in RELEASED:
        raise CheckpointError(
            f"nobody has published weights of {name} that we know of; if you have some, type: "
            f"leandetr.load_official('{name}', 'FILE'), else train it: leandetr train {name}"
        )
    entry = RELEASED[name]
    path = fetch(
        entry.url,
        name=entry.file,
        sha256=entry.sha256,
        page=entry.page,
        otherwise=f"give its path: leandetr.load_official('{name}', 'FILE')",
    )
    note = f" ({entry.note})" if entry.note else ""
    tell(f"{name}: {entry.ap} AP as stated at {entry.page}{note}")
    return path


def unpacked(path: Path) -> Path:
    """The checkpoint in a .zip archive, written into the cache; any other file as it is.

    Raises `CheckpointError` unless the archive holds exactly one.
    """
    if path.suffix != ".zip":
        return path
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [
                entry
                for entry in archive.infolist()
                if entry.filename.endswith(CHECKPOINTS) and not entry.filename.startswith("__")
            ]
            if len(inside) != 1:
                raise CheckpointError(
                    f"{path}: expected an archive with one checkpoint in it, got {len(inside)}; "
                    "unpack it and give the file"
                )
            goal = cache_folder() / f"{path.stem}{Path(inside[0].filename).suffix}"
            if not goal.exists() or goal.stat().st_size != inside[0].file_size:
                goal.parent.mkdir(parents=True, exist_ok=True)
                with (
                    archive.open(inside[0]) as packed,
                    whole(goal) as partial,
                    partial.open("wb") as plain,
                ):
                    shutil.copyfileobj(packed, plain)
    except (OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} cannot be unpacked ({error}); fetch it again, or unpack it and give the file"
        ) from error
    return goal


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Path to value for all that a checkpoint and its preset must have in common."""
    flat = _flat(to_dict(recipe)["model"], "")
    return {
        path: value
        for path, value in flat.items()
        if not path.startswith(FREE) and not path.endswith(("dropout", "drop_path"))
    }


def _flat(values: Any, path: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        return {path: values}
    below = [_flat(value, f"{path}.{key}" if path else key) for key, value in values.items()]
    return {path: value for part in below for path, value in part.items()}

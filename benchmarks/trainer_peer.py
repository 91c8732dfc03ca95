"""The other side of `benchmarks.trainer`: transformers' DeformableDetr and its Trainer.

Written from the documentation of both; see `benchmarks.trainer` for what is compared.
"""

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from PIL import Image

from benchmarks.trainer_turn import Turn
from benchmarks.turns import clock
from leandetr.data.dataset import DetectionData
from leandetr.images import Preprocess


def nano_settings() -> dict[str, Any]:
    """A DeformableDetr of transformers of the size of deformable-detr-nano."""
    backbone = transformers.ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 128, 160],
        depths=[1, 2, 2, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    return {
        "backbone_config": backbone,
        "d_model": 128,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_ffn_dim": 256,
        "decoder_ffn_dim": 256,
        "encoder_n_points": 2,
        "decoder_n_points": 2,
        "num_feature_levels": 3,
        "dropout": 0.0,
        "two_stage": True,
        "with_box_refine": True,
        "two_stage_num_proposals": 100,
        "num_queries": 100,
    }


def r50_settings() -> dict[str, Any]:
    """The DeformableDetr of transformers with a ResNet-50, as it is by default."""
    maps = ["stage2", "stage3", "stage4"]
    return {"backbone_config": transformers.ResNetConfig(out_features=maps)}


def their_model(settings: dict[str, Any], classes: int) -> torch.nn.Module:
    """Random weights; of the backbone all but the stem and the first stage learn."""
    none = {"backbone": None, "use_timm_backbone": False, "use_pretrained_backbone": False}
    config = transformers.DeformableDetrConfig(
        auxiliary_loss=True, num_labels=classes, **none, **settings
    )
    torch.manual_seed(0)
    model = transformers.DeformableDetrForObjectDetection(config)
    for name, parameter in model.model.backbone.named_parameters():
        parameter.requires_grad_(any(f"stages.{index}." in name for index in (1, 2, 3)))
    return model


class TheirSet(torch.utils.data.Dataset):
    """Photos and boxes as transformers' image processor makes them, one item a photo."""

    def __init__(self, data: DetectionData, preprocess: Preprocess) -> None:
        size = {"shortest_edge": preprocess.short, "longest_edge": preprocess.long}
        self._samples = data.samples
        self._processor = transformers.DeformableDetrImageProcessorPil(size=size)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self._samples[index]
        sizes = torch.cat((sample.boxes[:, :2], sample.boxes[:, 2:] - sample.boxes[:, :2]), dim=1)
        boxes = [
            {"bbox": box, "category_id": label, "area": area, "iscrowd": 0}
            for box, label, area in zip(
                sizes.tolist(), sample.labels.tolist(), sample.areas.tolist(), strict=True
            )
        ]
        with Image.open(sample.path) as image:
            made = self._processor(
                images=image.convert("RGB"),
                annotations={"image_id": sample.image_id, "annotations": boxes},
                return_tensors="pt",
            )
        return {key: made[key][0] for key in ("pixel_values", "pixel_mask", "labels")}


def their_batch(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items, all of one size, side by side."""
    made: dict[str, Any] = {
        key: torch.stack([item[key] for item in items]) for key in ("pixel_values", "pixel_mask")
    }
    return {**made, "labels": [item["labels"] for item in items]}


def theirs(settings: Callable[[], dict[str, Any]], precision: str, turn: Turn) -> float:
    """Images a second of transformers' Trainer."""
    marks: list[float] = []

    class Watch(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(clock())

    with tempfile.TemporaryDirectory() as folder:
        how = transformers.TrainingArguments(
            folder,
            per_device_train_batch_size=turn.batch,
            max_steps=turn.warm + turn.steps,
            learning_rate=1e-4,
            max_grad_norm=0.1,
            bf16=precision == "bf16",
            use_cpu=True,
            dataloader_num_workers=turn.workers,
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        done = transformers.Trainer(
            their_model(settings(), len(turn.data.names)),
            how,
            train_dataset=TheirSet(turn.pictures, turn.preprocess),
            data_collator=their_batch,
            callbacks=[Watch()],
        ).train()
    if not torch.tensor(done.training_loss).isfinite():
        raise SystemExit(f"expected a finite loss of transformers; got {done.training_loss}")
    return turn.pace(marks)

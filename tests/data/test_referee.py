"""Another reader of the same files: supervision agrees about every box."""

from pathlib import Path

import pytest

from leandetr.data.sources import load_data
from tiny_data import write_voc, write_yolo

pytestmark = pytest.mark.exhaustive  # its import takes seconds


@pytest.mark.filterwarnings("ignore")
def test_yolo_and_voc_are_read_as_supervision_reads_them(tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision")
    yolo, voc = write_yolo(tmp_path / "yolo"), write_voc(tmp_path / "voc")
    others = {
        "yolo": sv.DetectionDataset.from_yolo(
            str(yolo / "images" / "train"),
            str(yolo / "labels" / "train"),
            str(yolo / "data.yaml"),
        ),
        "voc": sv.DetectionDataset.from_pascal_voc(
            str(voc / "JPEGImages"), str(voc / "Annotations")
        ),
    }
    for name, other in others.items():
        for sample in load_data(tmp_path / name, "train").samples:
            theirs = other.annotations[str(sample.path)]
            named = [other.classes[int(kind)] for kind in theirs.class_id]
            ours = load_data(tmp_path / name, "train").names
            assert named == [ours[label] for label in sample.labels.tolist()]
            assert theirs.xyxy.reshape(-1, 4) == pytest.approx(
                sample.boxes.numpy(), abs=1 if name == "voc" else 0.01
            )

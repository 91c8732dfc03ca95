from pathlib import Path

from PIL import Image

from leandetr.data.loader import DetectionSet
from leandetr.data.sources import load_data
from leandetr.data.transforms import SmallDataAugment
from leandetr.images import Preprocess
from leandetr.training.preview import write_preview


def test_a_preview_shows_what_augmentation_makes(pictures: Path, tmp_path: Path) -> None:
    data, sizes = load_data(pictures, "train"), Preprocess(short=32, long=48)
    pages = []
    for seed in (0, 0, 1):
        path = tmp_path / f"{len(pages)}.png"
        write_preview(DetectionSet(data, sizes, augment=SmallDataAugment(), seed=seed), path)
        with Image.open(path) as page:
            pages.append(page.convert("RGB").tobytes())
    assert pages[0] == pages[1]
    assert pages[0] != pages[2]


def test_the_boxes_of_a_preview_are_where_the_objects_are(pictures: Path, tmp_path: Path) -> None:
    data = load_data(pictures, "train")
    images = DetectionSet(data, Preprocess(short=64, long=96), augment=SmallDataAugment(), seed=3)
    for index in range(len(data)):
        view = images.view(index)
        for (x0, y0, x1, y1), label in zip(view.boxes.tolist(), view.labels.tolist(), strict=True):
            middle = view.pixels[:, int((y0 + y1) / 2), int((x0 + x1) / 2)]
            assert int(middle[label]) > 100

"""Samples become batches: the same whoever loads them, and nothing is lost on the way."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from faster_coco_eval import COCO
from PIL import Image
from torch.utils.data import DataLoader

from leandetr.boxes import cxcywh_to_xyxy
from leandetr.data import loader
from leandetr.data.coco import read_coco
from leandetr.data.dataset import Category, DetectionData, Sample, to_coco
from leandetr.data.loader import DetectionSet, Item, collate
from leandetr.data.transforms import PlainAugment, SmallDataAugment
from leandetr.errors import DataError
from leandetr.images import Preprocess, read_image

BROKEN = Path(__file__).resolve().parents[1] / "fixtures" / "broken"
PREPROCESS = Preprocess(short=32, long=48)


@pytest.fixture
def data(tmp_path: Path) -> DetectionData:
    """Five noisy pictures of different sizes, two boxes each, the second one a crowd."""
    rng = np.random.default_rng(0)
    samples = []
    for index, (height, width) in enumerate(((40, 60), (60, 30), (50, 50), (30, 60), (120, 200))):
        path = tmp_path / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
        samples.append(
            Sample(
                path=path,
                image_id=100 + index,
                size=(height, width),
                boxes=torch.tensor([[2, 4, 22, 24], [0, 0, width, height]]).float(),
                labels=torch.tensor([1, 0]),
                crowd=torch.tensor([False, True]),
                areas=torch.tensor([400, height * width]).float(),
            )
        )
    return DetectionData("noise", (Category(3, "a"), Category(8, "b")), tuple(samples))


def same(one: Item, other: Item) -> bool:
    return (
        torch.equal(one.pixels, other.pixels)
        and torch.equal(one.target.boxes, other.target.boxes)
        and torch.equal(one.target.labels, other.target.labels)
    )


# ---------------------------------------------------------------- items


def test_an_evaluation_item_is_the_picture_as_predict_prepares_it(data: DetectionData) -> None:
    items = DetectionSet(data, PREPROCESS)
    for item, sample in zip((items[i] for i in range(5)), data.samples, strict=True):
        expected = PREPROCESS.prepare([read_image(sample.path)])
        assert torch.equal(item.pixels, expected.pixels[0])
        assert (item.image_id, item.size) == (sample.image_id, sample.size)


def test_targets_are_shares_of_the_prepared_picture_without_crowds(data: DetectionData) -> None:
    items = DetectionSet(data, PREPROCESS)
    for index, sample in enumerate(data.samples):
        target = items[index].target
        assert target.labels.tolist() == [1]
        height, width = sample.size
        pixels = cxcywh_to_xyxy(target.boxes) * torch.tensor([width, height, width, height])
        torch.testing.assert_close(pixels, sample.boxes[:1], atol=1e-4, rtol=0)


def test_crowds_of_a_real_file_are_no_targets() -> None:
    crowd, good = (
        DetectionSet(read_coco(BROKEN / f"{name}.json", BROKEN / "images"), PREPROCESS)
        for name in ("crowd_rle", "good")
    )
    assert len(crowd[0].target.labels) == len(good[0].target.labels) - 1


def test_a_picture_without_boxes_is_an_item(data: DetectionData) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    empty = replace(
        data.samples[0], boxes=torch.zeros(0, 4), labels=none, crowd=none.bool(), areas=none.float()
    )
    item = DetectionSet(replace(data, samples=(empty,)), PREPROCESS, augment=SmallDataAugment())[0]
    assert item.target.boxes.shape == (0, 4)


# ---------------------------------------------------------------- chance


def epoch_of(items: DetectionSet, epoch: int) -> list[Item]:
    items.set_epoch(epoch)
    return [items[index] for index in range(len(items))]


def test_an_item_depends_on_seed_epoch_and_index_only(data: DetectionData) -> None:
    items = DetectionSet(data, PREPROCESS, augment=SmallDataAugment(), seed=1)
    first, second = epoch_of(items, 0), epoch_of(items, 1)
    assert not all(map(same, first, second))
    torch.manual_seed(99)
    again = DetectionSet(data, PREPROCESS, augment=SmallDataAugment(), seed=1)
    assert all(map(same, epoch_of(again, 1)[::-1], second[::-1]))
    assert all(map(same, epoch_of(again, 0), first))
    other = DetectionSet(data, PREPROCESS, augment=SmallDataAugment(), seed=2)
    assert not all(map(same, epoch_of(other, 0), first))


def test_two_pictures_that_are_equal_are_changed_differently(data: DetectionData) -> None:
    twins = replace(data, samples=data.samples[:1] * 4)
    items = epoch_of(DetectionSet(twins, PREPROCESS, augment=SmallDataAugment()), 0)
    assert not all(same(items[0], item) for item in items[1:])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_change_nothing_and_follow_the_epoch(data: DetectionData) -> None:
    items = DetectionSet(data, PREPROCESS, augment=SmallDataAugment(), seed=4)
    alone = DataLoader(items, batch_size=2, collate_fn=collate)
    crew = DataLoader(
        items, batch_size=2, collate_fn=collate, num_workers=2, persistent_workers=True
    )
    for epoch in (0, 1):  # the second with workers that were started in the first
        items.set_epoch(epoch)
        for one, other in zip(alone, crew, strict=True):
            assert torch.equal(one.images.pixels, other.images.pixels)
            assert one.image_ids == other.image_ids


# ---------------------------------------------------------------- batches


def test_a_batch_is_padded_and_keeps_ids_and_sizes(data: DetectionData) -> None:
    items = DetectionSet(data, PREPROCESS)
    batch = collate([items[index] for index in range(5)])
    assert len(batch) == 5
    assert batch.images.pixels.shape == (5, 3, 48, 48)
    assert batch.image_ids == (100, 101, 102, 103, 104)
    assert batch.sizes == tuple(sample.size for sample in data.samples)
    for index in range(5):
        item, padding = items[index], batch.images.padding[index]
        height, width = item.pixels.shape[1:]
        assert torch.equal(batch.images.pixels[index, :, :height, :width], item.pixels)
        assert not padding[:height, :width].any()
        assert int(padding.sum()) == 48 * 48 - height * width
    assert batch.to("cpu").sizes == batch.sizes


def test_targets_of_training_lie_in_the_picture(data: DetectionData) -> None:
    items = DetectionSet(data, PREPROCESS, augment=SmallDataAugment())
    seen = 0
    for epoch in range(8):
        for target in collate(epoch_of(items, epoch)).targets:
            corners = cxcywh_to_xyxy(target.boxes)
            assert ((corners >= -1e-6) & (corners <= 1 + 1e-6)).all()
            assert ((target.boxes > 0) & (target.boxes <= 1)).all()
            assert (target.labels == 1).all()
            seen += len(target.labels)
    assert seen > 20


# ---------------------------------------------------------------- files that fail


def test_a_file_that_fails_is_named(data: DetectionData, tmp_path: Path) -> None:
    items = DetectionSet(data, PREPROCESS)
    content = data.samples[1].path.read_bytes()
    data.samples[1].path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"^noise: 1\.png: cannot be decoded.* \(.*1\.png\)$"):
        items[1]
    data.samples[1].path.unlink()
    with pytest.raises(DataError, match=r"^noise: 1\.png: no such file"):
        items[1]
    shutil.copyfile(data.samples[0].path, data.samples[1].path)
    with pytest.raises(DataError, match=r"1\.png: changed since .* \(60, 30\), got \(40, 60\)"):
        items[1]
    with pytest.raises(DataError, match=r"0\.png: 60 x 40 is 2,400 pixels, the limit is 100"):
        DetectionSet(data, PREPROCESS, max_pixels=100)[0]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_file_that_fails_in_a_worker_is_named_too(data: DetectionData) -> None:
    data.samples[0].path.write_bytes(b"")
    items = DetectionSet(data, PREPROCESS)
    with pytest.raises(DataError, match=r"0\.png: is empty \(0 bytes\)"):
        next(iter(DataLoader(items, collate_fn=collate, num_workers=1)))


# ---------------------------------------------------------------- cache


def test_the_cache_needs_no_files_and_shrinks_large_pictures(data: DetectionData) -> None:
    fresh, cached = DetectionSet(data, PREPROCESS), DetectionSet(data, PREPROCESS, cache=True)
    expected = [fresh[index] for index in range(5)]
    training = DetectionSet(data, PREPROCESS, augment=PlainAugment(), cache=True)
    for sample in data.samples:
        sample.path.unlink()
    for index, item in enumerate(expected):
        assert same(cached[index], item)
        assert training[index].pixels.shape == item.pixels.shape
        difference = training[index].target.boxes - item.target.boxes
        assert difference.abs().max() < 1e-5
    large = training._cache[4]
    assert large.shape == (3, *(2 * side for side in PREPROCESS.resized(120, 200)))


def test_a_full_cache_is_said_and_the_rest_is_decoded(
    data: DetectionData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(loader, "CACHE_BYTES", 10_000)
    items = DetectionSet(data, PREPROCESS, cache=True)
    assert caplog.messages == ["noise: the cache holds 2 of 5 images"]
    whole = DetectionSet(data, PREPROCESS)
    assert all(map(same, epoch_of(items, 0), epoch_of(whole, 0)))


# ---------------------------------------------------------------- ground truth


def test_the_ground_truth_of_what_is_loaded(data: DetectionData) -> None:
    value = to_coco(data)
    truth = COCO(value)
    assert sorted(truth.getImgIds()) == [100, 101, 102, 103, 104]
    assert len(truth.getAnnIds(iscrowd=True)) == 5
    box = truth.loadAnns(truth.getAnnIds(imgIds=[102], iscrowd=False))[0]
    assert (box["category_id"], list(box["bbox"]), box["area"]) == (8, [2, 4, 20, 20], 400)
    assert value["images"][0] == {"id": 100, "file_name": "0.png", "height": 40, "width": 60}

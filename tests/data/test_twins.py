"""Pictures that are there twice: the same bytes, near copies, augmented copies."""

from pathlib import Path

import numpy as np
from PIL import Image

from leandetr.data.twins import origin, same_bytes, thumbnails
from tiny_data import picture


def smooth(path: Path, seed: int, quality: int = 90, gain: float = 1.0) -> Path:
    """A picture of soft blobs, as photographs are soft."""
    small = np.random.default_rng(seed).integers(0, 200, (6, 8, 3)).astype(np.uint8)
    image = Image.fromarray(small).resize((160, 120), Image.Resampling.BICUBIC)
    image.point(lambda value: int(value * gain)).save(path, quality=quality)
    return path


def thumbs(paths: list[Path]):
    return thumbnails(paths, [(120, 160)] * len(paths), iter)


def test_files_of_the_same_bytes_are_grouped(tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{i}.png", seed) for i, seed in enumerate((1, 2, 1, 3, 1))]
    assert same_bytes([*paths, tmp_path / "gone.png"]) == [[0, 2, 4]]


def test_files_of_one_length_need_not_be_the_same(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    assert same_bytes([tmp_path / "a", tmp_path / "b"]) == []


def test_recompressed_and_brightened_copies_are_alike_and_others_are_not(tmp_path: Path) -> None:
    first = [smooth(tmp_path / f"a{seed}.jpg", seed) for seed in range(8)]
    second = [
        smooth(tmp_path / "b.jpg", 3, quality=30),
        smooth(tmp_path / "c.jpg", 5, gain=1.2),
        smooth(tmp_path / "d.jpg", 99),
    ]
    found = thumbs(first + second)
    assert found.broken == {}
    assert found.alike(range(8), [8, 9, 10]) == [(3, 8), (5, 9)]


def test_pictures_of_one_colour_are_like_nothing(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 20), "red").save(tmp_path / name)
    assert thumbs([tmp_path / "a.png", tmp_path / "b.png"]).alike([0], [1]) == []


def test_damaged_files_are_found_and_huge_ones_left_alone(tmp_path: Path) -> None:
    whole = smooth(tmp_path / "a.jpg", 1)
    cut = tmp_path / "b.jpg"
    cut.write_bytes(whole.read_bytes()[:-400])
    found = thumbnails([whole, cut, tmp_path / "gone.png"], [(9, 9), (9, 9), (10**5, 10**5)], iter)
    assert list(found.broken) == [1]
    assert "b.jpg: cannot be decoded, it may be truncated" in found.broken[1]


def test_the_origin_of_an_augmented_copy() -> None:
    assert origin(Path("x/street_jpg.rf.0a1b2c.jpg")) == "street_jpg"
    assert origin(Path("street.jpg")) is None

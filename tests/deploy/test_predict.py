"""Files in, JSON and pictures out: a bad file is one sentence, and nothing is overwritten."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from leandetr.deploy import feed
from leandetr.deploy.predict import Looked, PredictOptions, Summary, picture_names, predict
from leandetr.errors import ImageError, OutputExists
from leandetr.images import read_image
from scripted import Scripted


def one_box(size: tuple[int, int]) -> list:
    """A sure box that reaches outside the picture, and an unsure one."""
    height, width = size
    return [([-4.0, 2.0, width / 2, height + 9.0], 0.9, 1), ([0.0, 0.0, 5.0, 5.0], 0.2, 0)]


def picture(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "grey").save(path)
    return path


def run(paths: list, out: Path, **options) -> Summary:
    return predict(Scripted(one_box), paths, out, PredictOptions(**options))


def results(out: Path) -> list[dict]:
    return json.loads((out / "results.json").read_text(encoding="utf-8"))


def looked(out: Path) -> list[dict]:
    return json.loads((out / "images.json").read_text(encoding="utf-8"))


def test_results_are_coco_results_with_names(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    summary = run([path], tmp_path / "out")
    assert summary == Summary(pictures=1, detections=1, skipped=())
    assert results(tmp_path / "out") == [
        {
            "image_id": 1,
            "file_name": path.as_posix(),
            "category_id": 11,
            "category": "ring",
            "bbox": [0.0, 2.0, 20.0, 28.0],
            "score": 0.9,
        }
    ]
    assert looked(tmp_path / "out") == [
        {
            "id": 1,
            "file_name": path.as_posix(),
            "height": 30,
            "width": 40,
            "detections": 1,
            "picture": "pictures/a.png",
        }
    ]
    assert read_image(tmp_path / "out" / "pictures" / "a.png").size == (30, 40)


def test_bad_files_are_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    picture(folder / "a.jpg")
    (folder / "b.jpg").write_bytes(b"")
    (folder / "c.jpg").write_text("not an image")
    picture(folder / "d.jpg")
    (folder / "d.jpg").write_bytes((folder / "a.jpg").read_bytes()[:300])
    picture(folder / "e.png", (60, 50))
    picture(folder / "f.png", (300, 200))
    told: list[Looked] = []
    options = PredictOptions(batch=2, max_pixels=10_000)
    summary = predict(
        Scripted(one_box), [folder], tmp_path / "out", options, tell=lambda one, _: told.append(one)
    )
    assert (summary.pictures, summary.detections, len(summary.skipped)) == (2, 2, 4)
    assert [one.path.name for one in told] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.png", "f.png"]
    for name, reason in (("b", "empty"), ("c", "not an image"), ("d", "decoded"), ("f", "limit")):
        (sentence,) = [text for text in summary.skipped if f"{name}." in text.split(": ")[0]]
        assert reason in sentence
        assert sentence.count(f"{name}.") == 1
    lines = looked(tmp_path / "out")
    assert [line["id"] for line in lines if "skipped" in line] == [2, 3, 4, 6]
    assert lines[1]["skipped"] == "is empty (0 bytes), expected an image"


@pytest.mark.usefixtures("one_thread")
def test_pictures_of_one_shape_share_a_batch_and_results_keep_the_order(tmp_path: Path) -> None:
    shapes = [(20, 20), (40, 20), (20, 20), (20, 40), (40, 20), (80, 40), (20, 20), (20, 20)]
    paths = [picture(tmp_path / f"{i}.png", shape) for i, shape in enumerate(shapes)]
    model = Scripted(one_box)
    told: list[int] = []
    summary = predict(
        model,
        paths,
        tmp_path / "out",
        PredictOptions(batch=3, pictures=False),
        tell=lambda one, _: told.append(one.image_id),
    )
    assert model.batches == [
        [(20, 20)] * 3,
        [(20, 40), (20, 40), (40, 80)],  # 80x40 and 40x20 are one shape for the network
        [(40, 20)],
        [(20, 20)],
    ]
    assert told == list(range(1, 9))
    assert [line["id"] for line in looked(tmp_path / "out")] == told
    assert [line["image_id"] for line in results(tmp_path / "out")] == told
    assert [(line["width"], line["height"]) for line in looked(tmp_path / "out")] == shapes
    assert summary.padding == 0
    assert summary.rate == 8 / summary.seconds > 0
    assert not (tmp_path / "out" / "pictures").exists()


def _mixed(folder: Path) -> list[Path]:
    """Some pictures of four shapes among files that are none, also at both ends."""
    shapes = [(20, 20), (40, 20), (20, 40), (60, 20)]
    paths = [picture(folder / f"{i:02}.png", shapes[i * i % 4]) for i in range(40)]
    for index in (0, 1, 7, 20, *range(32, 40)):
        paths[index].write_bytes(b"no picture")
    return paths


@pytest.mark.usefixtures("two_threads")
def test_side_by_side_means_smaller_batches_and_the_same_files(tmp_path: Path) -> None:
    paths = _mixed(tmp_path / "in")
    beside, alone = Scripted(one_box), Scripted(one_box)
    options = PredictOptions(batch=8, pictures=False)
    summary = predict(beside, paths, tmp_path / "beside", options)
    torch.set_num_threads(1)
    assert predict(alone, paths, tmp_path / "alone", options) == summary
    torch.set_num_threads(2)
    assert (summary.pictures, len(summary.skipped)) == (28, 12)
    assert max(map(len, beside.batches)) == 4
    assert max(map(len, alone.batches)) == 8
    assert looked(tmp_path / "beside") == looked(tmp_path / "alone")
    assert results(tmp_path / "beside") == results(tmp_path / "alone")
    assert [line["id"] for line in looked(tmp_path / "beside")] == list(range(1, 41))


@pytest.mark.usefixtures("one_thread")
def test_similar_shapes_share_a_batch_where_padding_is_allowed(tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{i}.png", (30 + i, 30)) for i in range(6)]
    model = Scripted(one_box)
    options = PredictOptions(batch=3, padding=0.1, pictures=False)
    summary = predict(model, paths, tmp_path / "out", options)
    assert [len(batch) for batch in model.batches] == [3, 3]
    assert 0 < summary.padding < 0.1
    assert [line["width"] for line in looked(tmp_path / "out")] == list(range(30, 36))


def test_huge_photos_make_smaller_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "AHEAD_PIXELS", 2000)
    paths = [picture(tmp_path / f"{i}.png", (40, 30)) for i in range(5)]
    model = Scripted(one_box)
    predict(model, paths, tmp_path / "out", PredictOptions(batch=8, pictures=False))
    assert [len(batch) for batch in model.batches] == [2, 2, 1]


def test_same_names_do_not_overwrite_one_another(tmp_path: Path) -> None:
    for folder, colour in (("x", "red"), ("y", "blue")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (40, 30), colour).save(tmp_path / folder / "a.png")
    run([tmp_path / "x", tmp_path / "y"], tmp_path / "out", threshold=1.0)
    pixels = [
        read_image(tmp_path / "out" / "pictures" / folder / "a.png").pixels[:, 0, 0].tolist()
        for folder in "xy"
    ]
    assert pixels == [[255, 0, 0], [0, 0, 255]]


def test_picture_names_are_unique_and_relative() -> None:
    files = [Path("in/s/a.tiff"), Path("in/s/a.tiff.jpg"), Path("in/t/a.JPG"), Path("in/b.gif")]
    assert [name.as_posix() for name in picture_names(files)] == [
        "s/a.tiff.jpg",
        "s/a.tiff-2.jpg",
        "t/a.JPG",
        "b.gif.jpg",
    ]
    assert picture_names([Path("../x/../x/a.png")]) == [Path("a.png")]


def test_every_format_is_drawn(tmp_path: Path) -> None:
    for suffix in ("bmp", "gif", "tiff", "webp", "JPG"):
        picture(tmp_path / "in" / f"a.{suffix}")
    run([tmp_path / "in"], tmp_path / "out")
    drawn = sorted(path.name for path in (tmp_path / "out" / "pictures").iterdir())
    assert drawn == ["a.JPG", "a.bmp.jpg", "a.gif.jpg", "a.tiff.jpg", "a.webp"]


def test_existing_output_is_kept_unless_asked(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    run([path], tmp_path / "out")
    with pytest.raises(OutputExists, match="--overwrite"):
        run([path], tmp_path / "out")
    run([path], tmp_path / "out", threshold=0.0, overwrite=True)
    assert len(results(tmp_path / "out")) == 2


def test_drawn_pictures_are_no_inputs(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    run([tmp_path], tmp_path)
    assert run([tmp_path], tmp_path, overwrite=True).pictures == 1
    with pytest.raises(ImageError, match="drawn"):
        run([tmp_path / "pictures"], tmp_path, overwrite=True)


def test_an_interrupted_run_keeps_what_it_had(tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{i}.png") for i in range(6)]

    def stop(one: Looked, total: int) -> None:
        assert total == 6
        if one.image_id == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict(Scripted(one_box), paths, tmp_path / "out", PredictOptions(batch=2), tell=stop)
    assert len(results(tmp_path / "out")) == 4
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_a_missing_path_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="nothing_here"):
        run([tmp_path / "nothing_here"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_need_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    path = picture(tmp_path / "a.png")
    run([path], tmp_path / "out")
    drawn = read_image(tmp_path / "out" / "pictures" / "a.png").pixels
    assert (drawn != read_image(path).pixels).any()


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_not_utf8_are_written(tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xe9.png")
    Image.new("RGB", (40, 30)).save(odd)
    run([odd], tmp_path / "out")
    assert results(tmp_path / "out")[0]["file_name"].endswith("??.png")


@pytest.mark.parametrize("wrong", [{"batch": 0}, {"max_pixels": 0}, {"threads": 0}])
def test_senseless_numbers_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="at least 1; got 0"):
        PredictOptions(**wrong)
    with pytest.raises(ValueError, match="1 left out; got 1"):
        PredictOptions(padding=1.0)

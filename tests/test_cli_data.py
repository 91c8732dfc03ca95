"""`leandetr data ...`: what is printed, where, and with which exit code."""

import json
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner, Result

from leandetr.cli import app
from tiny_data import text, write_coco, write_voc, write_yolo


def leandetr(*words: object) -> Result:
    return CliRunner().invoke(app, ["data", *(str(word) for word in words)])


def test_check_prints_draws_and_fails_when_strict(tmp_path: Path) -> None:
    root = write_voc(tmp_path / "set")
    page = tmp_path / "out" / "sheet.png"
    done = leandetr("check", root, "--sheet", page, "--count", "2")
    assert done.exit_code == 0, done.output
    assert "train (Pascal VOC)" in done.stdout
    assert "0 errors, 2 warnings. Training can start." in done.stdout
    with Image.open(page) as image:
        assert (image.format, image.width) == ("PNG", 1600)
    again = leandetr("check", root, "--sheet", page)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr
    assert leandetr("check", root, "--strict").exit_code == 1


def test_check_prints_json_and_fails_on_errors(tmp_path: Path) -> None:
    root = write_yolo(tmp_path)
    text(root / "labels" / "train" / "two.txt", "7 .5 .5 .1 .1\n")
    done = leandetr("check", root, "--json")
    assert done.exit_code == 1
    value = json.loads(done.stdout)
    assert value["ok"] is False
    assert "class-unknown" in {one["kind"] for one in value["findings"]}
    assert value["splits"][0]["classes"] == {"cell": 1, "dust é": 2, "a/b c": 2}


def test_check_says_what_was_looked_for(tmp_path: Path) -> None:
    done = leandetr("check", tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"leandetr: {tmp_path}: no data set recognised (looked for COCO")


def test_a_sheet_needs_a_suffix_of_a_picture(tmp_path: Path) -> None:
    done = leandetr("check", write_voc(tmp_path / "set"), "--sheet", tmp_path / "sheet.doc")
    assert done.exit_code == 2
    assert "expected a picture such as sheet.png" in done.output


def test_convert_split_and_sample_tell_what_they_wrote(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    done = leandetr("convert", root, tmp_path / "yolo", "--to", "yolo")
    assert done.exit_code == 0, done.output
    assert done.stdout == (
        f"train          4 images          6 boxes\nwritten to {tmp_path / 'yolo'} (yolo)\n"
    )
    done = leandetr("split", root, tmp_path / "new", "--val", "0.25", "--seed", "1", "--link")
    assert done.exit_code == 0, done.output
    assert "val            1 images" in done.stdout
    done = leandetr("sample", root, tmp_path / "few", "2", "--to", "voc")
    assert "(voc)" in done.stdout
    assert leandetr("sample", root, tmp_path / "few", "2").exit_code == 2


def test_what_was_left_out_is_told_with_code_1(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set")
    text(root / "labels" / "train" / "two.txt", "7 .5 .5 .1 .1\n")
    done = leandetr("convert", root, tmp_path / "new", "--to", "coco")
    assert done.exit_code == 1
    assert "two.txt line 1: expected a class of 0 cell" in done.stderr
    assert done.stdout.endswith("(coco); 1 left out\n")

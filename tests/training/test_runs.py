import json
from pathlib import Path

import pytest
import torch

from leandetr.data.dataset import Category, DetectionData, Sample
from leandetr.errors import TrainingError
from leandetr.recipes.recipe import Recipe
from leandetr.training.about import RUN, fingerprint, git_commit, read_about, write_about
from leandetr.training.record import METRICS
from leandetr.training.runs import draw, find_runs, flat, settings_that_differ, table

HEADER = (
    "epoch,step,minutes,lr,skipped,loss,labels,boxes,giou,ap,ap50,ap75,ap_small,ap_medium,ap_large"
)


def data(label: int = 0, name: str = "a.png") -> DetectionData:
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    one = (torch.tensor([label]), torch.tensor([False]), torch.tensor([4.0]))
    sample = Sample(Path("somewhere") / name, 1, (8, 9), boxes, *one)
    return DetectionData("cells", (Category(1, "cell"), Category(2, "dust")), (sample,))


def put(folder: Path, recipe: Recipe, scores: tuple[float, ...]) -> None:
    """A run with a validation an epoch."""
    folder.mkdir(parents=True)
    write_about(folder, recipe, [data()], torch.device("cpu"))
    lines = [f"{i + 1},{i + 1},{i},1e-3,0,{9 - i},1,1,1,{ap},{ap},{ap},,," for i, ap in
             enumerate(scores)]  # fmt: skip
    (folder / METRICS).write_text("\n".join([HEADER, *lines]))


def test_the_fingerprint_sees_names_labels_and_boxes_but_not_the_place() -> None:
    first = data()
    moved = DetectionData("else", first.categories, first.samples)
    assert fingerprint(moved) == fingerprint(first)
    assert len({fingerprint(one) for one in (first, data(label=1), data(name="b.png"))}) == 3


def test_a_run_that_goes_on_keeps_its_record_and_says_if_the_data_changed(
    tiny: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for label, resume in ((0, False), (1, True)):
        write_about(tmp_path, tiny, [data(label)], torch.device("cpu"), resume=resume)
    about = read_about(tmp_path)
    assert about["data"][0]["fingerprint"] == fingerprint(data())
    assert about["data"][0]["boxes"] == 1
    assert len(about["sessions"]) == 2
    assert about["sessions"][0]["leandetr"]
    assert "is not what it was when the run began" in caplog.text
    (tmp_path / RUN).write_text("[]")
    with pytest.raises(TrainingError, match="expected the record of a run"):
        read_about(tmp_path)


def test_a_run_that_begins_anew_has_a_new_record(tiny: Recipe, tmp_path: Path) -> None:
    for seed in (0, 5):  # the first came to no checkpoint
        write_about(tmp_path, tiny.with_train(seed=seed), [data(seed)], torch.device("cpu"))
    about = read_about(tmp_path)
    assert about["seed"] == 5
    assert about["data"][0]["fingerprint"] == fingerprint(data(5))
    assert len(about["sessions"]) == 1


def test_outside_a_repository_there_is_no_commit(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None


def test_runs_are_compared_best_first_with_what_differs(tiny: Recipe, tmp_path: Path) -> None:
    put(tmp_path / "slow", tiny.with_train(lr=1e-5), (0.1, 0.2))
    put(tmp_path / "more" / "fast", tiny, (0.3, 0.25))
    put(tmp_path / "unvalidated", tiny, ())
    put(tmp_path / "broken", tiny, (0.1,))
    (tmp_path / "broken" / RUN).write_text("{")
    runs, complaints = find_runs(tmp_path)
    assert [run.name for run in runs] == ["more/fast", "slow", "unvalidated"]
    assert len(complaints) == 1
    assert "broken" in complaints[0]
    assert settings_that_differ(runs) == {"train.lr": [1e-3, 1e-5, 1e-3]}
    lines = table(runs).splitlines()
    assert lines[1].split()[:7] == ["more/fast", "30.0", "30.0", "30.0", "1", "2", "1"]
    assert any(line.startswith("train.lr") for line in lines)
    draw(runs, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_a_folder_without_runs_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="leandetr train --out"):
        find_runs(tmp_path)


def test_a_tree_is_flattened_by_paths() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "d": [2]}


def test_the_record_is_json_a_person_can_read(tiny: Recipe, tmp_path: Path) -> None:
    write_about(tmp_path, tiny, [data()], torch.device("cpu"))
    content = json.loads((tmp_path / RUN).read_text())
    assert content["seed"] == tiny.train.seed
    assert content["data"][0]["classes"] == ["cell", "dust"]

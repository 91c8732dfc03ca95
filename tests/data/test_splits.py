"""What splits are called, and what is said when one is not there."""

import pytest

from leandetr.data.splits import match, no_split, usual


@pytest.mark.parametrize(
    ("given", "meant"),
    [("valid", "val"), ("Validation", "val"), ("train2017", "train"), ("TEST", "test")],
)
def test_names_that_mean_the_same(given: str, meant: str) -> None:
    assert usual(given) == meant


def test_other_names_mean_themselves() -> None:
    assert usual("fold3") == "fold3"


def test_the_name_itself_goes_first() -> None:
    assert match("val", ["valid", "val"]) == "val"
    assert match("valid", ["valid", "val"]) == "valid"


def test_a_name_that_means_the_same_is_found() -> None:
    assert match("val", ["train", "valid"]) == "valid"
    assert match("test", ["train", "valid"]) is None


def test_two_that_mean_the_same_leave_it_open() -> None:
    assert match("val", ["valid", "validation"]) is None


def test_what_is_there_instead_is_said() -> None:
    said = str(no_split("data", "tset", ["train", "test"], "annotations/instances_<split>.json"))
    assert said == (
        "data: no split 'tset'; did you mean test? (looked for annotations/instances_<split>.json; "
        "splits found: test, train)"
    )
    assert "splits found: none" in str(no_split("data", "val", [], "x"))

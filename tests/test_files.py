"""Files are whole or not there at all."""

import json
from pathlib import Path

import pytest

from leandetr.errors import OutputExists
from leandetr.files import JsonArray, refuse_existing, whole, write_json


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    write_json(path, {"ap": 0.5})
    with pytest.raises(RuntimeError):
        _half_written(path)
    assert json.loads(path.read_text()) == {"ap": 0.5}
    assert [p.name for p in tmp_path.iterdir()] == ["scores.json"]


def _half_written(path: Path) -> None:
    with whole(path) as partial:
        partial.write_text("half")
        raise RuntimeError


def test_nan_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "scores.json", {"ap": float("nan")})
    assert not list(tmp_path.iterdir())


def test_an_interrupted_array_keeps_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    with pytest.raises(KeyboardInterrupt):
        _interrupted(path)
    assert json.loads(path.read_text(encoding="utf-8")) == [{"name": "细胞"}, {"name": "b"}]


def _interrupted(path: Path) -> None:
    with JsonArray(path) as array:
        array.extend([{"name": "细胞"}, {"name": "b"}])
        assert not path.exists()
        raise KeyboardInterrupt


def test_an_array_of_nothing_is_valid(tmp_path: Path) -> None:
    with JsonArray(tmp_path / "results.json"):
        pass
    assert json.loads((tmp_path / "results.json").read_text()) == []


def test_a_killed_run_leaves_readable_lines(tmp_path: Path) -> None:
    with JsonArray(tmp_path / "results.json") as array:
        array.extend([{"score": 1}, {"score": 2}])
        lines = (tmp_path / "results.json.partial").read_text().splitlines()
    assert [json.loads(line.rstrip(",")) for line in lines[1:]] == [{"score": 1}, {"score": 2}]


def test_existing_output_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").touch()
    with pytest.raises(OutputExists, match=r"a\.json.*--overwrite"):
        refuse_existing([tmp_path / "a.json", tmp_path / "b.json"], overwrite=False)
    refuse_existing([tmp_path / "a.json"], overwrite=True)

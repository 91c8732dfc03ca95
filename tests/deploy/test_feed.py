"""Files are read ahead, in order, in bounded memory; answers do not depend on the neighbours."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import torch
from PIL import Image

from leandetr.deploy import feed
from leandetr.deploy.feed import Read, Reader, Ready, chunks, read_ahead, read_in_turns
from leandetr.deploy.predict import PredictOptions, predict
from leandetr.images import Preprocess, read_image, resize
from leandetr.models.detector import Detector
from tiny import tiny_model


def write(folder: Path, shapes: list[tuple[int, int]]) -> list[Path]:
    """Pictures of noise, (width, height) each."""
    generator = torch.Generator().manual_seed(0)
    paths = []
    for index, (width, height) in enumerate(shapes):
        noise = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        path = folder / f"{index:02}.png"
        Image.fromarray(noise.numpy()).save(path)
        paths.append(path)
    return paths


def test_what_is_read_is_the_resized_picture(tmp_path: Path) -> None:
    (path,) = write(tmp_path, [(40, 20)])
    (tmp_path / "bad.png").write_text("text")
    preprocess = Preprocess(short=16, long=64)
    ready = Reader(preprocess, 10_000, whole=True).read(path).ready
    assert ready is not None
    assert torch.equal(ready.resized, resize(read_image(path).pixels, 16, 32))
    assert (ready.size, ready.photo is not None) == ((20, 40), True)
    slim = Reader(preprocess, 10_000, whole=False)
    assert slim.read(path).ready.photo is None  # pyright: ignore[reportOptionalMemberAccess]
    bad = slim.read(tmp_path / "bad.png")
    assert bad.ready is None
    assert bad.problem is not None
    assert bad.problem.startswith(f"{tmp_path.as_posix()}/bad.png: is not an image")
    assert "limit is 799" in str(Reader(preprocess, 799, whole=False).read(path).problem)


class Counting:
    """Stands for `Reader.read`; counts how many pictures somebody has asked for."""

    def __init__(self, side: int) -> None:
        self.side = side
        self.started = 0
        self.lock = threading.Lock()

    def __call__(self, path: Path) -> Read:
        with self.lock:
            self.started += 1
        pixels = torch.zeros(3, 1, 1, dtype=torch.uint8)
        return Read(path, Ready(pixels, (self.side, self.side), None, None))


FILES = [Path(str(index)) for index in range(30)]
READER = Reader(Preprocess(), 1, whole=False)


@pytest.mark.parametrize(("side", "ahead"), [(1, 6), (1000, 6), (4000, 3), (20_000, 1)])
def test_no_more_is_read_ahead_than_memory_allows(
    side: int, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Counting(side)
    monkeypatch.setattr(Reader, "read", staticmethod(read))
    seen = []
    with ThreadPoolExecutor(2) as pool:
        for index, one in enumerate(read_ahead(pool, FILES, READER, 6)):
            seen.append(one.path)
            if index > 6:  # by then it is known how large they are
                assert read.started <= index + 1 + ahead
    assert seen == FILES
    assert read.started == 30


@pytest.mark.parametrize(("side", "first", "later"), [(1, 6, 6), (4000, 6, 3), (20_000, 6, 1)])
def test_files_read_in_turns_are_read_together_and_in_order(
    monkeypatch: pytest.MonkeyPatch, side: int, first: int, later: int
) -> None:
    counting = Counting(side)
    monkeypatch.setattr(Reader, "read", lambda _, path: counting(path))
    with ThreadPoolExecutor(3) as pool:
        found = []
        for one in read_in_turns(pool, FILES, READER, 6):
            found.append(one.path)
            given = len(found)
            groups = 0 if given <= first else -(-(given - first) // later)
            assert counting.started == min(first + groups * later, len(FILES))
    assert found == FILES


def test_the_model_shares_no_processor_with_readers_where_it_takes_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path, [(40, 20)] * 3)
    used = []
    for name in ("read_ahead", "read_in_turns"):
        plain = getattr(feed, name)
        monkeypatch.setattr(
            f"leandetr.deploy.predict.{name}",
            lambda *given, plain=plain, name=name: used.append(name) or plain(*given),
        )
    monkeypatch.setattr("os.cpu_count", lambda: torch.get_num_threads())
    predict(tiny_model(), [tmp_path], tmp_path / "all", PredictOptions(pictures=False))
    monkeypatch.setattr("os.cpu_count", lambda: torch.get_num_threads() + 1)
    predict(tiny_model(), [tmp_path], tmp_path / "some", PredictOptions(pictures=False))
    assert used == ["read_in_turns", "read_ahead"]


def test_whoever_stops_early_leaves_nothing_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    read, going = Counting(1), threading.Event()

    def slow(path: Path) -> Read:
        one = read(path)
        assert path == FILES[0] or going.wait(20)
        return one

    monkeypatch.setattr(Reader, "read", staticmethod(slow))
    with ThreadPoolExecutor(1) as pool:
        with closing(read_ahead(pool, FILES, READER, 8)) as ahead:  # pyright: ignore[reportArgumentType]
            next(ahead)
        going.set()
    assert read.started <= 2  # the one that was given, and the one under way


def test_chunks_are_cut_short_where_photos_are_huge() -> None:
    def photo(side: int) -> Read:
        pixels = torch.zeros(3, 1, 1, dtype=torch.uint8)
        return Read(Path("a"), Ready(pixels, (side, side), None, None))

    bad = Read(Path("b"), None, "b: empty")
    files = [photo(1), photo(1), bad, photo(1), photo(8000), photo(6000), photo(6000), photo(1)]
    assert [len(chunk) for chunk in chunks(files, 3)] == [3, 2, 2, 1]
    assert feed.AHEAD_PIXELS == 50_000_000


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    model = tiny_model("dino-nano").eval()
    model.preprocess = Preprocess(short=32, long=64)
    model.names = ("a", "b", "c")
    return model


SHAPES = [(40, 30), (30, 40), (80, 60), (40, 40), (40, 30), (90, 30), (36, 27)]


def test_files_together_give_what_each_gives_alone(detector: Detector, tmp_path: Path) -> None:
    paths = write(tmp_path, SHAPES)
    lines = {}
    for batch in (1, 4):
        out = tmp_path / f"out{batch}"
        options = PredictOptions(threshold=0.0, batch=batch, pictures=False, threads=2)
        assert predict(detector, paths, out, options).padding == 0
        lines[batch] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert [line["image_id"] for line in lines[4]] == [line["image_id"] for line in lines[1]]
    for together, alone in zip(lines[4], lines[1], strict=True):
        assert together["score"] == pytest.approx(alone["score"], abs=2e-5)
        assert together["category_id"] == alone["category_id"]
        assert together["bbox"] == pytest.approx(alone["bbox"], abs=0.02)


def test_sources_together_give_what_each_gives_alone(detector: Detector, tmp_path: Path) -> None:
    paths = write(tmp_path, SHAPES)
    together = detector.predict(paths, threshold=0.0, batch=5)
    for path, found in zip(paths, together, strict=True):
        (alone,) = detector.predict(path, threshold=0.0)
        torch.testing.assert_close(found.scores, alone.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.boxes, alone.boxes, atol=1e-3, rtol=0)

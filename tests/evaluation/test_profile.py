"""Profiles: parts add up, times are spread, and what is shown is what was measured."""

import json
import time
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from leandetr.cli import app
from leandetr.errors import RecipeError
from leandetr.evaluation import profile_picture, profile_text, timing
from leandetr.evaluation.conventions import CONVENTIONS, LITE, Convention
from leandetr.evaluation.counting import Tally
from leandetr.evaluation.parts import OUTSIDE, Part
from leandetr.evaluation.profile import How, profile
from leandetr.evaluation.timing import Clock, Measured, Spread, process_memory
from leandetr.recipes import recipe

NANO, SMALL = "lite-dino-nano", (64, 96)
NECK, CPU = Part("neck"), torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def small_products():
    """Matrices that multiply in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "SQUARE", {"cpu": 32})
        yield


@pytest.fixture(scope="module")
def found():
    return profile(NANO, SMALL, how=How(device="cpu", passes=3))


def test_parts_add_up_to_the_whole(found):
    assert sum(row.parameters for row in found.rows) == found.parameters
    assert sum(row.gmacs for row in found.rows) == pytest.approx(found.gmacs)
    fastest = sum(row.latency.p10 for row in found.rows)
    slowest = sum(row.latency.p90 for row in found.rows)
    assert fastest < 1.5 * found.latency.p90
    assert slowest > 0.5 * found.latency.p10


def test_parts_come_in_the_order_of_work(found):
    assert [row.name for row in found.rows] == [
        "backbone",
        "neck",
        "encoder, 1 high-level layer",
        "encoder, 1 full layer",
        "encoder, rest",
        "query selection",
        "decoder",
        "heads",
        "post-processing",
        "training only",
    ]


def test_times_speeds_and_memory_are_there(found):
    for row in (*found.rows[:-1], found):
        assert 0 < row.latency.p10 <= row.latency.median <= row.latency.p90
    assert found.share_of_peak > 0
    assert [row.share_of_peak is None for row in found.rows] == [
        not row.gmacs for row in found.rows
    ]
    assert found.peak_memory > 64 * 96 * 4
    assert found.matmul_peak > 0


def test_a_profile_is_plain_values(found):
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["rows"][3]["part"] == "encoder, 1 full layer"
    assert told["latency"]["median"] == found.latency.median
    assert told["how"]["device"] == "cpu"


def test_text_has_a_row_a_part_and_says_what_was_counted(found):
    page = profile_text.markdown(found)
    for row in found.rows:
        assert f"| {row.name} | " in page
    assert "| **whole** | **2.22M** |" in page
    assert "Counted: convolutions, matrix products, attention, all of sampling." in page
    assert profile_text.table(found).row_count == len(found.rows)
    counted = profile_text.counted(Tally("none", norms=True, unread=True))
    assert counted.endswith("attention, norms, what official code works out and nobody reads")


def test_a_picture_has_a_colour_a_part(found, tmp_path):
    profile_picture.draw(found, tmp_path / "parts.png")
    written = (tmp_path / "parts.png").read_bytes()
    assert written.startswith(b"\x89PNG")
    assert len(written) < 100_000
    colours = profile_picture.colours_of(list(found.rows[:-1]))
    assert len(set(colours)) == len(colours)


@pytest.mark.parametrize("sampling", ["all", "grid", "key-aware", "none"])
def test_all_that_is_counted_fits_on_the_picture(found, sampling):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tally = Tally(sampling, norms=True, elementwise=True, unread=True)
    figure = Figure(figsize=(12, 5), dpi=100)
    FigureCanvasAgg(figure)
    profile_picture._titles(figure, replace(found, tally=tally))
    title, about, _ = (text.get_window_extent() for text in figure.texts)
    assert about.x1 < figure.bbox.x1
    assert about.y1 < title.y0
    assert about.y0 > 0.82 * figure.bbox.y1  # the headings of both halves are below


def test_a_pass_is_cut_into_parts_without_gaps():
    clock = Clock(CPU)
    clock.start()
    time.sleep(0.02)
    clock.change(NECK)
    time.sleep(0.03)
    clock.change(OUTSIDE)
    spent = clock.stop()
    assert set(spent) == {OUTSIDE, NECK}
    assert spent[NECK] >= 0.03
    assert spent[OUTSIDE] >= 0.02


def test_a_spread_is_linear_between_measurements():
    assert Spread.of([3.0]) == Spread(3.0, 3.0, 3.0)
    spread = Spread.of([float(value) for value in range(11)])
    assert (spread.p10, spread.median, spread.p90) == pytest.approx((1, 5, 9))


def test_shares_are_of_the_rate_right_after_each_pass():
    """A machine that is slow for a while is slow for both."""
    passes = ({NECK: 1.0, OUTSIDE: 1.0}, {NECK: 2.0, OUTSIDE: 2.0}, {NECK: 4.0})
    measured = Measured(passes, (40.0, 20.0, 10.0), peak=0, held=None)
    assert measured.share(10.0, NECK) == pytest.approx(0.25)
    assert measured.share(0.0, NECK) is None
    assert measured.seconds() == [2.0, 4.0, 4.0]


def test_memory_of_the_process_is_what_it_held_on_top():
    held = process_memory(lambda: torch.ones(16, 2**20))
    if held is None:
        pytest.skip("this system does not tell")
    assert 60 * 2**20 < held < 200 * 2**20


def test_a_convention_brings_its_size_and_its_tally(monkeypatch):
    monkeypatch.setattr("leandetr.evaluation.profile.WARM_UP", 0)
    monkeypatch.setitem(CONVENTIONS, "64x96", Convention("64x96", ((SMALL, 1),), LITE, "small"))
    once = How(device="cpu", passes=1, batch=2)
    by_name = profile(NANO, convention="64x96", how=once)
    assert (by_name.size, by_name.tally) == (SMALL, LITE)
    assert "(convention 64x96), batch 2" in profile_text.heading(by_name)
    with pytest.raises(RecipeError, match=r"either --size or --convention"):
        profile(NANO, SMALL, convention="64x96")


def test_the_average_of_a_file_is_timed_at_its_commonest_size(tmp_path, monkeypatch):
    monkeypatch.setattr("leandetr.evaluation.profile.WARM_UP", 0)
    sides = [(60, 60), (60, 80), (60, 80)]
    images = [{"id": n, "height": h, "width": w} for n, (h, w) in enumerate(sides)]
    (tmp_path / "own.json").write_text(json.dumps({"images": images}))
    small = recipe(NANO)
    small = replace(small, preprocess=replace(small.preprocess, short=60, long=80))
    name = f"coco:{tmp_path / 'own.json'}"
    found = profile(small, convention=name, how=How(device="cpu", passes=1))
    assert found.size == (60, 80)
    assert found.gmacs == pytest.approx(sum(row.gmacs for row in found.rows))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"dtype": "float8"}, "float32, bfloat16; got 'float8'"), ({"passes": 0}, "at least 1; got")],
)
def test_how_to_measure_is_checked(wrong, said):
    with pytest.raises(RecipeError, match=said):
        How(**wrong)


def leandetr(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_the_command_prints_and_writes(tmp_path):
    json_path, page, picture = (tmp_path / name for name in ("p.json", "p.md", "p.svg"))
    outputs = ("--json", json_path, "--markdown", page, "--picture", picture)
    words = ("profile", NANO, "--size", "64x96", "--passes", 1, "--device", "cpu")
    done = leandetr(*words, "--sampling", "none", "--norms", *outputs)
    assert done.exit_code == 0, done.output
    assert "lite-dino-nano at 64x96, batch 1, float32, cpu" in done.output
    assert "attention, norms." in done.output
    told = json.loads(json_path.read_text())
    assert told["tally"] == {
        "sampling": "none", "norms": True, "elementwise": False, "unread": False
    }  # fmt: skip
    assert "| **whole** |" in page.read_text()
    assert picture.read_text().startswith("<?xml")
    again = leandetr(*words, *outputs)
    assert (again.exit_code, "--overwrite" in again.output) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "800"), "expected --size as HEIGHTxWIDTH in pixels; got '800'"),
        (("--convention", "800"), "expected a convention of 850x1040"),
        (("--device", "tpu9"), "device 'tpu9' cannot be used"),
        (("--convention", "coco:gone.json"), "'gone.json' cannot be read (No such file"),
        (("--convention", "coco:"), "'.' cannot be read (Is a directory); type --convention coco:"),
        (("--picture", "p.bmpp"), "ends in .png, .svg or .pdf; got 'p.bmpp'; type --picture p.png"),
    ],
)
def test_a_slip_is_one_sentence_before_anything_is_measured(monkeypatch, words, said):
    monkeypatch.setattr("leandetr.evaluation.profile.measure", None)
    done = leandetr("profile", NANO, *words)
    assert done.exit_code == 2
    assert said in done.output


def test_folders_of_outputs_are_made_before_anything_is_measured(tmp_path, monkeypatch):
    page = tmp_path / "new" / "folder" / "p.json"
    monkeypatch.setattr("leandetr.evaluation.profile.measure", lambda *_, **__: page.parent.stat())
    done = leandetr("profile", NANO, "--size", "64x96", "--json", page)
    assert page.parent.is_dir(), done.output


@pytest.mark.gpu
def test_a_gpu_is_timed_with_its_own_clock():
    found = profile(NANO, SMALL, how=How(device="cuda", passes=3))
    assert found.latency.median > 0
    assert found.process_memory is None

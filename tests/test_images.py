"""Every kind of file, array and tensor becomes an upright picture, or one clear sentence."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from leandetr import decode
from leandetr.decode import upright_size
from leandetr.errors import ImageError, ImageTooLarge, RecipeError, UnreadableImage
from leandetr.images import Preprocess, list_images, pad, read_image, resize

AWKWARD = Path(__file__).parent / "fixtures" / "awkward"
SPACES = "name with spaces é 细胞.jpg"
ORIENTATION = 0x0112

CELLS = {  # the same picture: note, and the largest mean difference from it in grey levels
    "CAPITAL.JPG": (None, 0.1),
    "cmyk.jpg": (None, 1),
    "exif_rotated_6.jpg": (None, 1),
    "float32.tiff": ("float scaled to 8 bit", 12),
    "grey.jpg": (None, 0.5),
    "ok.tiff": (None, 0),
    "palette.gif": (None, 3),
    "png_named.jpg": (None, 0),
    "sixteen_bit.png": ("16 bit scaled to 8", 0.5),
}
READ = {  # other pictures: height, width, note
    "alpha.png": (480, 640, "alpha composited over white"),
    "animated.gif": (120, 160, "first of 3 frames"),
    "animated.webp": (120, 160, "first of 3 frames"),
    "grey_alpha.png": (480, 640, "alpha composited over white"),
    "ok.bmp": (480, 640, None),
    "ok.webp": (300, 451, None),
    "one_bit.png": (480, 640, None),
    "one_pixel.png": (1, 1, None),
    "very_tall.jpg": (3000, 60, None),
    "very_wide.jpg": (100, 4000, None),
}
REFUSED = {
    "text_named.jpg": "is not an image of a known format; convert it to JPEG or PNG",
    "truncated.jpg": "cannot be decoded, it may be truncated or damaged",
    "truncated.png": "cannot be decoded, it may be truncated or damaged",
    "zero_bytes.jpg": "is empty (0 bytes), expected an image",
    "bomb_30000x30000.png": "30000 x 30000 is 900,000,000 pixels, the limit is 100,000,000; "
    "pass max_pixels=900000000",
}


def grey(path: Path) -> torch.Tensor:
    """H W of 0..255, the colours averaged as eyes do."""
    weights = torch.tensor((0.299, 0.587, 0.114)).view(3, 1, 1)
    return (read_image(path).pixels * weights).sum(dim=0)


# ---------------------------------------------------------------- files


def test_every_awkward_file_is_spoken_for() -> None:
    assert {p.name for p in AWKWARD.iterdir()} == {*CELLS, *READ, *REFUSED}


@pytest.mark.parametrize("name", CELLS)
def test_the_same_cells_are_seen_in_every_encoding(name: str) -> None:
    note, tolerance = CELLS[name]
    photo = read_image(AWKWARD / name)
    assert photo.size == (480, 640)
    assert photo.note == note
    assert photo.name == name
    difference = grey(AWKWARD / name) - grey(AWKWARD / "ok.bmp")
    assert difference.abs().mean() <= tolerance


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read(name: str) -> None:
    height, width, note = READ[name]
    photo = read_image(str(AWKWARD / name))
    assert photo.pixels.shape == (3, height, width)
    assert photo.pixels.dtype == torch.uint8
    assert photo.note == note


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_one_sentence_with_its_name(name: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_image(AWKWARD / name)
    message = str(caught.value)
    assert message.startswith(f"{name}: {REFUSED[name]}")
    assert "\n" not in message


def test_a_name_with_spaces_and_letters_of_any_script(tmp_path: Path) -> None:
    path = shutil.copyfile(AWKWARD / "CAPITAL.JPG", tmp_path / SPACES)
    assert read_image(path).name == SPACES
    assert list_images([tmp_path]) == [path]


@pytest.mark.parametrize("name", ["alpha.png", "grey_alpha.png"])
def test_what_is_transparent_is_white(name: str) -> None:
    alpha = torch.from_numpy(np.array(Image.open(AWKWARD / name).convert("RGBA"))[..., 3])
    pixels = read_image(AWKWARD / name).pixels
    assert (pixels[:, alpha == 0] == 255).all()
    assert (pixels[:, alpha == 255] < 255).any()


def test_palette_transparency_is_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    assert read_image(tmp_path / "a.png").pixels[:, 0].T.tolist() == [[255] * 3, [0, 0, 255]]


def test_one_bit_is_black_and_white() -> None:
    assert set(read_image(AWKWARD / "one_bit.png").pixels.unique().tolist()) == {0, 255}


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_is_applied_and_the_header_agrees(tmp_path: Path, turn: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    image.save(tmp_path / "a.png", exif=exif)
    expected = {  # rows of the upright picture, as indices of what is stored
        1: [[0, 1, 2], [3, 4, 5]],
        2: [[2, 1, 0], [5, 4, 3]],
        3: [[5, 4, 3], [2, 1, 0]],
        4: [[3, 4, 5], [0, 1, 2]],
        5: [[0, 3], [1, 4], [2, 5]],
        6: [[3, 0], [4, 1], [5, 2]],
        7: [[5, 2], [4, 1], [3, 0]],
        8: [[2, 5], [1, 4], [0, 3]],
    }[turn]
    photo = read_image(tmp_path / "a.png")
    assert (photo.pixels[0] // 40).tolist() == expected
    assert upright_size(tmp_path / "a.png") == photo.size


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    (tmp_path / "b.png").write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    assert read_image(tmp_path / "b.png").size == (30, 20)
    assert upright_size(tmp_path / "b.png") == (30, 20)


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"^gone\.jpg: no such file; check the path"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(UnreadableImage, match=rf"^{tmp_path.name}: is a folder"):
        read_image(tmp_path)
    with pytest.raises(UnreadableImage, match=r"^text_named\.jpg: is not an image"):
        upright_size(AWKWARD / "text_named.jpg")


# ---------------------------------------------------------------- limits


def test_the_limit_is_checked_before_decoding_and_can_be_raised() -> None:
    path = AWKWARD / "ok.tiff"
    with pytest.raises(ImageTooLarge, match=r"^ok\.tiff: 640 x 480 is 307,200 .*=307200 "):
        read_image(path, max_pixels=307_199)
    assert read_image(path, max_pixels=307_200).size == (480, 640)


def test_a_bomb_is_never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    path = AWKWARD / "bomb_30000x30000.png"
    with Image.open(AWKWARD / "one_pixel.png") as image:
        monkeypatch.setattr(type(image), "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(ImageTooLarge):
        read_image(path)
    assert upright_size(path) == (30_000, 30_000)


def test_pillows_own_limit_gives_way_to_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(AWKWARD / "ok.bmp").size == (480, 640)
    with pytest.raises(UnreadableImage):
        read_image(AWKWARD / "truncated.png")
    assert Image.MAX_IMAGE_PIXELS == 100


def test_threads_decode_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits inside `load` for the other: with one lock around it, neither would come back."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    meeting = threading.Barrier(2, timeout=20)
    seen: list[object] = []

    class Slow(Image.Image):
        waited = False

        def load(self) -> object:
            if not self.waited:
                self.waited = True
                meeting.wait()
                seen.append(Image.MAX_IMAGE_PIXELS)
                meeting.wait()
            return super().load()

    def work() -> None:
        image = Slow()
        core = Image.new("RGB", (20, 20))
        image.im, image._mode, image._size = core.im, core.mode, core.size
        seen.append(decode.decode_pil(image, "slow", 400).pixels.shape)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, seen)) == ["(20, 20, 3)"] * 2 + ["None"] * 2
    assert Image.MAX_IMAGE_PIXELS == 100


# ---------------------------------------------------------------- images, arrays and tensors

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14


def test_arrays_tensors_and_images_agree() -> None:
    expected = torch.from_numpy(RGB).permute(2, 0, 1)
    sources = [
        RGB,
        RGB / 255,
        np.asfortranarray(RGB),
        Image.fromarray(RGB),
        expected,
        expected / 255,
    ]
    for source in sources:
        assert torch.equal(read_image(source).pixels, expected)
    assert read_image(RGB).name == "array"
    assert read_image(expected).name == "tensor"
    assert read_image(Image.fromarray(RGB)).name == "PIL image"
    with Image.open(AWKWARD / "one_pixel.png") as image:
        assert read_image(image).name == "one_pixel.png"


def test_grey_and_alpha_arrays() -> None:
    assert torch.equal(
        read_image(RGB[..., 0]).pixels, torch.from_numpy(RGB[..., 0]).expand(3, -1, -1)
    )
    clear = np.concatenate((RGB, np.zeros_like(RGB[..., :1])), axis=-1)
    assert (read_image(clear).pixels == 255).all()
    assert read_image(clear).note == "alpha composited over white"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((2, 3, 2), np.uint8), "array: expected H x W, .* got 2 x 3 x 2"),
        (np.zeros(5, np.uint8), "array: expected H x W, .* got 5"),
        (np.array(5, np.uint8), "array: expected H x W, .* got a scalar"),
        (np.zeros((2, 3), np.int64), "array: expected uint8, or float in 0..1, got int64"),
        (np.zeros((2, 0, 3), np.uint8), "array: 0 x 2 has no pixels"),
        (np.full((2, 3), np.nan), "array: has NaN or infinite values"),
        (np.full((2, 3), 200.0), "array: expected float values in 0..1, got 200..200; scale them"),
        (torch.zeros(2, 3, 3), "tensor: expected 3 x H x W, got 2 x 3 x 3"),
        (torch.zeros(1, 3, 2, 3), "tensor: expected 3 x H x W, got 1 x 3 x 2 x 3"),
        (torch.zeros(3, 2, 3).long(), r"tensor: expected uint8, .* got torch\.int64"),
        (torch.full((3, 2, 3), -0.5), "tensor: expected float values in 0..1, got -0.5"),
        (torch.full((3, 2, 3), torch.inf), "tensor: has NaN or infinite values"),
        (torch.zeros(3, 0, 0), "tensor: 0 x 0 has no pixels"),
    ],
)
def test_arrays_and_tensors_that_are_no_pictures(source: object, message: str) -> None:
    with pytest.raises(UnreadableImage, match=f"^{message}"):
        read_image(source)  # pyright: ignore[reportArgumentType]


def test_the_limit_holds_for_arrays_and_tensors() -> None:
    for source in (RGB, torch.zeros(3, 2, 3), Image.fromarray(RGB)):
        with pytest.raises(ImageTooLarge, match="3 x 2 is 6 pixels, the limit is 5"):
            read_image(source, max_pixels=5)


def test_sixteen_bit_is_scaled_not_cut() -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    photo = read_image(Image.fromarray(values))
    assert photo.pixels[0, 0].tolist() == [0, 0, 1, 1, 128, 255]
    assert photo.note == "16 bit scaled to 8"
    with pytest.raises(UnreadableImage, match=r"expected 16-bit values, got -1\.\.70000"):
        read_image(Image.fromarray(np.array([[-1, 70000]], np.int32)))


def test_floats_are_rounded_and_other_ranges_refused(tmp_path: Path) -> None:
    assert read_image(np.array([[0, 0.5, 1]])).pixels[0, 0].tolist() == [0, 128, 255]
    Image.fromarray(np.array([[0, 3]], np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(
        UnreadableImage, match=r"^a\.tiff: expected float values in 0\.\.1, got 0\.\.3"
    ):
        read_image(tmp_path / "a.tiff")


def test_an_image_in_use_is_left_as_it_was() -> None:
    with Image.open(AWKWARD / "animated.gif") as image:
        image.seek(2)
        assert read_image(image).note == "number 3 of 3 frames"
        assert image.tell() == 2


def test_a_closed_image_is_one_sentence() -> None:
    with Image.open(AWKWARD / "one_pixel.png") as image:
        pass
    with pytest.raises(UnreadableImage, match=r"^one_pixel\.png: cannot be decoded"):
        read_image(image)


# ---------------------------------------------------------------- preparing


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1066)),  # what the official code computes
        ((640, 480), (1066, 800)),
        ((500, 500), (800, 800)),
        ((427, 1000), (569, 1332)),  # the long side would pass 1333
        ((1, 1), (800, 800)),
        ((100, 4000), (33, 1320)),
        ((1, 100_000), (1, 1333)),
        ((100_000, 1), (1333, 1)),
    ],
)
def test_the_resize_rule(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert Preprocess().resized(*size) == expected


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 900), st.integers(0, 900))
def test_no_side_is_ever_below_one_or_above_long(h: int, w: int, short: int, more: int) -> None:
    sides = Preprocess(short, short + more).resized(h, w)
    assert 1 <= min(sides) <= short
    assert max(sides) <= short + more


def test_a_batch_is_normalised_and_padded_at_the_right_and_bottom() -> None:
    photos = [read_image(np.full(size, 0.485)) for size in ((4, 6), (6, 4), (4, 4))]
    images = Preprocess(short=8, long=12).prepare(photos)
    assert images.pixels.shape == (3, 3, 12, 12)
    for padding, (height, width) in zip(images.padding, ((8, 12), (12, 8), (8, 8)), strict=True):
        inside = torch.zeros(12, 12, dtype=torch.bool)
        inside[:height, :width] = True
        assert torch.equal(padding, ~inside)
    assert (images.pixels.permute(0, 2, 3, 1)[images.padding] == 0).all()
    red = images.pixels[:, 0][~images.padding]
    torch.testing.assert_close(red, torch.full_like(red, (124 / 255 - 0.485) / 0.229))


def test_resizing_is_pillows_antialiased_bilinear() -> None:
    photo = read_image(AWKWARD / "animated.gif")
    pillow = Image.fromarray(photo.pixels.permute(1, 2, 0).numpy())
    for height, width in ((50, 66), (240, 320)):
        expected = torch.from_numpy(np.array(pillow.resize((width, height), 2))).permute(2, 0, 1)
        assert (resize(photo.pixels, height, width).int() - expected.int()).abs().max() <= 1
    assert resize(photo.pixels, 120, 160) is photo.pixels


def test_how_colours_lie_in_memory_changes_no_resize() -> None:
    photo = read_image(AWKWARD / "ok.webp")  # 300 x 451
    planes = photo.pixels.contiguous()
    assert photo.pixels.stride() != planes.stride()
    for height, width in ((1, 2), (50, 75), (299, 449), (301, 452), (600, 902), (33, 800)):
        difference = resize(photo.pixels, height, width).int() - resize(planes, height, width).int()
        assert difference.abs().max() <= 1  # 0 on most processors


def test_pictures_taller_than_a_strip_are_whole() -> None:
    for height in (1, decode.STRIP - 1, decode.STRIP, decode.STRIP + 1, 3 * decode.STRIP + 5):
        values = np.random.default_rng(height).integers(0, 255, (height, 7, 3), dtype=np.uint8)
        pixels = read_image(Image.fromarray(values)).pixels
        assert torch.equal(pixels, torch.from_numpy(values).permute(2, 0, 1))


@pytest.mark.parametrize("name", ["one_pixel.png", "very_tall.jpg", "very_wide.jpg"])
def test_extreme_shapes_make_a_batch(name: str) -> None:
    images = Preprocess(short=64, long=96).prepare([read_image(AWKWARD / name)])
    assert max(images.pixels.shape) <= 96
    assert images.pixels.isfinite().all()


def test_an_empty_batch_and_bad_settings_are_refused() -> None:
    with pytest.raises(ImageError, match="at least one image"):
        pad([])
    with pytest.raises(RecipeError, match="short 800, long 100"):
        Preprocess(long=100)
    with pytest.raises(RecipeError, match="std expects positive"):
        Preprocess(std=(1.0, 0.0, 1.0))
    with pytest.raises(RecipeError, match="mean expects three finite"):
        Preprocess(mean=(1.0, float("nan"), 1.0))


# ---------------------------------------------------------------- finding files


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Pictures by name only; hidden ones and other files among them."""
    names = ("b.JPG", "a.png", "notes.txt", ".hidden.png", "sub/c.webp", "sub/d.json", ".git/e.png")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(tree: Path, paths: list[Path]) -> list[str]:
    return [path.relative_to(tree).as_posix() for path in paths]


def test_folders_are_searched_in_order_without_what_is_hidden(tree: Path) -> None:
    assert names(tree, list_images([tree])) == ["a.png", "b.JPG", "sub/c.webp"]


def test_patterns_and_duplicates(tree: Path) -> None:
    assert names(tree, list_images([f"{tree}/*"])) == ["a.png", "b.JPG", "sub/c.webp"]
    assert names(tree, list_images([f"{tree}/**/*.webp"])) == ["sub/c.webp"]
    twice = [tree / "sub", tree / "b.JPG", tree / "sub" / ".." / "b.JPG", tree]
    assert names(tree, list_images(twice)) == ["sub/c.webp", "b.JPG", "a.png"]


def test_a_file_named_outright_is_taken_whatever_its_name(tree: Path) -> None:
    (tree / "what[1].dat").touch()
    given = [tree / "notes.txt", tree / ".hidden.png", tree / "what[1].dat"]
    assert list_images(given) == given


@pytest.mark.parametrize("given", ["nothing.jpg", "*.bmp", "*.txt", "empty"])
def test_nothing_found_is_said(tree: Path, given: str) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(
        ImageError, match=r"expected an image file, a folder or a pattern, found no"
    ):
        list_images([tree, f"{tree}/{given}"])
    with pytest.raises(ImageError, match="at least one file, folder or pattern, got none"):
        list_images([])

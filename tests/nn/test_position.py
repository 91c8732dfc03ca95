"""Sine embeddings against the official ones."""

import torch

from golden_data import load_case
from leandetr.nn.position import sine_boxes, sine_coordinates, sine_grid


def embed(case, channels, **options):
    settings = {"temperature": 10000.0, "offset": 0.0} | options
    return sine_grid(case.tensors["mask"], channels, **settings).permute(0, 3, 1, 2)


def test_detr_position_equals_official():
    case = load_case("position_encoding/detr")
    t = case.tensors
    torch.testing.assert_close(embed(case, 32), t["pos_16"], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        embed(case, 32, normalise=False), t["pos_16_unnormalized"], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        embed(case, 256)[:, ::5, ::2, ::3], t["pos_128_sub"], atol=1e-5, rtol=0
    )


def test_deformable_position_equals_official():
    case = load_case("position_encoding/deformable_detr")
    checked = 0
    for name, expected in case.tensors.items():
        if name == "mask":
            continue
        half = int(name.split("_")[1])
        got = embed(case, 2 * half, offset=-0.5, normalise="unnormalized" not in name)
        if name.endswith("_sub"):
            got = got[:, ::5, ::2, ::3]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0, msg=name)
        checked += 1
    assert checked


def test_points_of_conditional_detr_equal_official():
    case = load_case("functions/conditional_sine_points")
    points, expected = case.tensors["points"], case.tensors["embedding"]
    channels = expected.shape[-1] // 2
    torch.testing.assert_close(sine_boxes(points, channels), expected, atol=1e-5, rtol=0)


def test_boxes_put_y_first_and_size_last():
    wide = sine_boxes(torch.tensor([[[0.1, 0.6, 0.3, 0.2]]]), 8)
    assert wide.shape == (1, 1, 32)
    y_first = sine_boxes(torch.tensor([[[0.6, 0.1]]]), 8)
    torch.testing.assert_close(wide[..., :8], y_first[..., 8:16])
    torch.testing.assert_close(wide[..., 8:16], y_first[..., :8])


def test_coordinates_keep_their_order_and_boxes_put_y_first():
    boxes = torch.rand(2, 3, 4)
    plain = sine_coordinates(boxes, 8).unflatten(-1, (4, 8))
    swapped = sine_boxes(boxes, 8).unflatten(-1, (4, 8))
    assert torch.equal(swapped, plain[..., [1, 0, 2, 3], :])
    for index in range(4):
        alone = sine_coordinates(boxes[..., index : index + 1], 8)
        assert torch.equal(plain[..., index, :], alone)

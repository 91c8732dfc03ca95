"""Box frames and overlaps: the numbers of facebookresearch/detr, and laws of round trips."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from golden_data import load_case
from leandetr import boxes

CASE = "boxes/boxes"


@st.composite
def unit_boxes(draw: st.DrawFn, most: int = 6) -> Tensor:
    """Boxes cxcywh whose corners lie in (0,1), float64."""
    corner = st.floats(0, 1, allow_subnormal=False)
    rows = draw(st.lists(st.tuples(corner, corner, corner, corner), max_size=most))
    corners = torch.tensor(rows, dtype=torch.float64).reshape(-1, 2, 2)
    low, high = corners.amin(dim=1), corners.amax(dim=1)
    return torch.cat(((low + high) / 2, high - low), dim=1)


def test_golden_corners_and_back():
    t = load_case(CASE).tensors
    assert_close(boxes.cxcywh_to_xyxy(t["boxes1"]), t["xyxy1"], atol=1e-6, rtol=0)
    assert_close(boxes.cxcywh_to_xyxy(t["boxes2"]), t["xyxy2"], atol=1e-6, rtol=0)
    assert_close(boxes.xyxy_to_cxcywh(t["xyxy1"]), t["cxcywh1"], atol=1e-6, rtol=0)


def test_golden_overlaps():
    t = load_case(CASE).tensors
    first, second = t["xyxy1"][:, None], t["xyxy2"]
    assert_close(boxes.iou(first, second), t["iou"], atol=1e-6, rtol=0)
    assert_close(boxes.giou(first, second), t["giou"], atol=1e-6, rtol=0)
    union = (boxes.area(first) + boxes.area(second)) / (1 + t["iou"])  # |A| + |B| = union (1 + IoU)
    assert_close(union, t["union"], atol=1e-6, rtol=0)


def test_golden_gradient_of_the_giou_loss():
    t = load_case(CASE).tensors
    first, second = t["boxes1"][:9].requires_grad_(), t["boxes2"].requires_grad_()
    loss = 1 - boxes.giou(boxes.cxcywh_to_xyxy(first), boxes.cxcywh_to_xyxy(second))
    assert_close(loss, t["paired_giou_loss"], atol=1e-6, rtol=0)
    grads = torch.autograd.grad(loss[3:].sum(), (first, second))
    # Gradients reach 1e1: single precision leaves about 1e-6 of that.
    assert_close(grads[0], t["grad_boxes1"], atol=1e-6, rtol=1e-5)
    assert_close(grads[1], t["grad_boxes2"], atol=1e-6, rtol=1e-5)


@given(unit_boxes())
def test_corners_and_back_changes_nothing(given_boxes):
    back = boxes.xyxy_to_cxcywh(boxes.cxcywh_to_xyxy(given_boxes))
    assert_close(back, given_boxes, atol=1e-12, rtol=0)


@given(unit_boxes(), st.integers(1, 4000), st.integers(1, 4000))
def test_pixels_and_back_changes_nothing(given_boxes, height, width):
    size = torch.tensor([height, width], dtype=torch.float64)
    back = boxes.to_unit(boxes.to_pixels(given_boxes, size), size)
    assert_close(back, given_boxes, atol=1e-12, rtol=0)


def test_pixels_of_several_images_at_once():
    sizes = torch.tensor([[10.0, 20.0], [30.0, 40.0]])[:, None]
    pixels = boxes.to_pixels(torch.full((2, 3, 4), 0.5), sizes)
    assert pixels[0, 0].tolist() == [10, 5, 10, 5]
    assert pixels[1, 2].tolist() == [20, 15, 20, 15]


@given(unit_boxes(), unit_boxes())
def test_overlaps_stay_in_their_range_and_are_symmetric(first, second):
    first, second = boxes.cxcywh_to_xyxy(first)[:, None], boxes.cxcywh_to_xyxy(second)
    iou, giou = boxes.iou(first, second, eps=1e-6), boxes.giou(first, second, eps=1e-6)
    assert ((iou >= 0) & (iou <= 1)).all()
    assert ((giou >= -1) & (giou <= iou + 1e-12)).all()
    swapped = boxes.giou(second[:, None], first[:, 0], eps=1e-6)
    assert_close(swapped, giou.T, atol=1e-12, rtol=0)


def test_two_empty_boxes_are_nan_without_eps_as_in_the_official_code():
    empty = torch.zeros(1, 4)
    assert boxes.iou(empty, empty).isnan().all()
    assert boxes.giou(empty, empty, eps=1e-6).item() == 0


@given(st.lists(st.floats(0.002, 0.998), min_size=1, max_size=8))
def test_inverse_sigmoid_undoes_the_sigmoid(values):
    x = torch.tensor(values, dtype=torch.float64)
    assert_close(boxes.inverse_sigmoid(x, eps=1e-3).sigmoid(), x, atol=1e-12, rtol=0)


def test_inverse_sigmoid_is_finite_at_and_beyond_the_ends():
    x = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    logits = boxes.inverse_sigmoid(x, eps=1e-3)
    edge = torch.log(torch.tensor(1e3))
    assert_close(logits, torch.stack((-edge, -edge, edge, edge)))


def test_sigmoid_is_at_least_single_precision():
    logits = torch.tensor([0.0, 8.0, torch.inf])
    for given_type, expected in (
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        found = boxes.sigmoid(logits.to(given_type))
        assert found.dtype == expected
        assert_close(found, logits.to(expected).sigmoid(), atol=1e-7, rtol=0)

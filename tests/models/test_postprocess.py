"""From predictions to detections."""

import pytest
import torch

from golden_data import cases, load_case
from leandetr.models.postprocess import BestClass, TopScores
from leandetr.types import Prediction

SIGMOID = [name for name in cases("postprocess/*") if name != "postprocess/detr"]


def logit(*scores):
    return torch.tensor(scores).logit()


def prediction():
    """Two queries, three classes: query 1 is surely class 2 and perhaps class 0."""
    logits = torch.stack((logit(0.1, 0.2, 0.3), logit(0.6, 0.05, 0.9)))[None]
    boxes = torch.tensor([[[0.5, 0.5, 1.0, 1.0], [0.25, 0.75, 0.1, 0.2]]])
    return Prediction(logits, boxes)


def test_pairs_of_query_and_class_are_ranked_together():
    (found,) = TopScores(3)(prediction(), torch.tensor([[100.0, 200.0]]))
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.6, 0.3]))
    assert found.labels.tolist() == [2, 0, 2]
    assert torch.equal(found.boxes[0], found.boxes[1])  # one query, two classes


def test_boxes_are_corners_in_pixels_and_not_clipped():
    wide = Prediction(logit(0.9).reshape(1, 1, 1), torch.tensor([[[0.0, 0.5, 0.4, 1.2]]]))
    (found,) = TopScores(1)(wide, torch.tensor([[100.0, 200.0]]))  # height, width
    torch.testing.assert_close(found.boxes, torch.tensor([[-40.0, -10.0, 40.0, 110.0]]))


def test_every_image_has_its_own_size():
    one = prediction()
    both = Prediction(one.logits.repeat(2, 1, 1), one.boxes.repeat(2, 1, 1))
    first, second = TopScores(1)(both, torch.tensor([[10.0, 20.0], [30.0, 40.0]]))
    torch.testing.assert_close(second.boxes, first.boxes * torch.tensor([2.0, 3.0, 2.0, 3.0]))


@pytest.mark.parametrize(("top", "count"), [(1, 1), (6, 6), (7, 6), (300, 6)])
def test_no_more_than_there_are(top, count):
    (found,) = TopScores(top)(prediction(), torch.tensor([[1.0, 1.0]]))
    assert len(found) == count
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_names_are_those_of_the_labels():
    (found,) = TopScores(2)(prediction(), torch.ones(1, 2), ("cat", "dog", "owl"))
    assert [found.name(index) for index in range(2)] == ["owl", "cat"]
    (unnamed,) = TopScores(2)(prediction(), torch.ones(1, 2))
    assert [unnamed.name(index) for index in range(2)] == ["2", "0"]


def test_a_threshold_keeps_names_and_order():
    (found,) = TopScores(6)(prediction(), torch.ones(1, 2), ("cat", "dog", "owl"))
    above = found.above(0.5)
    assert len(above) == 2
    assert above.names == found.names
    assert above.labels.tolist() == [2, 0]
    assert len(found.above(0.99)) == 0


def test_half_precision_is_widened():
    one = prediction()
    low = Prediction(one.logits.bfloat16(), one.boxes.bfloat16())
    (found,) = TopScores(2)(low, torch.tensor([[100.0, 200.0]]))
    assert found.scores.dtype == found.boxes.dtype == torch.float32


def golden_prediction(case):
    return Prediction(case.tensors["pred_logits"], case.tensors["pred_boxes"])


def check_golden(found, scores, labels, boxes):
    assert torch.equal(found.labels, labels)
    torch.testing.assert_close(found.scores, scores, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.boxes, boxes, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", SIGMOID)
def test_the_best_pairs_are_the_official_ones(name):
    case = load_case(name)
    expected = (case.tensors[key] for key in ("scores", "labels", "boxes"))
    sizes = case.tensors["original_sizes"].float()
    found = TopScores(100)(golden_prediction(case), sizes)
    for detections, *image in zip(found, *expected, strict=True):
        check_golden(detections, *image)


def test_the_best_classes_are_those_of_detr_in_order_of_score():
    case = load_case("postprocess/detr")
    stored = case.tensors
    found = BestClass(60)(golden_prediction(case), stored["original_sizes"].float())
    assert len(found) == len(stored["scores"])
    for image, detections in enumerate(found):  # the official ones are in order of their queries
        order = stored["scores"][image].argsort(descending=True)
        check_golden(
            detections, *(stored[key][image][order] for key in ("scores", "labels", "boxes"))
        )


def test_nothing_is_no_class():
    """A query that is surely nothing still shows its best real class, at a low score."""
    logits = torch.tensor([[[1.0, 2.0, 9.0], [3.0, 0.0, 0.0]]])
    (found,) = BestClass(300)(Prediction(logits, torch.rand(1, 2, 4)), torch.ones(1, 2))
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.scores, logits.softmax(-1)[0, [1, 0], [0, 1]])


def test_the_best_queries_survive():
    logits = torch.randn(2, 7, 4)
    one = Prediction(logits, torch.rand(2, 7, 4))
    every, some = BestClass(7)(one, torch.ones(2, 2)), BestClass(3)(one, torch.ones(2, 2))
    for whole, part in zip(every, some, strict=True):
        assert torch.equal(part.scores, whole.scores[:3])
        assert torch.equal(part.boxes, whole.boxes[:3])

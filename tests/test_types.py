"""The values between the stages."""

import pytest
import torch

from leandetr.types import (
    Detections,
    Group,
    Images,
    Known,
    Match,
    Outputs,
    Prediction,
    Target,
    Tokens,
)


def detections(boxes=2, scores=2, labels=2):
    return Detections(
        torch.zeros(boxes, 4), torch.zeros(scores), torch.zeros(labels, dtype=torch.long)
    )


def test_detections_are_as_many_boxes_as_scores_and_labels():
    assert len(detections()) == 2
    for wrong in ({"boxes": 1}, {"scores": 3}, {"labels": 1}):
        with pytest.raises((ValueError, TypeError)):  # the latter from the shape checker
            detections(**wrong)


def test_no_detection_is_fine():
    nothing = detections(0, 0, 0)
    assert len(nothing.above(0.5)) == 0


def test_unknown_labels_are_numbers():
    found = Detections(torch.zeros(2, 4), torch.ones(2), torch.tensor([0, 5]), ("cat",))
    assert [found.name(index) for index in range(2)] == ["cat", "5"]


def test_new_features_keep_the_grid():
    tokens = Tokens(
        torch.zeros(1, 7, 2),
        torch.ones(1, 7, 2),
        torch.zeros(1, 7, dtype=torch.bool),
        torch.ones(1, 2, 2),
        ((2, 3), (1, 1)),
    )
    changed = tokens.with_features(tokens.features + 5)
    assert changed.starts == (0, 6)
    assert changed.level(1).tolist() == [[[5.0, 5.0]]]
    assert torch.equal(changed.position, tokens.position)


def test_the_answer_is_the_last_layer_of_the_main_queries():
    layers = tuple(Prediction(torch.full((1, 5, 2), k), torch.zeros(1, 5, 4)) for k in (1.0, 2.0))
    groups = (
        Group("main", 0, 3, Match()),
        Group("denoising", 3, 5, Known(torch.zeros(1, 2, dtype=torch.long), 1)),
    )
    answer = Outputs(layers, None, groups).answer
    assert answer.logits.shape == (1, 3, 2)
    assert (answer.logits == 2).all()


def test_the_extent_of_an_image_ends_where_its_padding_begins():
    padding = torch.ones(2, 6, 8, dtype=torch.bool)
    padding[0, :5, :8] = False
    padding[1, :6, :3] = False
    assert Images(torch.zeros(2, 3, 6, 8), padding).extent.tolist() == [[5, 8], [6, 3]]


def test_values_move_between_devices():
    images = Images(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool)).to("meta")
    target = Target(torch.zeros(1, dtype=torch.long), torch.zeros(1, 4)).to("meta")
    assert {images.pixels.device.type, images.padding.device.type} == {"meta"}
    assert {target.labels.device.type, target.boxes.device.type} == {"meta"}

"""Laws of contrastive denoising, for random draws; the official numbers are in another file."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leandetr.boxes import cxcywh_to_xyxy
from leandetr.errors import RecipeError
from leandetr.models.dims import Dims
from leandetr.models.queries.base import hidden
from leandetr.models.queries.denoising import Denoising, DenoisingConfig
from leandetr.models.queries.mixed import MixedQueries
from leandetr.types import Group, Known, Match, Queries, Target
from tiny import blocks, canvas

MAIN = 5
LABELS = 7
SOURCE = MixedQueries(8, count=MAIN)  # nor at where the main queries came from
TOKENS = canvas([blocks(1, 1, levels=1)], ((1, 1),))  # denoising does not look at them


def queries(images):
    content, reference = torch.zeros(images, MAIN, 8), torch.full((images, MAIN, 4), 0.5)
    return Queries(content, None, reference, (), (Group("main", 0, MAIN, Match()),))


def targets(*counts):
    """Boxes in the middle, so that no noise is cut off at the edge of the image."""
    return [
        Target(
            torch.randint(LABELS, (count,)),
            torch.cat((torch.rand(count, 2) * 0.1 + 0.45, torch.rand(count, 2) * 0.2 + 0.1), dim=1),
        )
        for count in counts
    ]


def module(budget=50, label_noise=0.5, box_noise=1.0):
    return Denoising(8, LABELS, budget=budget, label_noise=label_noise, box_noise=box_noise)


def grown(denoising, boxes):
    """The new queries' content, reference and group, and who is hidden from whom."""
    found = denoising(queries(len(boxes)), TOKENS, None, boxes, SOURCE)
    group = found.groups[-1]
    assert (group.name, group.start) == ("denoising", MAIN)
    assert group.stop == found.content.shape[1] == found.reference.shape[1]
    return found.content[:, MAIN:], found.reference[:, MAIN:], group, hidden(found)


def halves(group, fullest):
    """True for slots of negative halves."""
    slot = torch.arange(group.stop - group.start)
    return (slot // fullest) % 2 == 1


counts = st.lists(st.integers(0, 4), min_size=1, max_size=3).filter(any)


@given(counts=counts, noise=st.sampled_from([0.1, 0.4, 0.5]))
def test_positives_move_less_than_half_a_box_and_negatives_more(counts, noise):
    boxes = targets(*counts)
    _, reference, group, _ = grown(module(box_noise=noise), boxes)
    negative = halves(group, max(counts))
    for image, target in enumerate(boxes):
        count = len(target.labels)
        slot = torch.arange(group.stop - group.start)
        used = slot % max(counts) < count
        true = target.boxes[slot[used] % max(counts)]
        corners = cxcywh_to_xyxy(reference[image, used])
        moved = (corners - cxcywh_to_xyxy(true)).abs() / true[:, 2:].repeat(1, 2)  # in sides
        far, near = moved[negative[used]], moved[~negative[used]]
        assert (near <= 0.5 * noise + 1e-4).all()
        assert (far >= 0.5 * noise - 1e-4).all()
        assert (far <= noise + 1e-4).all()


@given(counts=counts)
def test_positives_know_their_target_and_all_else_is_background(counts):
    boxes = targets(*counts)
    _, _, group, _ = grown(module(), boxes)
    assert isinstance(group.assign, Known)
    negative = halves(group, max(counts))
    assert (group.assign.targets[:, negative] == -1).all()
    for image, target in enumerate(boxes):
        known = group.assign.targets[image]
        assert known.max() == len(target.labels) - 1
        for index in range(len(target.labels)):
            assert (known == index).sum() == group.assign.repeat


@given(counts=counts)
def test_copies_see_themselves_and_the_main_queries_only(counts):
    _, _, group, unseen = grown(module(budget=6), targets(*counts))
    copy = torch.arange(group.stop - group.start) // (2 * max(counts))
    assert unseen.shape == (group.stop, group.stop)
    assert not unseen[:MAIN, :MAIN].any()  # main queries see each other
    assert unseen[:MAIN, MAIN:].all()  # and no copy, which would tell them the answer
    assert not unseen[MAIN:, :MAIN].any()
    assert torch.equal(unseen[MAIN:, MAIN:], copy[:, None] != copy)


@pytest.mark.parametrize(
    ("budget", "fullest", "copies"),
    [
        (100, 3, 33),  # from 50 on the budget counts queries: 200 // (2 * 3)
        (100, 100, 1),
        (100, 400, 1),  # never none
        (50, 5, 10),
        (49, 5, 98),  # below, twice the budget is the number of copies (official behaviour)
        (1, 5, 2),
    ],
)
def test_the_budget_is_counted_as_officially(budget, fullest, copies):
    _, _, group, _ = grown(module(budget=budget), targets(1, fullest))
    assert group.assign.repeat == copies
    assert group.stop - group.start == 2 * copies * fullest


def test_a_batch_without_boxes_grows_by_nothing():
    content, _, group, unseen = grown(module(), targets(0, 0))
    assert content.shape == (2, 0, 8)
    assert group.stop == group.start
    assert group.assign.repeat == 1
    assert not unseen.any()


def test_slots_of_images_with_fewer_boxes_hold_nothing():
    content, reference, group, _ = grown(module(), targets(1, 3))
    unused = torch.arange(group.stop - group.start) % 3 >= 1
    assert not content[0, unused].any()
    assert (reference[0, unused] == 0.5).all()
    assert content[1].abs().sum(dim=-1).all()


def test_half_of_the_label_noise_is_felt():
    denoising = module(budget=2000, label_noise=0.5)
    boxes = [Target(torch.zeros(1, dtype=torch.long), torch.tensor([[0.5, 0.5, 0.2, 0.2]]))]
    content, *_ = grown(denoising, boxes)
    kept = (content[0] == denoising.labels.weight[0]).all(dim=-1).float().mean().item()
    assert kept == pytest.approx(0.75 + 0.25 / LABELS, abs=0.03)


def test_no_noise_repeats_the_targets():
    boxes = targets(2)
    content, reference, group, _ = grown(module(label_noise=0.0, box_noise=0.0), boxes)
    repeat = (group.stop - group.start) // 2
    torch.testing.assert_close(reference[0], boxes[0].boxes.repeat(repeat, 1), atol=1e-6, rtol=0)
    assert content.shape[1] == 2 * repeat


def test_corners_that_cross_leave_the_thinnest_box():
    """With a noise of one, as in official training, a negative's sides may turn negative."""
    _, reference, _, _ = grown(module(budget=500, box_noise=1.0), targets(1))
    assert (reference[..., 2:] >= 1e-3 - 1e-6).all()
    assert (reference[..., 2:] < 1.1e-3).any()


def test_boxes_stay_inside_the_image():
    edge = [Target(torch.tensor([0]), torch.tensor([[0.02, 0.98, 0.04, 0.04]]))]
    _, reference, _, _ = grown(module(), edge)
    corners = cxcywh_to_xyxy(reference)
    assert (corners > -1e-3).all()
    assert (corners < 1 + 1e-3).all()


def test_the_label_table_has_a_row_more_than_there_are_classes_or_as_many():
    built = DenoisingConfig(budget=10).build(Dims(dim=8, levels=3, classes=LABELS))
    assert built.labels.weight.shape == (LABELS + 1, 8)
    built = DenoisingConfig(spare_row=False).build(Dims(dim=8, levels=3, classes=LABELS))
    assert built.labels.weight.shape == (LABELS, 8)


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(RecipeError, match=r"at least 1; got 0; .*--set model\.groups=\[\]"):
        DenoisingConfig(budget=0)


def test_queries_without_boxes_are_refused():
    bare = Queries(torch.zeros(1, 2, 8), None, None, (), (Group("main", 0, 2, Match()),))
    with pytest.raises(RecipeError, match="type queries=mixed"):
        module()(bare, TOKENS, None, targets(1), SOURCE)

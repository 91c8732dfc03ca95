import torch
from torch import nn

from leandetr.training.transfer import transfer


def test_what_fits_is_kept_and_the_rest_is_told() -> None:
    old = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 5), "gone": nn.Linear(1, 1)})
    new = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 3), "more": nn.Linear(1, 1)})
    before = {name: value.clone() for name, value in new.state_dict().items()}
    told = transfer(old, new)
    assert told.kept == ("body.weight", "body.bias")
    assert told.reshaped == (
        "head.weight (5, 2) -> (3, 2)",
        "head.bias (5,) -> (3,)",
    )
    assert told.fresh == ("more.weight", "more.bias")
    assert told.unused == ("gone.weight", "gone.bias")
    assert torch.equal(new["body"].weight, old["body"].weight)
    assert torch.equal(new["head"].weight, before["head.weight"])
    assert "head.weight (5, 2) -> (3, 2)" in told.table()
    assert "body.weight" not in told.table()

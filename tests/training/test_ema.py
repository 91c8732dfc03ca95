import pytest
import torch
from torch import nn

from leandetr.training.ema import build_ema, warm_decay


def test_the_average_follows_fast_at_first() -> None:
    assert warm_decay(0.999, 1) < 0.2
    assert warm_decay(0.999, 10**6) == 0.999


def test_weights_and_statistics_are_averaged() -> None:
    model = nn.BatchNorm1d(1)
    ema = build_ema(model, 0.5)
    values = []
    for value in (4.0, 8.0):
        with torch.no_grad():
            model.weight.fill_(value)
        assert model.running_mean is not None
        model.running_mean.fill_(value)
        model.num_batches_tracked += 1
        ema.update_parameters(model)
        values.append(float(ema.module.weight))
    decay = warm_decay(0.5, 1)
    assert values == pytest.approx([4.0, decay * 4.0 + (1 - decay) * 8.0])
    assert float(ema.module.running_mean) == values[1]
    assert not ema.module.weight.requires_grad
    assert not ema.module.training


def test_a_short_run_forgets_its_start() -> None:
    model = nn.Linear(1, 1)
    nn.init.constant_(model.weight, 0.0)
    ema = build_ema(model, 0.9999)
    ema.update_parameters(model)
    nn.init.constant_(model.weight, 1.0)
    for _ in range(50):
        ema.update_parameters(model)
    assert float(ema.module.weight) > 0.95

"""Which implementation runs."""

import pytest
import torch

from leandetr import ops
from leandetr.errors import RecipeError
from leandetr.ops import backend


def test_available_backends_can_all_be_used():
    for name in ops.available_backends():
        with ops.use_backend(name):
            assert backend._backend == name
    assert backend._backend == "auto"


def test_an_unknown_backend_is_named_beside_the_known():
    with (
        pytest.raises(
            RecipeError, match="expected a backend of auto, reference, operator; got 'x'"
        ),
        ops.use_backend("x"),
    ):
        pass
    assert backend._backend == "auto"


def test_backends_nest_and_come_back_after_an_error():
    def fail():
        with ops.use_backend("operator"):
            with ops.use_backend("reference"):
                assert backend._backend == "reference"
            assert backend._backend == "operator"
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert backend._backend == "auto"


def test_the_operator_runs_by_itself_only_where_it_has_a_kernel(monkeypatch):
    tensor = torch.zeros(1)
    monkeypatch.setattr(backend, "KERNEL_DEVICES", set())
    assert not backend.calls_operator(tensor)
    monkeypatch.setattr(backend, "KERNEL_DEVICES", {"cpu"})
    assert backend.calls_operator(tensor)
    with ops.use_backend("reference"):
        assert not backend.calls_operator(tensor)

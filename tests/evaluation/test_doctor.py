"""What `leandetr doctor` says, and when it fails."""

import json

import pytest
from typer.testing import CliRunner

from leandetr.cli import app
from leandetr.evaluation import doctor
from leandetr.ops import build, cpu, pool, trial
from leandetr.ops.trial import Trial, try_operators


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(trial, "QUERIES", 3)
    monkeypatch.setattr(trial, "ROUNDS", 1)
    monkeypatch.setattr(trial, "SHAPES", ((3, 4), (2, 1)))


def wrong(operator):
    return Trial(operator, "cpu", 1.0, 2.0, float("nan"))


def test_every_operator_is_tried_and_agrees_with_the_reference():
    found = try_operators()
    names = [name for name in cpu.KERNELS if not name.endswith("_backward")]
    assert [one.operator for one in found] == names
    assert all(one.agrees and one.milliseconds > 0 for one in found)


@pytest.mark.skipif(cpu.LIBRARY is None, reason="no CPU kernels here")
@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_numbers_that_a_kernel_gets_wrong_are_seen(monkeypatch, factor):
    run = type(cpu.LIBRARY).run

    def flawed(self, function, sides, **tensors):
        run(self, function, sides, **tensors)
        if function == "leandetr_deform_attn_backward":
            tensors["value_grad"].mul_(factor)

    monkeypatch.setattr(type(cpu.LIBRARY), "run", flawed)
    assert [one.operator for one in try_operators() if not one.agrees] == [
        "deform_attn",
        "deform_attn_at",
    ]


@pytest.mark.skipif(cpu.LIBRARY is None, reason="no CPU kernels here")
def test_an_operator_that_breaks_down_is_a_finding_and_the_others_are_tried(monkeypatch):
    run = type(cpu.LIBRARY).run

    def broken(self, function, sides, **tensors):
        if function == "leandetr_key_aware_attn":
            raise RuntimeError("no such\n instruction")
        run(self, function, sides, **tensors)

    monkeypatch.setattr(type(cpu.LIBRARY), "run", broken)
    answer = CliRunner().invoke(app, ["doctor"])
    assert answer.exit_code == 1
    assert "key_aware_attn      cpu   FAILED: no such instruction" in answer.output
    assert "no numbers from key_aware_attn (cpu), key_aware_attn_at (cpu): run" in answer.output
    answer = CliRunner().invoke(app, ["doctor", "--json"])
    said = json.loads(answer.output, parse_constant=pytest.fail)
    assert [one["milliseconds"] is None for one in said["trials"]] == [False, False, True, True]


def test_the_verb_fails_only_for_wrong_numbers(monkeypatch):
    answer = CliRunner().invoke(app, ["doctor", "--json"])
    said = json.loads(answer.output)
    assert answer.exit_code == 0
    assert said["is_right"]
    assert set(said) == {"facts", "trials", "packages", "advice", "is_right"}
    monkeypatch.setattr(doctor, "try_operators", lambda device: [wrong("deform_attn")])
    answer = CliRunner().invoke(app, ["doctor"])
    assert answer.exit_code == 1
    assert "WRONG" in answer.output
    assert "wrong numbers from deform_attn (cpu)" in answer.output


def test_without_a_library_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(cpu, "LIBRARY", None)
    monkeypatch.setattr(doctor, "try_operators", lambda device: [])
    monkeypatch.setattr(build, "find_compiler", lambda: ["g++"])
    health = doctor.examine()
    assert health.facts["CPU operators"] == "reference: plain PyTorch"
    assert health.advice[:2] == [
        cpu.ON_REFERENCE,
        "there is a compiler; to build the kernels type: python -m leandetr.ops.build",
    ]


@pytest.mark.skipif(cpu.LIBRARY is None, reason="no CPU kernels here")
def test_threads_that_cannot_be_shared_are_reported(monkeypatch):
    monkeypatch.setattr(pool, "entry", lambda: None)
    monkeypatch.setattr(doctor, "try_operators", lambda device: [])
    health = doctor.examine()
    assert "none is shared" in health.facts["threads"]
    assert any(line.startswith("GOMP_parallel was not found") for line in health.advice)


@pytest.mark.skipif(cpu.LIBRARY is None, reason="no CPU kernels here")
def test_a_slower_instruction_set_is_named(monkeypatch):
    if len(cpu.LIBRARY.variants) == 1:
        pytest.skip("only one instruction set runs here")
    monkeypatch.setattr(cpu.LIBRARY, "variant", "generic")
    monkeypatch.setattr(doctor, "try_operators", lambda device: [])
    assert any("LEANDETR_CPU_VARIANT asks for generic" in a for a in doctor.examine().advice)

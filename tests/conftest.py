"""Shared by all tests: seeds, hypothesis settings, and the proof that golden cases really ran.

Nothing here may import `leandetr` at the top: the shape checker hooks its first import.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import golden_data
import parity

settings.register_profile("fast", max_examples=25, deadline=None, derandomize=True, database=None)
settings.load_profile("fast")

MUST_RUN = ("*/*",)
PROVEN = pytest.StashKey[set[str]]()
NEARNESS = pytest.StashKey[dict[str, parity.Nearness]]()
PROBLEM = pytest.StashKey[str]()


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch works on one thread: models look at whole batches, one after the other."""
    yield from _threads(1)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """PyTorch works on two threads, and whatever a test does, it still does afterwards."""
    yield from _threads(2)


def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == number


def pytest_configure(config: pytest.Config) -> None:
    config.stash[PROVEN] = set()
    config.stash[NEARNESS] = {}
    parity.watch()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of files that read golden data, for `make golden`."""
    for item in items:
        if hasattr(getattr(item, "module", None), "load_case"):
            item.add_marker(pytest.mark.golden)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    golden_data.loaded.clear()
    golden_data.opened.clear()
    parity.measured.clear()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    if report.when == "call" and report.passed:
        item.config.stash[PROVEN] |= golden_data.loaded
        parity.merge(item.config.stash[NEARNESS], parity.as_json(parity.measured))
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """Collect what a worker of pytest-xdist has proven."""
    output = getattr(node, "workeroutput", {})
    node.config.stash[PROVEN] |= set(output.get("golden", ()))
    parity.merge(node.config.stash[NEARNESS], output.get("parity", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["golden"] = sorted(config.stash[PROVEN])
        config.workeroutput["parity"] = parity.as_json(config.stash[NEARNESS])
        return
    if os.environ.get("LEANDETR_PARITY"):
        numbers = parity.as_json(config.stash[NEARNESS])
        report = {"cases": sorted(config.stash[PROVEN]), "numbers": numbers}
        Path(os.environ["LEANDETR_PARITY"]).write_text(json.dumps(report, indent=1) + "\n")
    problem = _golden_problem(config)
    if problem:
        config.stash[PROBLEM] = problem
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    where = "the full set" if golden_data.is_full() else "the repository's subset"
    terminalreporter.write_line(f"golden cases passed: {len(config.stash[PROVEN])} of {where}")
    if PROBLEM in config.stash:
        terminalreporter.write_line(config.stash[PROBLEM], red=True)


def _golden_problem(config: pytest.Config) -> str | None:
    """Which required cases no passing test has loaded; asked for by LEANDETR_REQUIRE_GOLDEN=1."""
    if os.environ.get("LEANDETR_REQUIRE_GOLDEN") != "1" or not _whole_suite(config):
        return None
    if not golden_data.is_full():
        return (
            "LEANDETR_REQUIRE_GOLDEN=1, but the full golden set was not found; set LEANDETR_GOLDEN"
        )
    missing = sorted(set(golden_data.cases(*MUST_RUN)) - config.stash[PROVEN])
    if not missing:
        return None
    return f"{len(missing)} golden cases were not proven by any passing test:\n  " + "\n  ".join(
        missing
    )


def _whole_suite(config: pytest.Config) -> bool:
    """Whether nothing was picked out by path, keyword, mark or last failure."""
    option = config.option
    picked = (
        option.keyword
        or option.markexpr != "not gpu and not network and not exhaustive"
        or option.collectonly
        or getattr(option, "lf", False)
        or option.deselect
        or option.ignore
    )
    return config.args_source is not pytest.Config.ArgsSource.ARGS and not picked

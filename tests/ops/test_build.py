"""Building the kernels: which compiler, which instruction sets, what happens without."""

import shutil

import pytest
import torch

from leandetr.ops import build, cpu_library, pool
from sampling import Sizes
from sampling_calls import KINDS, call, draw


def test_a_compiler_may_come_with_arguments(monkeypatch):
    monkeypatch.setenv("CXX", "sh -c 'echo aarch64-linux-gnu' --")
    assert build.find_compiler()[:2] == ["sh", "-c"]
    assert build._variants(build.find_compiler()) == build.OTHER_VARIANTS
    monkeypatch.setenv("CXX", "sh -c 'echo x86_64-linux-gnu' --")
    assert build._variants(build.find_compiler()) == build.X86_VARIANTS


def test_a_compiler_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(build.BuildFailed, match="looked for no-such-compiler -O2"):
        build.find_compiler()
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(build.BuildFailed, match=r"looked for g\+\+, clang\+\+, c\+\+"):
        build.find_compiler()


def test_a_library_of_other_sources_is_not_loaded(monkeypatch):
    path = build.LIBRARIES / build.library_name()
    if not path.exists():
        pytest.skip("the CPU kernels are not built")
    monkeypatch.setattr(cpu_library, "VERSION", -1)
    assert cpu_library.load() is None


def test_without_an_entry_to_the_pool_work_runs_on_the_caller(monkeypatch):
    monkeypatch.setattr(pool, "entry", lambda: None)
    done = []
    pool.run_on(2, lambda: done.append(1))
    assert done == [1]


def test_an_error_on_a_thread_of_the_pool_reaches_the_caller():
    def fail():
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        pool.run_on(2, fail)


def _answer(at, drawn):
    return torch.stack([call(kind, at.shapes, *drawn[kind]).sum() for kind in KINDS])


class Answers(torch.utils.data.Dataset):
    """What every operator answers, computed where the item is read."""

    def __init__(self, at, drawn):
        self.at, self.drawn = at, drawn

    def __len__(self):
        return 2

    def __getitem__(self, index):
        torch.set_num_threads(2)  # a loader's worker starts with one
        pool.SMALL = 0  # small calls, too, would like both
        return _answer(self.at, self.drawn)


@pytest.mark.skipif(cpu_library.load() is None, reason="the CPU kernels are not built")
@pytest.mark.parametrize(
    "start",
    ["fork", pytest.param("spawn", marks=pytest.mark.exhaustive)],  # which imports anew
)
def test_workers_of_a_loader_can_call_every_operator_after_the_parent_used_threads(
    monkeypatch, start
):
    monkeypatch.setattr(pool, "SMALL", 0)
    at = Sizes(queries=64, heads=4, width=32, points=4, shapes=((9, 9), (5, 5)))
    drawn = {kind: draw(kind, at, torch.float32) for kind in KINDS}
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = _answer(at, drawn)
        loader = torch.utils.data.DataLoader(
            Answers(at, drawn),
            batch_size=None,
            num_workers=2,
            multiprocessing_context=start,
            timeout=120,
        )
        found = list(loader)
    finally:
        torch.set_num_threads(before)
    assert len(found) == 2
    for one in found:
        torch.testing.assert_close(one, expected)


def test_calls_have_as_many_threads_as_pytorch():
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert pool.threads(pool.SMALL) == threads
            assert pool.threads(pool.SMALL - 1) == 1
    finally:
        torch.set_num_threads(before)

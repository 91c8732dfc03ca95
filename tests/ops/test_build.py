"""Building the kernels: which compiler, which instruction sets, what happens without."""

import shutil

import pytest

from leandetr.ops import build, cpu_library, pool


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

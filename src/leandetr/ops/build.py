"""Builds the CPU kernels: `python -m leandetr.ops.build`.

Plain C++ behind a C interface: no PyTorch headers, so a build takes seconds and fits every PyTorch.
Needs GCC or Clang (the environment variable CXX names another). Uses the standard library only,
because `setup.py` runs this file before anything is installed.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent / "csrc"
LIBRARIES = Path(__file__).parent / "lib"

FLAGS = (
    "-std=gnu++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-exceptions",
    "-fno-rtti",
    "-ffp-contract=fast",
    # Not -ffast-math: with it GCC 12 makes wrong gradients for AVX-512.
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
)
X86_VARIANTS = {
    "generic": (),
    "avx2": ("-march=x86-64-v3",),
    "avx512": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
}
OTHER_VARIANTS = {"generic": ()}
SECONDS = 600
"""A compiler that takes longer is stuck."""


class BuildFailed(Exception):
    """There is no compiler, or it refused; the message says which and why."""


def library_name() -> str:
    """File name of the library on this platform; two platforms can share a folder."""
    system, machine = platform.system().lower(), platform.machine().lower()
    ending = {"windows": "dll", "darwin": "dylib"}.get(system, "so")
    return f"kernels-{system}-{machine}.{ending}"


def find_compiler() -> str:
    """The command of a C++ compiler; raises `BuildFailed` where there is none."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        found = shutil.which(name) if name else None
        if found:
            return found
    raise BuildFailed("no C++ compiler was found (looked for $CXX, g++, clang++, c++)")


def is_fresh(folder: Path = LIBRARIES) -> bool:
    """Whether the library in `folder` was built after the last change of its sources."""
    target = folder / library_name()
    sources = (Path(__file__), *SOURCES.iterdir())
    changed = max(path.stat().st_mtime for path in sources)
    return target.exists() and target.stat().st_mtime > changed


def build(folder: Path = LIBRARIES) -> Path:
    """Compile every variant and link them into `folder`; returns the library's path.

    A library newer than all sources is kept.
    """
    if is_fresh(folder):
        return folder / library_name()
    compiler = find_compiler()
    variants = X86_VARIANTS if platform.machine().lower() in ("x86_64", "amd64") else OTHER_VARIANTS
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / library_name()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        commands = [
            _compile(
                compiler, "kernels.cpp", work / f"{name}.o", *extra, f"-DLEANDETR_VARIANT={name}"
            )
            for name, extra in variants.items()
        ]
        commands.append(_compile(compiler, "library.cpp", work / "library.o"))
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            list(pool.map(_run, commands))
        objects = [str(path) for path in sorted(work.glob("*.o"))]
        linked = work / target.name
        _run([compiler, "-shared", "-o", str(linked), *objects, "-lm", "-pthread"])
        fresh = target.with_suffix(f".{os.getpid()}")
        shutil.copy2(linked, fresh)
        fresh.replace(target)  # at once: a running process keeps the old one
    return target


def _compile(compiler: str, source: str, target: Path, *extra: str) -> list[str]:
    return [compiler, *FLAGS, *extra, "-c", str(SOURCES / source), "-o", str(target)]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - a compiler on our own sources
            command, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildFailed(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        raise BuildFailed(f"{' '.join(command)} failed:\n{done.stderr.strip()}")


def main() -> int:
    """Build in place; 0 when the library is there."""
    try:
        path = build()
    except BuildFailed as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"built {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

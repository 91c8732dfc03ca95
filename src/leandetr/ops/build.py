"""Builds the CPU kernels: `python -m leandetr.ops.build`.

Plain C++ behind a C interface: no PyTorch headers, so a build takes seconds and fits every PyTorch.
Needs GCC or Clang. The environment variable CXX names another compiler, with arguments if it needs
any, as in CXX="clang++ -target aarch64-linux-gnu"; variants are those of the machine it builds for.
Uses the standard library only, because `setup.py` runs this file before anything is installed.
"""

import os
import platform
import shlex
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
    "avx2": ("-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mf16c", "-mlzcnt", "-mmovbe", "-mpopcnt"),
    "avx512": (
        *("-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mf16c", "-mlzcnt", "-mmovbe", "-mpopcnt"),
        *("-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl"),
        "-mprefer-vector-width=512",
    ),
}
"""Written out, because compilers older than GCC 11 do not know x86-64-v3."""
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


def find_compiler() -> list[str]:
    """The command of a C++ compiler; raises `BuildFailed` where there is none."""
    asked = os.environ.get("CXX")
    for name in (asked,) if asked else ("g++", "clang++", "c++"):
        words = shlex.split(name)
        if shutil.which(words[0]):
            return words
    raise BuildFailed(f"no C++ compiler was found (looked for {asked or 'g++, clang++, c++'})")


def _variants(compiler: list[str]) -> dict[str, tuple[str, ...]]:
    """Instruction sets of the machine that the compiler builds for, and their flags."""
    try:
        said = _run([*compiler, "-dumpmachine"]).lower()
    except BuildFailed:  # not every compiler can say
        said = platform.machine().lower()
    return X86_VARIANTS if said.startswith(("x86_64", "amd64")) else OTHER_VARIANTS


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
    variants = _variants(compiler)
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
        _run([*compiler, "-shared", "-o", str(linked), *objects, "-lm", "-pthread"])
        fresh = target.with_suffix(f".{os.getpid()}")
        shutil.copy2(linked, fresh)
        fresh.replace(target)  # at once: a running process keeps the old one
    return target


def _compile(compiler: list[str], source: str, target: Path, *extra: str) -> list[str]:
    return [*compiler, *FLAGS, *extra, "-c", str(SOURCES / source), "-o", str(target)]


def _run(command: list[str]) -> str:
    """Run a compiler and return what it printed."""
    try:
        done = subprocess.run(  # noqa: S603 - a compiler on our own sources
            command, capture_output=True, text=True, check=False, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildFailed(f"{command[0]} could not be run: {error}") from error
    if done.returncode:
        raise BuildFailed(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout


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

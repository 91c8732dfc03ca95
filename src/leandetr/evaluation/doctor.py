"""What this machine runs the sampling operators on, whether that is right, and what is missing."""

import importlib.metadata
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from typing import Any

import torch

from leandetr.evaluation.machine import processor
from leandetr.ops import backend, build, cpu, pool
from leandetr.ops.cpu_library import Library
from leandetr.ops.trial import Trial, try_operators

PACKAGES = {
    "numba": ("sampling on CPU where the kernels are not built", "leandetr[numba]"),
    "triton": ("sampling on NVIDIA GPUs", "triton"),
    "matplotlib": ("curves and charts", "leandetr[train]"),
    "tensorboard": ("watching a training", "leandetr[train]"),
    "faster-coco-eval": ("COCO metrics", "leandetr[eval]"),
    "supervision": ("handing detections to supervision", "leandetr[viz]"),
    "timm": ("backbones timm:NAME", "leandetr[timm]"),
    "transformers": ("backbones hf:NAME", "leandetr[transformers]"),
    "huggingface-hub": ("models hf:OWNER/NAME", "leandetr[hub]"),
}
"""Optional packages: what each is for, and what to install."""


@dataclass(frozen=True)
class Health:
    """What `leandetr doctor` found; `facts` are lines of a table, `advice` are sentences."""

    facts: dict[str, str]
    trials: list[Trial]
    packages: dict[str, str | None]
    advice: list[str]

    @property
    def is_right(self) -> bool:
        """Whether every operator gives right numbers."""
        return all(trial.agrees for trial in self.trials)

    def as_json(self) -> dict[str, Any]:
        """Everything, ready to be written as JSON."""
        trials = [{**asdict(t), "ratio": t.ratio, "agrees": t.agrees} for t in self.trials]
        told = [{name: None if fact != fact else fact for name, fact in t.items()} for t in trials]
        return {**asdict(self), "trials": told, "is_right": self.is_right}  # JSON has no NaN

    def table(self) -> str:
        """Everything, to be read."""
        return "\n".join((*self._facts(), "", *self._trials(), "", *self._packages(), *self._end()))

    def _facts(self) -> list[str]:
        return [f"{name:<16}{fact}" for name, fact in self.facts.items()]

    def _trials(self) -> list[str]:
        head = f"{'operator':<20}{'on':<6}{'ms':>8}{'reference':>11}{'faster':>8}{'difference':>12}"
        return [head, *(_line(trial) for trial in self.trials)]

    def _packages(self) -> list[str]:
        lines = []
        for name, version in self.packages.items():
            use, install = PACKAGES[name]
            state = version or f"missing: pip install '{install}'"
            lines.append(f"{name:<18}{use:<48}{state}")
        return lines

    def _end(self) -> list[str]:
        return ["", *self.advice] if self.advice else ["", "all is as fast as it can be here"]


def _line(trial: Trial) -> str:
    if trial.error:
        return f"{trial.operator:<20}{trial.device:<6}FAILED: {trial.error}"
    return (
        f"{trial.operator:<20}{trial.device:<6}{trial.milliseconds:>8.1f}"
        f"{trial.reference_milliseconds:>11.1f}{trial.ratio:>7.1f}x{trial.difference:>12.1e}"
        f"{'' if trial.agrees else '   WRONG'}"
    )


def examine() -> Health:
    """Look around, and run every operator once with and without its kernel: some seconds."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    trials = [trial for device in devices for trial in try_operators(device)]
    return Health(
        facts=_facts(),
        trials=trials,
        packages={name: _version(name) for name in PACKAGES},
        advice=[*_cpu_advice(), *_gpu_advice(), *_trial_advice(trials)],
    )


def _facts() -> dict[str, str]:
    shared = "shared with PyTorch" if pool.entry() else "kernels use one, none is shared"
    return {
        "leandetr": _version("leandetr") or "not installed",
        "Python": platform.python_version(),
        "PyTorch": str(torch.__version__),
        "processor": f"{processor()}, {os.cpu_count()} logical cores, {platform.machine()}",
        "threads": f"{torch.get_num_threads()}, {shared}",
        "CPU operators": _cpu_backend(),
        "GPU": _gpu(),
        "GPU operators": "Triton" if "cuda" in backend.KERNEL_DEVICES else "none",
        "compiler": _compiler() or "none found",
    }


def _cpu_backend() -> str:
    library = cpu.LIBRARY
    if library is None:
        return "reference: plain PyTorch"
    if not isinstance(library, Library):
        return f"numba {_version('numba')}"
    runs = ", ".join(library.variants)
    return f"built kernels for {library.variant}; here run {runs} ({library.path.name})"


def _gpu() -> str:
    if not torch.cuda.is_available():
        return "none that PyTorch can use"
    count = torch.cuda.device_count()
    return ", ".join(torch.cuda.get_device_name(index) for index in range(count))


def _compiler() -> str | None:
    try:
        return " ".join(build.find_compiler())
    except build.BuildFailed:
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_advice() -> list[str]:
    library, advice = cpu.LIBRARY, []
    if library is None:
        advice.append(cpu.ON_REFERENCE)
    elif not isinstance(library, Library):
        advice.append(cpu.ON_NUMBA)
    elif library.variant != library.variants[-1]:
        advice.append(
            f"LEANDETR_CPU_VARIANT asks for {library.variant}; unset it and {library.variants[-1]} "
            "runs, which is faster"
        )
    if not isinstance(library, Library) and _compiler():
        advice.append(
            "there is a compiler; to build the kernels type: python -m leandetr.ops.build"
        )
    if library is not None and pool.entry() is None:
        advice.append(
            "GOMP_parallel was not found in PyTorch's OpenMP library, so the kernels run on one "
            "thread; a PyTorch from PyPI or from conda-forge has it on Linux"
        )
    if torch.get_num_threads() == 1 and (os.cpu_count() or 1) > 1:
        advice.append(
            "PyTorch uses one thread; unset OMP_NUM_THREADS or call torch.set_num_threads for more"
        )
    return advice


def _gpu_advice() -> list[str]:
    if "cuda" in backend.MISSING:
        return [backend.MISSING["cuda"]]
    if shutil.which("nvidia-smi") and torch.version.cuda is None:
        return [
            "there is an NVIDIA driver, but this PyTorch is built for CPU only; choose a build "
            "with CUDA at https://pytorch.org/get-started/locally"
        ]
    return []


def _trial_advice(trials: list[Trial]) -> list[str]:
    wrong = [f"{t.operator} ({t.device})" for t in trials if not t.agrees and not t.error]
    broken = [f"{t.operator} ({t.device})" for t in trials if t.error]
    found = [f"wrong numbers from {', '.join(wrong)}"] if wrong else []
    found += [f"no numbers from {', '.join(broken)}"] if broken else []
    cure = "run everything inside leandetr.ops.use_backend('reference') and report this output"
    return [f"{one}: {cure}" for one in found]

"""What figures were measured on: a time without its machine says nothing."""

import datetime
import os
import platform
from pathlib import Path

import torch


def describe(device: torch.device | str | None = None) -> str:
    """Processor, threads, GPU, versions and date, in one line.

    `device` is where models ran, if one wants to say it: a GPU is named only if they ran on it.
    """
    return (
        f"{processor()} ({os.cpu_count()} logical cores, {torch.get_num_threads()} threads used), "
        f"{_gpu(device)}, Python {platform.python_version()}, PyTorch {torch.__version__}, "
        f"{datetime.datetime.now(tz=datetime.UTC).date().isoformat()}"
    )


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu(device: torch.device | str | None) -> str:
    """The GPU that was used, or is there to be used."""
    used = device is None or torch.device(device).type == "cuda"
    if not used or not torch.cuda.is_available():
        return "no GPU" if device is None else "no GPU used"
    return torch.cuda.get_device_name(device)

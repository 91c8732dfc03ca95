"""What figures were measured on: a time without its machine says nothing."""

import datetime
import os
import platform
from pathlib import Path

import torch

from leandetr.errors import LeanDetrError


def describe(device: torch.device | str | None = None) -> str:
    """Processor, threads, GPU, versions and date, in one line.

    `device` is where models ran, if one wants to say it: a GPU is named only if they ran on it.
    """
    threads = torch.get_num_threads()
    return (
        f"{processor()} ({os.cpu_count()} logical cores, {threads} "
        f"thread{'s' * (threads != 1)} used), "
        f"{_gpu(device)}, Python {platform.python_version()}, PyTorch {torch.__version__}, "
        f"{datetime.datetime.now(tz=datetime.UTC).date().isoformat()}"
    )


def device_of(name: str) -> torch.device:
    """The device called `name`, or with `auto` a GPU if there is one, else the processor.

    Raises `LeanDetrError` for one that cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise LeanDetrError(
            f"device '{name}' cannot be used ({reason}); try --device cpu"
        ) from error


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

"""What the figures were measured on."""

import datetime
import os
import platform
from pathlib import Path

import torch


def describe() -> str:
    """Processor, threads, GPU, versions and date, in one line."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{processor()} ({os.cpu_count()} logical cores, {torch.get_num_threads()} threads used), "
        f"{gpu}, Python {platform.python_version()}, PyTorch {torch.__version__}, "
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

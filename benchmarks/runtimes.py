"""The same weights exported: onnxruntime and OpenVINO against our own forward pass.

    pip install onnx onnxscript onnxruntime openvino
    python -m benchmarks.models --runtimes --write docs/benchmarks.md

The detector is exported for one size of picture, without padding, its sampling as `GridSample`:
what is the same for every such picture, position tables above all, the runtimes may work out once.
Each model runs with as many threads as PyTorch has, and all take turns. A runtime that is not
installed is named and left out.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import leandetr
from benchmarks.machine import describe
from benchmarks.turns import best_of, unit
from leandetr.models.detector import Detector
from leandetr.ops import use_backend
from leandetr.types import Images

MODELS = ("deformable-detr-r50", "dino-r50")
EXPORTING = ("onnx", "onnxscript")
RUNTIMES = ("onnxruntime", "openvino")
"""What has to be installed: all that exports, and at least one that runs."""
PLAIN, FAST, LOWER = "ours", "ours, optimised", "ours, optimised, bf16"

ALIKE = (0.1, 0.01)
"""Within which logits, and boxes in sides of the picture, tell the same."""

Answer = Sequence[Tensor]
"""Logits and boxes."""
Call = Callable[[], Answer]


class Plain(nn.Module):
    """A detector from pixels without padding to logits and boxes."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector
        self.eval()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and boxes of every query."""
        padding = torch.zeros_like(pixels[:, 0], dtype=torch.bool)
        answer = self.detector(Images(pixels, padding)).answer
        return answer.logits, answer.boxes


def missing(packages: Sequence[str]) -> list[str]:
    """Those that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def export(model: nn.Module, pixels: Tensor, path: Path) -> None:
    """Write the model for pictures of this size, its operators in plain PyTorch."""
    with use_backend("reference"), torch.no_grad():
        program = torch.onnx.export(
            model,
            (pixels,),
            dynamo=True,
            input_names=["pixels"],
            output_names=["logits", "boxes"],
            verbose=False,
        )
    assert program is not None
    program.save(str(path))


def onnxruntime_call(path: Path, pixels: Tensor) -> Call:
    """In onnxruntime, float32, with all its optimisations of the graph."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = {"pixels": pixels.numpy()}
    return lambda: [torch.from_numpy(array) for array in session.run(["logits", "boxes"], given)]


def openvino_call(path: Path, pixels: Tensor, precision: str | None) -> Call:
    """In OpenVINO, set to answer one picture soon; without `precision` it chooses its own."""
    import openvino

    config: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    if precision is not None:
        config["INFERENCE_PRECISION_HINT"] = precision
    ready = openvino.Core().compile_model(path, "CPU", config)
    request, given = ready.create_infer_request(), pixels.numpy()

    def call() -> Answer:
        request.infer({"pixels": given}, share_inputs=True)
        return [torch.from_numpy(request.get_tensor(name).data) for name in ("logits", "boxes")]

    return call


def runtime_calls(model: nn.Module, pixels: Tensor, installed: Sequence[str]) -> dict[str, Call]:
    """The exported model in every runtime there is, by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        export(model, pixels, path)
        calls: dict[str, Call] = {}
        if "onnxruntime" in installed:
            calls["onnxruntime, float32"] = onnxruntime_call(path, pixels)
        if "openvino" in installed:
            calls["OpenVINO, float32"] = openvino_call(path, pixels, "f32")
            calls["OpenVINO, its own precision"] = openvino_call(path, pixels, None)
    return calls


def apart(one: Answer, other: Answer) -> list[str]:
    """Largest difference of logits and of boxes, and the share of queries that are alike."""
    furthest = [(a - b).abs().amax(-1) for a, b in zip(one, other, strict=True)]
    alike = (furthest[0] < ALIKE[0]) & (furthest[1] < ALIKE[1])
    return [
        *(f"{float(most.max()):.0e}" for most in furthest),
        f"{float(alike.float().mean()):.0%}",
    ]


def rows_of(name: str, pixels: Tensor, rounds: int, installed: Sequence[str]) -> list[str]:
    """A line for each way to run a model: how far its answers are from ours, and its time."""
    torch.manual_seed(0)
    detector = leandetr.create_model(name).eval()
    ours = {
        PLAIN: Plain(detector),
        FAST: Plain(detector.optimise()),
        LOWER: Plain(detector.optimise(dtype=torch.bfloat16)),
    }
    calls: dict[str, Call] = {
        which: lambda model=model: model(pixels) for which, model in ours.items()
    }
    calls |= runtime_calls(ours[PLAIN], pixels, installed)
    answers = {which: [part.clone() for part in call()] for which, call in calls.items()}
    best = best_of(calls, rounds)
    lines = []
    for which, spent in best.items():
        cells = apart(answers[which], answers[PLAIN])
        cells += [f"{spent:.0f}", f"{spent / best[FAST]:.2f}", f"{spent / best[LOWER]:.2f}"]
        lines.append(f"| {name} | {which} | " + " | ".join(cells) + " |")
    return lines


@torch.inference_mode()
def report(size: tuple[int, int], options: argparse.Namespace) -> str:
    """The table, as Markdown. Raises `ModuleNotFoundError` where nothing can be measured."""
    absent = missing((*EXPORTING, *RUNTIMES))
    installed = [name for name in RUNTIMES if name not in absent]
    advice = f"Not installed: {', '.join(absent)}; type `pip install {' '.join(absent)}`."
    if not installed or set(EXPORTING) & set(absent):
        raise ModuleNotFoundError(advice)
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    lines: list[str] = []
    for name in options.models or MODELS:
        lines += rows_of(name, pixels, options.rounds, installed)
    used = ", ".join(f"{name} {version(name)}" for name in (*EXPORTING, *installed))
    return (
        f"Measured by `python -m benchmarks.models --runtimes` on {describe()}, {used}; one image "
        f"of {size[0]}x{size[1]}, {unit()}, shortest of {options.rounds} rounds in turns. The same "
        "random weights in all; apart is the largest difference of outputs from ours in float32; "
        f"queries are alike within {ALIKE[0]} in every logit and {ALIKE[1]} in every side. "
        "Ratios are a runtime's time over that of our optimised model.\n\n"
        "| model | runs in | logits apart | boxes apart | queries alike | ms | over ours, float32 "
        "| over ours, bf16 |\n|---|---|" + "---:|" * 6 + "\n"
        + "\n".join(lines)
        + (f"\n\n{advice}" if absent else "")
    )  # fmt: skip

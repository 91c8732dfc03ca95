"""The sampling operators: kernels against the reference that everybody else runs.

    python -m benchmarks.ops                         # some minutes
    python -m benchmarks.ops --write docs/benchmarks.md

Each row is a ratio, reference over kernel, of the processor time of one call: both take turns in
one run, and each figure is the median of its rounds. Sizes are those of an 800x1333 image: 22223
tokens on four levels, 8 heads of 32 channels, 4 points a level.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.machine import describe
from benchmarks.page import held, put
from leandetr import ops
from leandetr.ops import cpu

SHAPES = ((100, 167), (50, 84), (25, 42), (13, 21))
HEADS, WIDTH, POINTS = 8, 32, 4
THREADS = "Two threads over one"
FLOAT = torch.float32
BOTH, PEER = "sampling both", "transformers"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    operator: str  # deform, shared-key, own-key
    queries: int = 0  # 0: every token
    backward: bool = False
    pattern: str = "local"
    dtype: torch.dtype = FLOAT
    fused: bool = False
    against: str = ""  # a reference other than ours: sampling both, transformers

    @property
    def title(self) -> str:
        """The first five cells of the line."""
        name = {"deform": "deform_attn", "shared-key": "key_aware_attn, shared key"}.get(
            self.operator, "key_aware_attn, own key"
        )
        size = f"{self.queries} queries" if self.queries else "encoder"
        what = "forward + backward" if self.backward else "forward"
        kind = str(self.dtype).removeprefix("torch.")
        name += ", fused" if self.fused else ""
        name += f", against {self.against}" if self.against else ""
        return f"{name} | {size} | {self.pattern} | {kind} | {what}"

    @property
    def weighed(self) -> bool:
        """Whether the table says how much memory it takes."""
        plain = (self.queries, self.pattern, self.dtype, self.fused) == (0, "local", FLOAT, False)
        return plain and self.against != BOTH


ROWS = (
    Row("deform"),
    Row("deform", pattern="uniform"),
    Row("deform", dtype=torch.bfloat16),
    Row("deform", fused=True),
    Row("deform", against=PEER),
    Row("deform", backward=True),
    Row("deform", backward=True, pattern="uniform"),
    Row("deform", backward=True, fused=True),
    Row("deform", backward=True, against=PEER),
    Row("own-key"),
    Row("shared-key"),
    Row("shared-key", pattern="uniform"),
    Row("shared-key", fused=True),
    Row("shared-key", against=BOTH),
    Row("own-key", backward=True),
    Row("shared-key", backward=True),
    Row("shared-key", backward=True, against=BOTH),
    Row("deform", queries=300),
    Row("deform", queries=900),
    Row("deform", queries=300, backward=True),
    Row("deform", queries=900, backward=True),
)


def inputs(row: Row) -> dict[str, Tensor]:
    """Random tensors of the row's sizes; local offsets reach a few cells, uniform ones anywhere."""
    torch.manual_seed(0)
    count = sum(height * width for height, width in SHAPES)
    grids = [
        torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w).flip(-1)
        for h, w in SHAPES
    ]
    centres = torch.cat(grids)
    if row.queries:
        centres = centres[torch.randint(count, (row.queries,))]
    queries = len(centres)
    reference = centres[None, :, None].expand(1, queries, len(SHAPES), 2).contiguous()
    sides = torch.tensor([[w, h] for h, w in SHAPES])
    offsets = 2 * torch.randn(1, queries, HEADS, len(SHAPES), POINTS, 2)
    if row.pattern == "uniform":
        offsets = (torch.rand_like(offsets) - centres[None, :, None, None, None]) * sides[:, None]
    logits = torch.randn(1, queries, HEADS, len(SHAPES) * POINTS)
    return {
        "query": torch.randn(1, queries, HEADS, WIDTH).to(row.dtype),
        "key": torch.randn(1, count, HEADS, WIDTH).to(row.dtype),
        "value": torch.randn(1, count, HEADS, WIDTH).to(row.dtype),
        "reference": reference,
        "offsets": offsets,
        "logits": logits,
        "locations": reference[:, :, None, :, None] + offsets / sides[:, None],
        "weights": logits.softmax(dim=-1).unflatten(-1, (len(SHAPES), POINTS)),
    }


def peer(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    """What transformers runs on a CPU: the formulation that the official code gives."""
    from transformers.models.deformable_detr import modeling_deformable_detr as theirs

    sides = torch.tensor(SHAPES)
    starts = sides.prod(dim=1).cumsum(dim=0) - sides.prod(dim=1)
    given = (value, sides, list(SHAPES), starts, locations, weights)
    return theirs.MultiScaleDeformableAttention()(*given, im2col_step=64)


def answer(row: Row, backend: str, t: dict[str, Tensor]) -> Tensor:
    """What the row's operator, or the reference it stands against, makes of `inputs`."""
    if row.against == PEER and backend == "reference":
        return peer(t["value"], t["locations"], t["weights"])
    if row.operator == "deform" and row.fused:
        return ops.deform_attn_at(t["value"], SHAPES, t["reference"], t["offsets"], t["logits"])
    if row.operator == "deform":
        return ops.deform_attn(t["value"], SHAPES, t["locations"], t["weights"])
    key = t["value"] if row.operator == "shared-key" else t["key"]
    if row.against == BOTH and backend == "reference":
        key = key.view_as(key)  # the same numbers, but not known to be
    if row.fused:
        where = (t["reference"], t["offsets"])
        return ops.key_aware_attn_at(t["query"], key, t["value"], SHAPES, *where)
    return ops.key_aware_attn(t["query"], key, t["value"], SHAPES, t["locations"])


def work(row: Row, backend: str) -> Callable[[], None]:
    """One call of the row's operator, and its gradient if the row asks for it."""
    t = inputs(row)
    moved = ("query", "key", "value", "offsets", "logits", "locations", "weights")
    for name in moved if row.backward else ():
        t[name].requires_grad_()
    pull = torch.ones(1, row.queries or len(t["value"][0]), HEADS * WIDTH, dtype=row.dtype)

    def call() -> None:
        with ops.use_backend(backend):
            output = answer(row, backend, t)
            if row.backward:
                output.backward(pull)
                for name in moved:
                    t[name].grad = None

    return call


def spent(call: Callable[[], None], clock: Callable[[], float]) -> float:
    """Milliseconds of one call."""
    began = clock()
    call()
    return 1000 * (clock() - began)


def medians(row: Row, rounds: int) -> tuple[float, float]:
    """Processor milliseconds of reference and kernel; a kernel call is short, so it has more."""
    reference, kernel = work(row, "reference"), work(row, "operator")
    reference()
    kernel()
    slow, fast = [], []
    for _ in range(rounds):
        slow.append(spent(reference, time.process_time))
        fast += [spent(kernel, time.process_time) for _ in range(3)]
    return statistics.median(slow), statistics.median(fast)


def two_threads_over_one(row: Row, rounds: int) -> float:
    """How much sooner two threads are done than one."""
    call = work(row, "operator")
    seconds: dict[int, list[float]] = {1: [], 2: []}
    before = torch.get_num_threads()
    for _ in range(rounds):
        for threads, spans in seconds.items():
            torch.set_num_threads(threads)
            call()
            spans += [spent(call, time.perf_counter) for _ in range(3)]
    torch.set_num_threads(before)
    return min(seconds[1]) / min(seconds[2])


PEAK = """
import re, sys
from pathlib import Path
import torch
from dataclasses import replace
from benchmarks.ops import ROWS, work
def peak():
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1])
torch.set_num_threads(1)
row = ROWS[int(sys.argv[1])]
work(replace(row, queries=1), sys.argv[2])()  # imports what the first call imports
call = work(row, sys.argv[2])
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
before = peak()
call()
print(peak() - before)
"""
"""Linux only: elsewhere leave memory out."""


def extra_memory(index: int, backend: str) -> float:
    """MiB by which one call raises the peak of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(index), backend],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},  # what is freed goes back
    )
    return int(done.stdout) / 1024


def table(rounds: int, *, memory: bool) -> str:
    """A Markdown table: a line a row."""
    lines = [
        "| operator | size | pattern | type | | reference ms | kernel ms | ratio | "
        "reference MiB | kernel MiB | ratio |",
        "|---|---|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for index, row in enumerate(ROWS):
        slow, fast = medians(row, rounds)
        cells = f"| {row.title} | {slow:.1f} | {fast:.1f} | {slow / fast:.1f} |"
        if memory and row.weighed:
            big, small = (extra_memory(index, name) for name in ("reference", "operator"))
            cells += f" {big:.0f} | {small:.0f} | {big / max(small, 1):.0f} |"
        else:
            cells += " | | |"
        lines.append(cells)
    return "\n".join(lines)


def report(rounds: int, *, memory: bool) -> str:
    """Everything, as Markdown."""
    assert cpu.LIBRARY is not None, "build the kernels first: python -m leandetr.ops.build"
    return (
        f"Measured by `python -m benchmarks.ops` on {describe()}; kernels for "
        f"{cpu.LIBRARY.variant}, processor time of one call, median of {rounds} rounds.\n\n"
        "Memory is what one call adds to a process that holds its inputs and, for gradients, that "
        "of the output. With a shared key the reference samples it once, as the kernels do; "
        "'against sampling both' is against the published formulation, which samples key and value "
        "although they are the same; 'against transformers' is against what that package runs.\n\n"
        f"{table(rounds, memory=memory)}\n\n{threads(rounds)}"
    )


def threads(rounds: int) -> str:
    """The last line: how two threads do."""
    pairs = [
        f"{row.title.replace(' | ', ', ')}: {two_threads_over_one(row, rounds):.2f}"
        for row in (Row("deform"), Row("deform", backward=True))
    ]
    return f"{THREADS}, shortest wall time of each: {'; '.join(pairs)}."


def main() -> None:
    """Print the report; with --write, put it between the markers of a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--only-threads", action="store_true", help="measure the last line again")
    parser.add_argument("--write", type=Path, help="page whose marked part is replaced")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only_threads:
        text = threads(options.rounds)
    else:
        text = report(options.rounds, memory=not options.no_memory)
    print(text)
    if options.write:
        if options.only_threads:
            text = held(options.write, "ops").partition(THREADS)[0] + text
        put(options.write, "ops", text)


if __name__ == "__main__":
    main()

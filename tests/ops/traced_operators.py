"""Compiles and exports the operators, all of them in one function; `test_traced.py` runs this.

In a process of its own, because shape checks on Python functions cannot be traced. Prints how far
answers and gradients lie from those of the plain call.
"""

import json
import sys

import torch
from torch import Tensor, nn
from torch.export import Dim

from leandetr import ops
from sampling import Sizes
from sampling_calls import KINDS, call, draw

AT = Sizes(images=2, queries=5, width=4)
FEW = ("deform-at", "own-key", "shared-key-at")
"""The most different kinds: tracing takes seconds for each."""


class Everything(nn.Module):
    """The sum of what the operators answer to its scaled inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, given: dict[str, list[Tensor]]) -> Tensor:
        answers = [call(kind, AT.shapes, *(self.scale * t for t in given[kind])) for kind in given]
        return torch.stack(answers).sum(dim=0)


def inputs(kinds: tuple[str, ...], queries: int) -> dict[str, list[Tensor]]:
    """In single precision."""
    at = Sizes(AT.images, queries, AT.heads, AT.width, AT.points, AT.shapes)
    return {kind: [tensor.float() for tensor in draw(kind, at)] for kind in kinds}


def answers(module: nn.Module, given: dict[str, list[Tensor]]) -> list[Tensor]:
    """Output and all gradients."""
    leaves = {kind: [t.clone().requires_grad_() for t in given[kind]] for kind in given}
    output = module(leaves)
    output.square().sum().backward()
    return [output.detach(), *(leaf.grad for kind in given for leaf in leaves[kind])]


def compiled(kinds: tuple[str, ...], backend: str) -> list[float]:
    """Forward and backward in one graph each; then with other sizes, for which it is free."""
    found = []
    with ops.use_backend(backend):
        plain = Everything()
        module = torch.compile(plain, backend="aot_eager", fullgraph=True)
        for queries in (5, 3):
            given = inputs(kinds, queries)
            pairs = zip(answers(module, given), answers(plain, given), strict=True)
            apart = [(one - other).abs().max() for one, other in pairs]
            found.append(torch.stack(apart).max().item())  # Python's max passes over a NaN
    return found


def exported(kinds: tuple[str, ...]) -> list[float]:
    """With a free number of queries; numbers of an export are those of the reference."""
    module, example = Everything(), inputs(kinds, 5)
    free = {kind: [_axes(kind, index) for index in range(len(example[kind]))] for kind in kinds}
    with torch.no_grad():
        program = torch.export.export(module, (example,), dynamic_shapes=(free,))
        names = {str(node.target) for node in program.graph.nodes}
        assert not [name for name in names if "leandetr" in name], names
        several = [inputs(kinds, queries) for queries in (5, 2, 9)]
        whole = program.module()
        return [(whole(given) - module(given)).abs().max().item() for given in several]


def _axes(kind: str, index: int) -> dict[int, Dim]:
    maps = {"deform": (0,), "shared": (1,), "own": (1, 2)}[kind.split("-")[0]]
    return {} if index in maps else {1: Dim("Q", min=2, max=64)}


def main(amount: str, *hows: str) -> None:
    kinds, found = {"few": FEW, "all": KINDS}[amount], {}
    for how in hows:
        torch.manual_seed(0)
        found[how] = exported(kinds) if how == "export" else compiled(kinds, how)
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

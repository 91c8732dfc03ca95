"""Export and compile in a process of its own; print how far it departs from the plain modules.

    python traced.py detector PRESET
    python traced.py encoder NAME[:FIELD=NUMBER]

The shape checker of the test suite cannot run inside a trace: tests start this file without it.
A line of JSON for each: largest differences by way, for several sizes.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from leandetr.models.backbones import NanoResNetConfig
from leandetr.models.necks import ChannelMapperConfig
from leandetr.nn.grid import valid_ratio
from leandetr.types import Images, Tokens
from tiny import DIM, batch, shrink, single_level, tiny, tiny_model

SHORTEST = 33
"""A pixel more than the stride of the coarsest level: sides of one cell are a case of their own."""

Traced = dict[str, list[float]]


def smallest(detector: str, encoder: str) -> nn.Module:
    """One layer of everything, and two levels where there are several.

    What is traced grows with them, the law does not. An encoder that is "own" is the preset's.
    """
    name, _, setting = encoder.partition(":")
    parts = tiny(detector, None if name == "own" else name).model
    once: dict[str, float] = {"layers": 1, "blocks": 1, "high_levels": 1}
    if setting:
        field, _, number = setting.partition("=")
        once[field] = float(number)
    known = vars(parts.encoder).keys()
    return tiny_model(
        detector,
        shrink(parts.encoder, **{name: n for name, n in once.items() if name in known}),
        backbone=NanoResNetConfig(
            widths=(8, 8, 16), blocks=(1, 1, 1), outputs=(2,) if parts.neck.levels == 1 else (1, 2)
        ),
        neck=parts.neck if parts.neck.levels == 1 else ChannelMapperConfig(levels=2),
        decoder=shrink(parts.decoder, layers=1),
    )


class PlainDetector(nn.Module):
    """A detector from tensors to tensors."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Tensor, padding: Tensor) -> tuple[Tensor, ...]:
        answer = self.detector(Images(pixels, padding)).answer
        return answer.logits, answer.boxes


class PlainEncoder(nn.Module):
    """The encoder of a detector, from the maps of two levels and their padding to a tensor."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.proposals = detector.encoder, detector.proposals

    def forward(self, fine: Tensor, coarse: Tensor, *holes: Tensor) -> tuple[Tensor, ...]:
        maps = (fine, coarse)
        features = torch.cat([level.flatten(2).transpose(1, 2) for level in maps], dim=1)
        tokens = Tokens(
            features,
            features.flip(-1),
            torch.cat([hole.flatten(1) for hole in holes], dim=1),
            torch.stack([valid_ratio(hole, fine.dtype) for hole in holes], dim=1),
            tuple((level.shape[-2], level.shape[-1]) for level in maps),
        )
        return (self.encoder(tokens, self.proposals).tokens.features,)


def departs(traced: Callable[..., Any], plain: Callable[..., Any], given: tuple) -> float:
    """Largest difference of two ways to answer the same."""
    pairs = zip(traced(*given), plain(*given), strict=True)
    return max((one - other).abs().max().item() for one, other in pairs)


def trace_detector(name: str) -> Traced:
    """A detector, exported with symbolic height and width; of several levels all with one encoder.

    Encoders are traced by themselves.
    """

    def images(height: int, width: int) -> tuple[Tensor, Tensor]:
        both = batch((height, width), (height * 2 // 3, width * 3 // 4))
        return both.pixels, both.padding

    model = PlainDetector(smallest(name, "own" if name in single_level() else "deformable"))
    height, width = (Dim(side, min=SHORTEST, max=512) for side in "HW")
    free = ({2: height, 3: width}, {1: height, 2: width})
    program = torch.export.export(model, images(96, 128), dynamic_shapes=free).module()
    sizes = ((96, 128), (64, 64), (33, 200), (101, 77))
    return {"export": [departs(program, model, images(*size)) for size in sizes]}


def trace_encoder(name: str) -> Traced:
    """An encoder exported with symbolic level sizes, and compiled without a break."""

    def maps(*sizes: tuple[int, int]) -> tuple[Tensor, ...]:
        holes = [torch.zeros(2, *size, dtype=torch.bool) for size in sizes]
        for hole, (height, width) in zip(holes, sizes, strict=True):
            hole[1, height // 2 + 1 :] = True
            hole[1, :, width // 2 + 1 :] = True
        return (*(torch.randn(2, DIM, *size) for size in sizes), *holes)

    model = PlainEncoder(smallest("dino-nano", name))
    fine, coarse = ({axis: Dim(f"{axis}{level}", min=2) for axis in "HW"} for level in range(2))
    over = [{2: sides["H"], 3: sides["W"]} for sides in (fine, coarse)]
    holes = tuple({1: sides["H"], 2: sides["W"]} for sides in (fine, coarse))
    given = maps((12, 16), (6, 8))
    free = {"fine": over[0], "coarse": over[1], "holes": holes}
    program = torch.export.export(model, given, dynamic_shapes=free).module()
    whole = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)
    others = (maps((7, 9), (4, 5)), maps((20, 2), (10, 2)))
    return {
        "export": [departs(program, model, some) for some in (given, *others)],
        "compile": [departs(whole, model, given)],
    }


def main(kind: str, *names: str) -> None:
    trace = {"detector": trace_detector, "encoder": trace_encoder}[kind]
    for name in names:
        torch.manual_seed(0)
        with torch.no_grad():
            sys.stdout.write(json.dumps({name: trace(name)}) + "\n")
        torch.compiler.reset()


if __name__ == "__main__":
    main(*sys.argv[1:])

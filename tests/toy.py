"""Small problems whose answers are known: a space in a few lines, a device that prices by a formula."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quadnas.blocks.base import connects
from quadnas.config import parse_yaml, validated
from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Coverage, LatencyModel, Price
from quadnas.search.limits import latency_limit
from quadnas.search.problem import Problem
from quadnas.search.settings import SearchSettings
from quadnas.space.search_space import SearchSpace, SpaceFile, space_from

CANDIDATES = "[{block: quadra, kernel: [3, 5, 7], expansion: [2, 4]}, {block: identity}]"


def toy_space(
    channels: Sequence[int] = (8, 16),
    depths: Sequence[int] = (2, 2),
    candidates: str = CANDIDATES,
    stem_stride: int = 4,
) -> SearchSpace:
    """A pyramid of a few narrow stages."""
    stages = "".join(f"  - {{channels: {c}, depth: {d}}}\n" for c, d in zip(channels, depths, strict=True))
    text = (
        f"format: quadnas-space/1\ndescription: toy\ncandidates: {candidates}\n"
        f"stem: {{block: patchify, stride: {stem_stride}}}\ndownsample: {{block: downsample, stride: 2}}\n"
        f"stages:\n{stages}head: {{block: classifier}}\n"
    )
    return space_from(validated(parse_yaml(text, "toy"), SpaceFile, "toy"), Path("toy.yaml"), connects)


class FormulaDevice(LatencyModel):
    """Prices every kernel by a given function of it; the card is that of a shipped device."""

    def __init__(self, formula: Callable[[Kernel], float | None]) -> None:
        shipped = load_device("cortexA76")
        super().__init__(shipped.card, {}, 1)
        self._formula = formula

    def price(self, kernels: Sequence[Kernel]) -> list[Price]:
        """The formula's value in ms; None means uncovered."""
        values = [self._formula(kernel) for kernel in kernels]
        return [Price(ms, Coverage.UNCOVERED if ms is None else Coverage.EXACT) for ms in values]


def taps_ms(kernel: Kernel) -> float:
    """1 us for every kernel plus 1 ms per million multiplications, roughly."""
    return 1e-3 + kernel.h * kernel.w * kernel.cout * kernel.kernel**2 / 1e6


def toy_problem(
    limit_ms: float = 1e9,
    space: SearchSpace | None = None,
    formula: Callable[[Kernel], float | None] = taps_ms,
    **settings: Any,
) -> Problem:
    """A posed problem on a formula device, at 64 x 64 pixels with 10 classes."""
    space = space or toy_space()
    model = FormulaDevice(formula)
    chosen = SearchSettings(device="formula", max_latency_ms=limit_ms, input_size=64, **settings)
    return Problem(chosen, space, 10, (model,), (latency_limit(space, model, 10, 64, limit_ms),))

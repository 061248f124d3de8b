"""The forest back-end: nn-Meter's own predictors, one random forest per kernel."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from quadnas.errors import DataError
from quadnas.latency.card import DeviceCard
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import BACK_ENDS, Arrays, Coverage, LatencyModel, Price
from quadnas.latency.nnmeter_kernels import KERNELS, features, kernel_name, nearest
from quadnas.latency.trees import Forest


@dataclass(frozen=True, slots=True)
class _Question:
    """What prices one kernel: a forest and the shape it is asked for, times a factor."""

    forest: str
    shape: Kernel
    factor: float
    error: float
    reason: str


@BACK_ENDS.register("forest")
class ForestModel(LatencyModel):
    """The arrays ``KERNEL.roots``, ``.feature``, ``.value``, ``.children`` per kernel of nn-Meter.

    An imported forest keeps fewer laws than the base class states: it is positive and finite, but its steps
    follow the measurements of single kernels, so a larger kernel may cost less and none is held to the
    device's peak. A shape outside nn-Meter's samples is a surrogate, an operator without a forest is one by the
    card's rule or has no price.
    """

    def __init__(self, card: DeviceCard, arrays: Arrays, batch: int) -> None:
        super().__init__(card, arrays, batch)
        names = {key.rpartition(".")[0] for key in arrays}
        if names != set(card.sampled) or not names or not names <= set(KERNELS):
            raise DataError(
                f"device {card.device!r}: the arrays are of {sorted(names)}, the card of {sorted(card.sampled)}; "
                f"nn-Meter's kernels are {', '.join(sorted(KERNELS))}"
            )
        try:
            self._forests = {name: Forest.of(arrays, name, KERNELS[name].columns) for name in sorted(names)}
        except ValueError as error:
            raise DataError(f"device {card.device!r}: damaged forest: {error}") from None

    def price(self, kernels: Sequence[Kernel]) -> list[Price]:
        """The price of every kernel; equal kernels are asked for once, all of one forest together."""
        for kernel in kernels:
            if kernel.batch != self.batch:
                raise ValueError(f"{kernel} is not of the model's batch {self.batch}")
        unique = list(dict.fromkeys(kernels))
        questions = [self._question(kernel) for kernel in unique]
        asked: dict[str, list[int]] = {}
        for index, question in enumerate(questions):
            if isinstance(question, _Question):
                asked.setdefault(question.forest, []).append(index)
        prices: dict[Kernel, Price] = {}
        for name, indices in asked.items():
            group = [(unique[i], q) for i in indices if isinstance(q := questions[i], _Question)]
            rows = np.array([features(name, question.shape) for _, question in group], dtype=np.float64)
            for (kernel, question), ms in zip(
                group, self._forests[name].predict_ms(rows).tolist(), strict=True
            ):
                coverage = Coverage.SURROGATE if question.reason else Coverage.EXACT
                cost_ms = max(ms * question.factor, self.card.launch_us * 1e-3) if question.reason else ms
                prices[kernel] = Price(cost_ms, coverage, question.reason, question.error)
        for kernel, question in zip(unique, questions, strict=True):
            if isinstance(question, str):
                prices[kernel] = Price(None, Coverage.UNCOVERED, question)
        return [prices[kernel] for kernel in kernels]

    def _question(self, kernel: Kernel) -> _Question | str:
        """What prices a kernel, or why nothing does."""
        name = kernel_name(kernel.op)
        factor, error, reasons = 1.0, 0.0, []
        if name not in self._forests and (rule := self.card.surrogates.get(name)):
            factor, error = rule.factor, rule.error
            reasons.append(f"{name} priced as {factor:g} x {rule.reference}: {rule.reason}")
            name = rule.reference
        if name not in self._forests:
            known = ", ".join(sorted({*self._forests, *self.card.surrogates}))
            return f"{name!r} has no forest on {self.card.device} and no stand-in; priced are: {known}"
        shape, share, reason = nearest(name, kernel)
        if reason:
            error += self.card.extrapolation_error
            reasons.append(reason)
        return _Question(name, shape, factor * share, error, "; ".join(reasons))

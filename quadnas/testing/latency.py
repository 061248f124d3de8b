"""Conformance checks for a latency model: the laws that every back-end keeps on every shipped device.

A forest of nn-Meter's keeps ``check_batch`` and positive, finite prices alone: no peak, no growth.

A test draws kernels from ``kernels`` and calls the checks; each raises AssertionError with the kernel.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from quadnas.latency.kernels import Kernel
from quadnas.latency.model import Coverage, LatencyModel, estimate
from quadnas.latency.terms.nce import ENGINE_CYCLES, cuts

WEIGHTED = ("conv", "conv-bn-relu", "conv-bn-relu6", "conv-bn-hswish", "dwconv", "dwconv-bn-relu")
POOLS = ("max-pool", "avg-pool", "global-pool")
ELEMENTWISE = ("add", "add-relu", "mul", "relu", "bn", "bn-relu", "hswish", "gelu", "layernorm", "concat")
DIMENSIONS = ("channels", "h", "w", "kernel", "cout")
ROUNDING = 1 + 1e-9


@st.composite
def kernels(draw: st.DrawFn, batch: int) -> Kernel:
    """Any kernel that a network may hold, far beyond what was measured."""
    op = draw(st.sampled_from((*WEIGHTED, *POOLS, *ELEMENTWISE, "fc", "fc-relu", "se")))
    side, width = draw(st.integers(1, 256)), draw(st.integers(1, 256))
    channels = draw(st.integers(1, 3000))
    if op.startswith("fc"):
        return Kernel(op, 1, 1, (channels,), draw(st.integers(1, 5000)), batch=batch)
    if op in ELEMENTWISE:
        count = draw(st.integers(2, 4)) if op in ("add", "add-relu", "mul", "concat") else 1
        cout = count * channels if op == "concat" else channels
        return Kernel(op, side, width, (channels,) * count, cout, batch=batch)
    if op in ("se", "global-pool"):
        cout = draw(st.integers(1, channels)) if op == "se" else channels
        return Kernel(op, side, width, (channels,), cout, batch=batch)
    cout = draw(st.integers(1, 3000)) if op.startswith("conv") else channels
    kernel, stride = draw(st.sampled_from((1, 2, 3, 4, 5, 7, 9, 11, 13))), draw(st.sampled_from((1, 2, 4)))
    return Kernel(op, side, width, (channels,), cout, kernel, stride, batch)


def grown(kernel: Kernel, dimension: str, by: int) -> Kernel:
    """The kernel with one dimension larger; where output channels equal input channels, both grow."""
    if dimension != "channels":
        free = kernel.op.startswith(("conv", "fc"))
        if (dimension == "cout" and not free) or (dimension != "cout" and kernel.op.startswith("fc")):
            return kernel
        return replace(kernel, **{dimension: getattr(kernel, dimension) + by})
    inputs = tuple(channels + by for channels in kernel.inputs)
    follows = kernel.op.startswith(("conv", "fc", "se"))
    cout = sum(inputs) if kernel.op == "concat" else kernel.cout if follows else kernel.cout + by
    return replace(kernel, inputs=inputs, cout=cout)


def check_price(model: LatencyModel, kernel: Kernel) -> None:
    """A covered kernel costs a finite positive time, never less than its arithmetic at the device's peak."""
    price = model.price([kernel])[0]
    if price.latency_ms is None:
        assert price.coverage is Coverage.UNCOVERED and price.reason, (kernel, price)
        return
    peak_ms = multiply_accumulates(kernel) / (model.card.peak_gmacs_per_second * 1e6)
    assert math.isfinite(price.latency_ms) and price.latency_ms > 0, (kernel, price)
    assert price.latency_ms * ROUNDING >= peak_ms, (kernel, price, peak_ms)
    assert (price.coverage is Coverage.EXACT) == (price.reason == ""), (kernel, price)
    assert price.surrogate_error >= 0, (kernel, price)


def check_growth(model: LatencyModel, kernel: Kernel, dimension: str, by: int) -> None:
    """No kernel gets cheaper when one of its dimensions grows, but where a compiler cuts it otherwise."""
    more = grown(kernel, dimension, by)
    price, larger = model.price([kernel, more])
    if (
        price.latency_ms is not None
        and larger.latency_ms is not None
        and not _cut_otherwise(model, kernel, more)
    ):
        assert larger.latency_ms * ROUNDING >= price.latency_ms, (kernel, price, more, larger)


def _cut_otherwise(model: LatencyModel, kernel: Kernel, more: Kernel) -> bool:
    """Whether the device cuts convolutions and takes another cut, or fewer descriptors, for ``more``."""
    op = kernel.op.split("-")[0]
    if op != "conv" or ENGINE_CYCLES not in model.card.terms.get(op, ()):
        return False
    (*before, descriptors), (*after, left) = cuts([kernel, more])
    return before != after or left < descriptors


def check_batch(model: LatencyModel, network: Sequence[Kernel]) -> None:
    """Prices do not depend on their neighbours, and a network's total not on the order of its kernels."""
    together = model.price(network)
    alone = [model.price([kernel])[0] for kernel in network]
    for kernel, one, many in zip(network, alone, together, strict=True):
        assert one.coverage is many.coverage and one.reason == many.reason, (kernel, one, many)
        assert (one.latency_ms is None) == (many.latency_ms is None), (kernel, one, many)
        assert math.isclose(one.latency_ms or 0, many.latency_ms or 0, rel_tol=1e-12), (kernel, one, many)
    totals = [estimate(model, order).latency_ms for order in (network, network[::-1])]
    assert (totals[0] is None) == (totals[1] is None), network
    assert math.isclose(totals[0] or 0, totals[1] or 0, rel_tol=1e-12), (network, totals)


def multiply_accumulates(kernel: Kernel) -> int:
    """Counted one output position and tap at a time along each side; taps outside the map do no work."""
    op = kernel.op.split("-")[0]
    if op == "fc":
        return kernel.batch * kernel.cin * kernel.cout
    if op == "conv":
        outputs = math.ceil(kernel.h / kernel.stride) * math.ceil(kernel.w / kernel.stride)
        return kernel.batch * outputs * kernel.cin * kernel.cout * kernel.kernel**2
    if op == "dwconv":
        return kernel.batch * _taps(kernel.h, kernel) * _taps(kernel.w, kernel) * kernel.cin
    return 0


def _taps(size: int, kernel: Kernel) -> int:
    outputs = math.ceil(size / kernel.stride)
    before = max((outputs - 1) * kernel.stride + kernel.kernel - size, 0) // 2
    return sum(
        0 <= output * kernel.stride + tap - before < size
        for output in range(outputs)
        for tap in range(kernel.kernel)
    )

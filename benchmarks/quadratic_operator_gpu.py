"""The quadratic operator on a GPU against its eager three-convolution form, or its kernels without one.

Run: python -m benchmarks.quadratic_operator_gpu [--rounds 50] [--batch 64]      times, on a CUDA device
     python -m benchmarks.quadratic_operator_gpu --compile-for 80 90             registers and spills, anywhere
"""

import argparse
import functools
import itertools
import statistics
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from quadnas.ops.quadratic import quadratic_depthwise, quadratic_depthwise_eager

SHAPES = ((64, 56), (128, 28), (256, 14), (512, 7))
KERNEL = 7
LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
FORMS = {"ours": quadratic_depthwise, "eager": quadratic_depthwise_eager}
FLUSHED_BYTES = 1 << 30  # beyond any cache, and long enough to write that the launches behind it are queued
LEAST_TENSORS = {"forward": 2, "forward + backward": 5}  # x, y; x, g and the gradient of x


def medians_ms(
    variants: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 5
) -> dict[str, float]:
    """Median device milliseconds of every variant, in turn, each with cold caches."""
    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
    found: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(warmup + rounds):
        for name, run in variants.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flushed.zero_()
            start.record()
            run()
            end.record()
            torch.cuda.synchronize()
            if number >= warmup:
                found[name].append(start.elapsed_time(end))
    return {name: statistics.median(values) for name, values in found.items()}


def forward(form: str, operands: list[Tensor], grad: Tensor) -> None:
    """One pass without gradients."""
    with torch.no_grad():
        FORMS[form](operands[0], operands[1], operands[2])


def forward_backward(form: str, operands: list[Tensor], grad: Tensor) -> None:
    """One pass with gradients for everything."""
    torch.autograd.grad(FORMS[form](operands[0], operands[1], operands[2]), operands, grad)


PASSES = {"forward": forward, "forward + backward": forward_backward}


def measure(channels: int, side: int, dtype: torch.dtype, batch: int, rounds: int) -> None:
    """Print milliseconds, the ratio to eager in channels-last, and the rate at which the least bytes move."""
    generator = torch.Generator("cuda").manual_seed(0)
    for name, run in PASSES.items():
        variants: dict[str, Callable[[], object]] = {}
        for (layout, memory_format), form in itertools.product(LAYOUTS.items(), FORMS):
            shapes = (batch, channels, side, side), (3, channels, 1, KERNEL, KERNEL), (3, channels)
            operands = [torch.randn(s, device="cuda", dtype=dtype, generator=generator) for s in shapes]
            operands[0] = operands[0].contiguous(memory_format=memory_format)
            grad = torch.randn_like(operands[0])
            operands = [operand.requires_grad_() for operand in operands]
            variants[f"{form}, {layout}"] = functools.partial(run, form, operands, grad)
        medians = medians_ms(variants, rounds)
        print(f"{name}, {KERNEL}x{KERNEL}, batch {batch}, {channels}@{side}x{side}, {dtype}")
        least_bytes = LEAST_TENSORS[name] * batch * channels * side * side * dtype.itemsize
        for variant, ms in medians.items():
            ratio = ms / medians["eager, channels-last"]
            print(f"  {variant:<24}{ms:>9.3f} ms{ratio:>8.2f}x{least_bytes / ms / 1e6:>8.0f} GB/s")


def compile_for(capability: int, batch: int) -> None:
    """Print registers and spilled bytes per thread of every kernel."""
    from benchmarks.ahead_of_time import compiled  # noqa: PLC0415 (needs triton)

    cases = itertools.product(SHAPES, (torch.float32, torch.bfloat16), LAYOUTS.items())
    for (channels, side), dtype, (layout, memory_format) in cases:
        x = torch.empty(batch, channels, side, side, dtype=dtype).contiguous(memory_format=memory_format)
        print(f"sm_{capability}, {KERNEL}x{KERNEL}, {channels}@{side}x{side}, {dtype}, {layout}")
        for kernel in compiled(capability, x, KERNEL):
            print(
                f"  {kernel.name:<16}{kernel.lanes:>4} lanes{kernel.registers:>5} registers"
                f"{kernel.spilled_bytes:>5} bytes spilled",
                flush=True,
            )


def main() -> None:
    """Measure, or compile."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--compile-for", type=int, nargs="+", default=(), metavar="CAPABILITY")
    options = parser.parse_args()
    if not options.compile_for and not torch.cuda.is_available():
        parser.error("times need a CUDA device; --compile-for needs none")
    for capability in options.compile_for:
        compile_for(capability, options.batch)
    if not options.compile_for:
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, batch {options.batch}")
        for (channels, side), dtype in itertools.product(SHAPES, (torch.float32, torch.bfloat16)):
            measure(channels, side, dtype, options.batch, options.rounds)


if __name__ == "__main__":
    main()

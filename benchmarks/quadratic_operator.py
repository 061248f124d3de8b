"""The quadratic operator: its back-ends against its eager form of three convolutions, forward and with backward.

Run: python -m benchmarks.quadratic_operator [--threads 1] [--rounds 15] [--kernels 3,5,7] [--contiguous]
On the CPU (``quadratic_operator_gpu`` is for GPUs), batch 8, float32; medians of interleaved runs. One thread is
timed by its CPU time, several by the clock.
"""

import argparse
import functools
import os
import time

import torch
from torch import Tensor

from benchmarks.timing import interleaved_medians
from quadnas.ops.quadratic import quadratic_backend, quadratic_depthwise, quadratic_depthwise_eager

MAPS = ((64, 56), (128, 28), (256, 14), (512, 7))


def operands(channels: int, side: int, kernel: int, layout: torch.memory_format) -> list[Tensor]:
    """x, weight and bias as leaves, and a gradient of the output."""
    shapes = (8, channels, side, side), (3, channels, 1, kernel, kernel), (3, channels)
    leaves = [torch.randn(shape).requires_grad_() for shape in shapes]
    leaves[0] = leaves[0].detach().contiguous(memory_format=layout).requires_grad_()
    return [*leaves, torch.randn_like(leaves[0])]


def run(form: str, tensors: list[Tensor], *, backward: bool) -> None:
    """One pass of ``ours``, ``ours by torch`` or ``eager``."""
    os.environ["QUADNAS_NATIVE"] = "0" if form == "ours by torch" else "1"
    function = quadratic_depthwise_eager if form == "eager" else quadratic_depthwise
    x, weight, bias, grad = tensors
    with torch.set_grad_enabled(backward):
        y = function(x, weight, bias)
    if backward:
        torch.autograd.grad(y, (x, weight, bias), grad)


def main() -> None:
    """Print a table of milliseconds and of ratios to eager."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--kernels", type=lambda text: [int(side) for side in text.split(",")], default=[7])
    parser.add_argument("--contiguous", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    layout = torch.contiguous_format if options.contiguous else torch.channels_last
    backend = quadratic_backend("cpu", torch.float32)
    forms = ["eager", "ours", *(["ours by torch"] if backend.name == "native" else [])]
    print(f"ours by {backend.name} ({backend.reason}), {options.threads} thread(s), {layout}")
    print("| map | kernel | pass | " + " | ".join(f"{form}, ms" for form in forms) + " | ours / eager |")
    print("|---" * (len(forms) + 4) + "|")
    for channels, side in MAPS:
        for kernel in options.kernels:
            tensors = operands(channels, side, kernel, layout)
            for backward in (False, True):
                variants = {form: functools.partial(run, form, tensors, backward=backward) for form in forms}
                medians = interleaved_medians(variants, options.rounds, clock=clock)
                cells = [f"{channels}@{side}x{side}", f"{kernel}x{kernel}", "both" if backward else "forward"]
                cells += [f"{1e3 * medians[form]:.2f}" for form in forms]
                print("| " + " | ".join(cells) + f" | {medians['ours'] / medians['eager']:.2f} |", flush=True)


if __name__ == "__main__":
    main()

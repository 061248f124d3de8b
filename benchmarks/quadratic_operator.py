"""The quadratic operator against its eager three-convolution form, and channels-last against contiguous.

Run: python -m benchmarks.quadratic_operator [--threads 1] [--rounds 15]
"""

import argparse
import functools

import torch
from torch import Tensor

from benchmarks.timing import interleaved_medians, print_ratios
from quadnas.ops.quadratic import quadratic_depthwise, quadratic_depthwise_eager

FORMS = {"ours": quadratic_depthwise, "eager": quadratic_depthwise_eager}
LAYOUTS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}


def forward_backward(form: str, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """One pass with gradients for everything."""
    for leaf in (x, weight, bias):
        leaf.grad = None
    FORMS[form](x, weight, bias).sum().backward()


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for channels, side in ((64, 56), (256, 14)):
        variants = {}
        for layout, memory_format in LAYOUTS.items():
            for form in FORMS:
                x = (
                    torch.randn(8, channels, side, side)
                    .contiguous(memory_format=memory_format)
                    .requires_grad_()
                )
                weight = torch.randn(3, channels, 1, 7, 7, requires_grad=True)
                bias = torch.randn(3, channels, requires_grad=True)
                variants[f"{form}, {layout}"] = functools.partial(forward_backward, form, x, weight, bias)
        medians = interleaved_medians(variants, options.rounds)
        print_ratios(
            f"forward + backward, 7x7, batch 8, {channels}@{side}x{side}, fp32, {options.threads} thread(s)",
            medians,
            "eager, channels-last",
        )


if __name__ == "__main__":
    main()

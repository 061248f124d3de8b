"""The quadratic global filter against circular convolution by definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quadnas.blocks.base import Ports
from quadnas.blocks.global_filter import QuadraGlobalFilter
from quadnas.config import validated
from quadnas.errors import ConfigError
from quadnas.ops.global_filter import GlobalFilterMixer
from quadnas.testing.blocks import declared_macs
from tests.numerics.saved import saved_bytes


def response_of(kernel: Tensor) -> Tensor:
    """The spectrum (H, W // 2 + 1, C, 2) of circular kernels (C, H, W), written out as the sum that defines it."""
    channels, height, width = kernel.shape
    spectrum = torch.zeros(height, width // 2 + 1, channels, 2, dtype=kernel.dtype)
    for u in range(height):
        for v in range(width // 2 + 1):
            for i in range(height):
                for j in range(width):
                    angle = -2 * math.pi * (u * i / height + v * j / width)
                    spectrum[u, v, :, 0] += kernel[:, i, j] * math.cos(angle)
                    spectrum[u, v, :, 1] += kernel[:, i, j] * math.sin(angle)
    return spectrum


def circular(x: Tensor, kernel: Tensor) -> Tensor:
    """Every output pixel sees the whole map, which goes on at the opposite edge."""
    y = torch.zeros_like(x)
    for i in range(x.shape[-2]):
        for j in range(x.shape[-1]):
            y += kernel[:, i, j, None, None] * x.roll((i, j), (-2, -1))
    return y


@pytest.mark.parametrize("size", [4, 5])
def test_the_filter_is_a_circular_convolution_of_the_whole_map(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    kernels = torch.randn(3, 2, size, size, dtype=torch.float64, generator=generator)
    x = torch.randn(2, 2, size, size, dtype=torch.float64, generator=generator)
    mixer = GlobalFilterMixer(2, size).double()
    mixer.weight.data = torch.stack([response_of(kernel) for kernel in kernels])
    a, b, c = (circular(x, kernel) for kernel in kernels)
    torch.testing.assert_close(mixer(x), a * b + c, rtol=1e-9, atol=1e-9)


@given(height=st.integers(1, 9), width=st.integers(1, 9), down=st.integers(0, 8), right=st.integers(0, 8))
@settings(deadline=None, max_examples=40)
def test_it_commutes_with_circular_shifts_of_any_map(height: int, width: int, down: int, right: int) -> None:
    mixer = GlobalFilterMixer(2, 6).double()
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(mixer.weight, generator=generator)
    x = torch.randn(1, 2, height, width, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        found = mixer(x.roll((down, right), (-2, -1)))
        torch.testing.assert_close(found, mixer(x).roll((down, right), (-2, -1)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("height", "width"), [(6, 6), (12, 9), (1, 2)])
def test_on_another_map_a_flat_response_stays_flat(height: int, width: int) -> None:
    """Ga = 2 + 0i, Gb = -3, Gc = 0.5 at all frequencies: a pointwise polynomial, whatever the map's size."""
    mixer = GlobalFilterMixer(3, 6).double()
    mixer.weight.data.zero_()
    for term, gain in enumerate((2, -3, 0.5)):
        mixer.weight.data[term, ..., 0] = gain
    x = torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixer(x), -6 * x * x + 0.5 * x, rtol=1e-9, atol=1e-9)


def test_a_smooth_response_keeps_its_course_on_a_larger_map() -> None:
    """A response that is linear in the column is met exactly half-way between two frequencies."""
    mixer = GlobalFilterMixer(1, 8).double()
    columns = torch.arange(5, dtype=torch.float64)
    mixer.weight.data.zero_()
    mixer.weight.data[2, :, :, 0, 0] = columns
    found = mixer._responses(8, 9)[2][:, :, 0]
    # bicubic interpolation bends at the two borders, where it repeats the last value
    torch.testing.assert_close(found.real[:, 2:7], (torch.arange(2, 7) / 2.0).double().expand(8, -1))


def test_gradients_match_finite_differences() -> None:
    mixer = GlobalFilterMixer(2, 4).double()
    mixer.weight.data.mul_(20)
    x = torch.randn(
        1, 2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()

    def run(x: Tensor, weight: Tensor) -> Tensor:
        result: Tensor = torch.func.functional_call(mixer, {"weight": weight}, (x,))
        return result

    assert torch.autograd.gradcheck(run, (x, mixer.weight))


def test_bfloat16_maps_are_transformed_in_single_precision() -> None:
    mixer = GlobalFilterMixer(4, 7)
    mixer.weight.data.mul_(20)
    x = torch.randn(1, 4, 7, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = mixer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, mixer(x.float()).bfloat16())


def test_size_work_and_operators() -> None:
    block, ports = QuadraGlobalFilter(size=14, expansion=4), Ports(64, 64, 1)
    with torch.device("meta"):
        module = block.build(ports)
    # three spectra of 14 x 8 complex numbers a channel; LayerNorms, layer scales and MLP as in every block
    assert sum(p.numel() for p in module.parameters()) == 3 * 14 * 8 * 2 * 64 + 2 * (128 + 64) + 33_088
    assert declared_macs(block, ports, 14, 14) == 14 * 14 * 8 * 64**2, "the MLP alone"
    operators = block.operators(ports, 14, 14)
    assert [(o.kernel.op, o.sources) for o in operators[:11]] == [
        ("layernorm", (-1,)),
        ("fft", (0,)),
        ("mul", (1,)), ("fft", (2,)),
        ("mul", (1,)), ("fft", (4,)),
        ("mul", (1,)), ("fft", (6,)),
        ("mul", (3, 5)),
        ("add", (8, 7)),
        ("add", (-1, 9)),
    ]  # fmt: skip
    assert operators[2].kernel.inputs == (128, 128) and operators[2].kernel.w == 8


def test_training_keeps_the_spectrum_and_both_factors() -> None:
    """In inputs of the block: 13 as in every block with layer scale, 2 factors, spectrum 8/7 on a 14x14 map.

    Torch's real transform keeps its input too, 1 more.
    """
    module = QuadraGlobalFilter(size=14, expansion=4).build(Ports(64, 64, 1))
    x = torch.randn(2, 64, 14, 14).contiguous(memory_format=torch.channels_last).requires_grad_()
    spectrum = 2 * 64 * 14 * 8 * 8
    norms = 2 * 2 * (2 * 14 * 14 * 4)
    kept = saved_bytes(lambda: module(x), module.parameters())
    assert kept == 16 * x.nbytes + spectrum + norms


def test_sizes_that_are_no_map_are_refused() -> None:
    for size in (0, 257):
        with pytest.raises(ConfigError, match="size"):
            validated({"size": size, "expansion": 4}, QuadraGlobalFilter, "here")

"""SwinBlock and patch merging against their definitions pixel by pixel, Swin against its published size."""

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quadnas.blocks.base import Ports
from quadnas.blocks.patch_merging import PatchMerging
from quadnas.blocks.swin import Swin
from quadnas.config import validated
from quadnas.errors import ConfigError, CoverageError
from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import estimate
from quadnas.network import Network, kernels_of, operators_of
from quadnas.ops.window_attention import WindowAttention, attend, attend_fused
from quadnas.space.layer import Layer
from quadnas.space.model_family import find_model
from quadnas.testing.blocks import declared_macs
from quadnas.training.recipe import Recipe
from tests.numerics.saved import saved_bytes


def attention(channels: int, shift: int) -> WindowAttention:
    """Attention in double precision with weights that make the softmax far from flat."""
    mixer = WindowAttention(channels, shift).double()
    generator = torch.Generator().manual_seed(0)
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    return mixer


def by_definition(mixer: WindowAttention, x: Tensor, side: int, shift: int) -> Tensor:
    """Attention of one image (C, H, W), pixel by pixel on the map itself: no roll, no cut, no mask.

    Borders between windows lie where (row + shift) or (column + shift) of the padded map is a multiple of the
    window's side; what the source rolls round the edge therefore ends up in the smaller windows at the edges.
    """
    channels, height, width = x.shape
    heads = channels // 32
    rows, columns = (-(-length // side) * side for length in (height, width))
    padded = x.new_zeros(rows, columns, channels)
    padded[:height, :width] = x.permute(1, 2, 0)
    q, k, v = (
        (padded @ weight.T + bias).view(rows, columns, heads, 32)
        for weight, bias in zip(mixer.qkv.weight.chunk(3), mixer.qkv.bias.chunk(3), strict=True)
    )

    def window(row: int, column: int) -> tuple[int, int]:
        return (row + side - shift) // side, (column + side - shift) // side

    out = x.new_zeros(height, width, heads, 32)
    for i in range(height):
        for j in range(width):
            peers = [(m, n) for m in range(rows) for n in range(columns) if window(m, n) == window(i, j)]
            for head in range(heads):
                scores = [
                    (q[i, j, head] @ k[m, n, head]).item() / math.sqrt(32)
                    + mixer.position_bias[(i - m + 6) * 13 + (j - n + 6), head].item()
                    for m, n in peers
                ]
                shares = torch.tensor(scores, dtype=torch.float64).softmax(0)
                out[i, j, head] = sum(s * v[m, n, head] for s, (m, n) in zip(shares, peers, strict=True))
    y: Tensor = out.flatten(2) @ mixer.leave.weight.T + mixer.leave.bias
    return y.permute(2, 0, 1)


@pytest.mark.parametrize(
    ("height", "width", "shift", "side", "shifted"),
    [
        (14, 14, 0, 7, 0),
        (14, 14, 3, 7, 3),
        (7, 7, 3, 7, 0),  # one window: nothing to shift
        (4, 4, 3, 4, 0),  # the window is the map
        (5, 9, 3, 5, 0),  # the shorter side decides, the longer one is padded to 10
        (9, 8, 0, 7, 0),  # padded to 14 x 14
        (8, 15, 3, 7, 3),
    ],
)
@torch.no_grad()
def test_attention_is_its_definition_pixel_by_pixel(
    height: int, width: int, shift: int, side: int, shifted: int
) -> None:
    mixer = attention(64, shift)
    x = torch.randn(2, 64, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = mixer(x)
    for image, y in zip(x, found, strict=True):
        torch.testing.assert_close(y, by_definition(mixer, image, side, shifted), rtol=1e-9, atol=1e-9)


@given(rows=st.integers(1, 3), columns=st.integers(1, 3), data=st.data())
@settings(deadline=None, max_examples=25)
def test_windows_that_are_not_shifted_do_not_see_each_other(
    rows: int, columns: int, data: st.DataObject
) -> None:
    """So windows in another order give the same results in that order."""
    order = torch.tensor(data.draw(st.permutations(range(rows * columns))))
    mixer = attention(32, 0)
    x = torch.randn(rows * columns, 32, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def joined(windows: Tensor) -> Tensor:
        grid = windows.view(rows, columns, 32, 7, 7).permute(2, 0, 3, 1, 4)
        return grid.reshape(1, 32, 7 * rows, 7 * columns)

    with torch.no_grad():
        expected = joined(mixer(x)[order])
        torch.testing.assert_close(mixer(joined(x[order])), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("images", "windows", "biases"), [(2, 4, 1), (2, 4, 4), (3, 1, 1)])
def test_the_fused_kernels_compute_the_same(images: int, windows: int, biases: int) -> None:
    """A GPU takes them; here torch's own fallback shows that the bias is laid out as they read it."""
    generator = torch.Generator().manual_seed(0)
    leaves = [
        torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()
        for shape in ((images, windows * 3, 49, 32),) * 3 + ((biases, 3, 49, 49),)
    ]
    q, k, v, bias = leaves
    results = [function(q, k, v, bias, 0.7) for function in (attend, attend_fused)]
    torch.testing.assert_close(results[0], results[1], rtol=1e-10, atol=1e-10)
    gradients = [torch.autograd.grad(y.sin().sum(), leaves) for y in results]
    for ours, fused in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, fused, rtol=1e-9, atol=1e-9)


def test_bfloat16_attention_stays_near_single_precision() -> None:
    mixer = WindowAttention(64, 3)
    x = torch.randn(2, 64, 14, 14, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = mixer(x)
    torch.testing.assert_close(found.float(), mixer(x), rtol=0, atol=0.02)


def test_neighbours_merge_in_the_published_order() -> None:
    module = PatchMerging().build(Ports(2, 8, 2)).double()
    torch.nn.init.eye_(module.linear.weight)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    padded = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    padded[:, :, :3] = x
    y = module(x)
    assert y.shape == (1, 8, 2, 2)
    for i in range(2):
        for j in range(2):
            near = [padded[0, :, 2 * i + r, 2 * j + c] for r, c in ((0, 0), (1, 0), (0, 1), (1, 1))]
            cell = torch.cat(near)
            expected = (cell - cell.mean()) / (cell.var(correction=0) + 1e-6).sqrt()
            torch.testing.assert_close(y[0, :, i, j], expected)


# By hand: qkv 3 C^2 + 3 C, out C^2 + C, table 169 C/32, two LayerNorms 4 C, MLP 8 C^2 + 5 C.
# Work a position: 12 C^2 and twice 49 C for the products of one window's 49 pixels.
@pytest.mark.parametrize(
    ("channels", "side", "parameters", "macs"),
    [
        (96, 56, 12 * 9216 + 13 * 96 + 507, 56**2 * (12 * 9216 + 98 * 96)),
        (768, 7, 12 * 589_824 + 13 * 768 + 4056, 49 * (12 * 589_824 + 98 * 768)),
        (64, 4, 12 * 4096 + 13 * 64 + 338, 16 * (12 * 4096 + 2 * 16 * 64)),
        # padded to 14 x 14 for everything up to the second product; output layer and MLP see the map alone
        (32, 8, 12 * 1024 + 13 * 32 + 169, 196 * (3 * 1024 + 98 * 32) + 64 * 9 * 1024),
    ],
)
@pytest.mark.parametrize("shift", [0, 3])
def test_size_and_work_are_those_derived_by_hand(
    channels: int, side: int, parameters: int, macs: int, shift: Literal[0, 3]
) -> None:
    block, ports = Swin(shift=shift, expansion=4), Ports(channels, channels, 1)
    with torch.device("meta"):
        module = block.build(ports)
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters
    assert declared_macs(block, ports, side, side) == macs


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("swin_tiny", 28_288_354, 4.491),
        ("swin_small", 49_606_258, 8.741),
        ("swin_base", 87_768_224, 15.431),
    ],
)
def test_swin_has_the_published_size(name: str, parameters: int, gmacs: float) -> None:
    """Parameters as in the published weights; published are 4.5, 8.7 and 15.4 G."""
    layers = find_model(name).layers
    shifts = [layer.arguments["shift"] for layer in layers if layer.block == "swin"]
    assert shifts == [0, 3] * (len(shifts) // 2)
    with torch.device("meta"):
        network = Network(layers)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert round(sum(o.kernel.macs for o in operators_of(layers, 224)) / 1e9, 3) == gmacs


@pytest.mark.parametrize(("shift", "layer_scale", "units"), [(0, None, 16), (3, None, 16), (3, 0.1, 18)])
def test_training_keeps_what_attention_needs(
    shift: Literal[0, 3], layer_scale: float | None, units: int
) -> None:
    """In inputs of the block: 1 for LayerNorm, 1 for the layer in, q, k, v, 1 for the layer out; the MLP's 10.

    Besides: the probabilities, 49 a position and head, the LayerNorms' statistics, and what does not grow with the
    batch (indices and the mask).
    """
    module = Swin(shift=shift, expansion=4, layer_scale=layer_scale).build(Ports(64, 64, 1))

    def kept(batch: int) -> int:
        x = torch.randn(batch, 64, 14, 14).contiguous(memory_format=torch.channels_last).requires_grad_()
        return saved_bytes(lambda: module(x), module.parameters())

    per_image = kept(3) - kept(2)
    positions = 14 * 14 * 4
    assert per_image == units * 64 * positions + 2 * 49 * positions + 2 * 2 * positions
    assert kept(1) - per_image <= 4 * 2 * 49**2 * 4 + 49**2 * 8


@pytest.mark.parametrize("layer_scale", [None, 0.5])
@pytest.mark.parametrize(("height", "width"), [(14, 14), (9, 8), (5, 9)])
def test_deployment_folds_the_scales(layer_scale: float | None, height: int, width: int) -> None:
    block = Swin(shift=3, expansion=2, layer_scale=layer_scale)
    module = block.build(Ports(64, 64, 1)).double().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    folded = block.deployed(module)
    x = torch.randn(2, 64, height, width, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(folded(x), module(x), rtol=1e-10, atol=1e-10)
    assert not any("scale" in name for name, _ in folded.named_parameters())
    for parameter in folded.parameters():
        parameter.data.zero_()
    assert all(p.abs().max() > 0 for name, p in module.named_parameters() if "norm" not in name)


def test_the_operators_of_a_shifted_block_with_their_edges() -> None:
    operators = Swin(shift=3, expansion=4).operators(Ports(64, 64, 1), 14, 21)
    windows = 2 * 2 * 3

    def on_map(op: str, cin: int, cout: int) -> Kernel:
        return Kernel(op, 14, 21, (cin,), cout)

    assert [(o.kernel, o.sources) for o in operators[:12]] == [
        (on_map("layernorm", 64, 64), (-1,)),
        (on_map("roll", 64, 64), (0,)),
        (on_map("conv", 64, 192), (1,)),
        (on_map("transpose", 192, 192), (2,)),
        (Kernel("matmul", windows, 49, (32,), 49), (3,)),
        (Kernel("add", windows, 49, (49, 49), 49), (4,)),
        (Kernel("softmax", windows, 49, (49,), 49), (5,)),
        (Kernel("matmul", windows, 49, (49,), 32), (6, 3)),
        (on_map("transpose", 64, 64), (7,)),
        (on_map("roll", 64, 64), (8,)),
        (on_map("conv", 64, 64), (9,)),
        (Kernel("add", 14, 21, (64, 64), 64), (-1, 10)),
    ]
    padded = [o.kernel for o in Swin(shift=3, expansion=4).operators(Ports(64, 64, 1), 14, 20)]
    assert padded[1:3] == [Kernel("pad", 14, 20, (64,), 64), on_map("roll", 64, 64)]
    assert padded[10:12] == [on_map("roll", 64, 64), on_map("slice", 64, 64)]


def test_odd_maps_are_padded_before_merging_and_other_strides_refused() -> None:
    ops = [o.kernel.op for o in PatchMerging().operators(Ports(8, 16, 2), 9, 14)]
    assert ops == ["pad", "transpose", "layernorm", "conv"]
    assert [o.kernel.op for o in PatchMerging().operators(Ports(8, 16, 2), 8, 14)] == ops[1:]
    with pytest.raises(ConfigError, match="stride 2, not 1"):
        PatchMerging().check(Ports(8, 16, 1))


def test_other_head_widths_and_shifts_are_refused() -> None:
    with pytest.raises(ConfigError, match="multiple of that, not 48 channels"):
        Swin(expansion=4).check(Ports(48, 48, 1))
    with pytest.raises(ConfigError, match="keeps the shape"):
        Swin(expansion=4).check(Ports(32, 64, 1))
    with pytest.raises(ConfigError, match="shift"):
        validated({"shift": 2, "expansion": 4}, Swin, "here")


@pytest.mark.parametrize("device", ["cortexA76", "myriadvpu", "a100", "rtx3090", "zcu102"])
def test_attention_has_no_price_and_the_reason_names_the_operator(device: str) -> None:
    model = load_device(device)
    same = {"channels_in": 64, "channels_out": 64}
    layers = [
        Layer(block="swin", **same, arguments={"shift": 3, "expansion": 4}),
        Layer(block="patch_merging", channels_in=64, channels_out=128, stride=2),
    ]
    found = estimate(model, kernels_of(layers, 14, model))
    assert found.latency_ms is None
    refused = {
        kernel.op: price.reason
        for kernel, price in zip(found.kernels, found.prices, strict=True)
        if price.latency_ms is None
    }
    assert set(refused) >= {"matmul", "softmax", "transpose", "roll"}
    for op, reason in refused.items():
        assert reason.startswith(f"'{op}' was never measured on {device} and has no stand-in")
    with pytest.raises(CoverageError, match="'softmax' was never measured"):
        found.interval_ms()


def test_weight_decay_leaves_the_position_bias_alone() -> None:
    """As in the source's training, though the table has two dimensions."""
    module = Swin(expansion=4).build(Ports(32, 32, 1))
    free = [
        p
        for group in Recipe().optimizer(module).param_groups
        if not group["weight_decay"]
        for p in group["params"]
    ]
    table = module.get_parameter("spatial.branch.mixer.position_bias")
    assert table.shape == (169, 1)
    assert any(parameter is table for parameter in free)

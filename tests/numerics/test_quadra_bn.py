"""The deployable QuadraBlock: what it computes, what it folds, and where it has a price."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.blocks.base import Block, Ports
from quadnas.blocks.quadra import Quadra
from quadnas.blocks.quadra_bn import QuadraBN
from quadnas.config import validated
from quadnas.errors import ConfigError
from quadnas.latency.devices import load_device
from quadnas.latency.model import estimate
from quadnas.network import Network, deployed, kernels_of
from quadnas.space.layer import Layer
from quadnas.testing.blocks import declared_macs
from tests.numerics.saved import saved_bytes

PORTS = Ports(6, 6, 1)


def randomised(module: nn.Module) -> None:
    """Weights, running statistics, scales and shifts far from their first values."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.3, 3, generator=generator)
        elif tensor.is_floating_point():
            tensor.normal_(0, 0.4, generator=generator)


def test_it_computes_what_it_says() -> None:
    """Both halves in evaluation mode, in plain functions."""
    module = QuadraBN(kernel=5, expansion=2).build(PORTS).double().eval()
    randomised(module)
    state = module.state_dict()
    x = torch.randn(2, 6, 7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def norm(t: Tensor, at: str) -> Tensor:
        mean, variance, scale, shift = (
            state[f"{at}.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
        )
        y: Tensor = (t - mean) / (variance + 1e-5).sqrt() * scale + shift
        return y

    spatial, channel = "spatial.branch.mixer.", "channel.branch.mixer."
    weight, bias = state[spatial + "quadratic.weight"], state[spatial + "quadratic.bias"]
    a, b, c = (F.conv2d(x, w, t, padding=2, groups=6) for w, t in zip(weight, bias, strict=True))
    y = x + norm(a * b + c, spatial + "norm")
    hidden = norm(F.conv2d(y, state[channel + "expand.weight"]), channel + "norm_wide").clamp(min=0)
    z = y + norm(F.conv2d(hidden, state[channel + "project.weight"]), channel + "norm")
    with torch.no_grad():
        torch.testing.assert_close(module(x), z, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deployment_folds_every_norm_exactly(dtype: torch.dtype) -> None:
    block = QuadraBN(kernel=7, expansion=4)
    module = block.build(PORTS).eval()
    randomised(module)
    module.to(dtype)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    folded = block.deployed(module)
    x = torch.randn(2, 6, 14, 14, dtype=dtype, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = module(x), folded(x)
    assert (expected - x).abs().max() > 1
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    leaves = {type(leaf).__name__ for leaf in folded.modules() if not list(leaf.children())}
    assert leaves == {"Conv2d", "ReLU", "DropPath"}
    for parameter in folded.parameters():
        parameter.data.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_one_step_of_training_normalises_each_channel() -> None:
    """In training mode every branch has mean 0 and variance 1, whatever the weights' size."""
    module = QuadraBN(kernel=3, expansion=2).build(PORTS)
    x = torch.randn(4, 6, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for half in ("spatial", "channel"):
            y = module.get_submodule(half)(x) - x
            torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(6), rtol=0, atol=1e-5)
            torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.ones(6), rtol=0, atol=0.05)


# By hand for 64 channels, kernel 7, expansion 4: three depthwise 3 (49*64 + 64), 1x1 convolutions without bias
# 2 * 64 * 256, batch normalisation 2 (64 + 256 + 64).
def test_size_and_work_are_those_derived_by_hand() -> None:
    block, ports = QuadraBN(kernel=7, expansion=4), Ports(64, 64, 1)
    with torch.device("meta"):
        module = block.build(ports)
    assert sum(parameter.numel() for parameter in module.parameters()) == 9600 + 32_768 + 768
    assert declared_macs(block, ports, 5, 3) == 15 * (9408 + 32_768)


def test_training_keeps_less_than_the_published_block() -> None:
    """In inputs: 1 for the quadratic form, 1 for its norm, 1 for FC1, 4 for its norm, 4 for FC2, 1 for its norm.

    The published block keeps 14.
    """
    x = torch.randn(2, 64, 14, 14).contiguous(memory_format=torch.channels_last).requires_grad_()

    def kept(block: Block) -> float:
        module = block.build(Ports(64, 64, 1))
        return saved_bytes(lambda: module(x), module.parameters()) / x.nbytes

    assert kept(QuadraBN(kernel=7, expansion=4)) == pytest.approx(12, abs=0.1)
    assert kept(Quadra(kernel=7, expansion=4)) == pytest.approx(14, abs=0.1)


def test_its_operators_and_their_edges() -> None:
    operators = QuadraBN(kernel=5, expansion=2).operators(PORTS, 9, 9)
    assert [(o.kernel.op, o.sources) for o in operators] == [
        ("dwconv", (-1,)), ("dwconv", (-1,)), ("dwconv", (-1,)),
        ("mul", (0, 1)), ("add", (3, 2)), ("add", (-1, 4)),
        ("conv", (5,)), ("relu", (6,)), ("conv", (7,)), ("add", (5, 8)),
    ]  # fmt: skip


def network_of(block: str, **arguments: object) -> list[Layer]:
    """A stem of a mobile network, two blocks, and a head that needs no LayerNorm."""
    same = {"channels_in": 32, "channels_out": 32}
    return [
        Layer(block="conv_bn", channels_in=3, channels_out=32, stride=2),
        *[Layer(block=block, **same, arguments=arguments)] * 2,
        Layer(block="classifier", channels_in=32, channels_out=10, arguments={"norm": "none"}),
    ]


@pytest.mark.parametrize("device", ["zcu102", "vck190", "cortexA76", "adreno640", "myriadvpu"])
def test_it_has_a_price_where_the_published_block_has_none(device: str) -> None:
    model = load_device(device)
    priced = estimate(model, kernels_of(network_of("quadra_bn", kernel=5, expansion=4), 224, model))
    published = estimate(model, kernels_of(network_of("quadra", kernel=5, expansion=4), 224, model))
    assert priced.latency_ms is not None and priced.latency_ms > 0
    stand_ins = {
        kernel.op
        for kernel, price in zip(priced.kernels, priced.prices, strict=True)
        if "extrapolated" not in price.reason and price.reason
    }
    assert stand_ins == {"mul"}, "the product was measured on none of them"
    if device in ("zcu102", "vck190"):
        assert published.latency_ms is None
        refused = {
            k.op for k, p in zip(published.kernels, published.prices, strict=True) if p.latency_ms is None
        }
        assert refused == {"layernorm", "gelu"}
    else:
        assert priced.surrogate_error < published.surrogate_error


def test_a_whole_network_deploys_to_the_same_logits() -> None:
    layers = network_of("quadra_bn", kernel=7, expansion=2)
    network = Network(layers)
    randomised(network)
    folded = deployed(layers, network).double()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(folded(x), network.double()(x), rtol=1e-5, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())


def test_shapes_and_kernels_it_cannot_have_are_refused() -> None:
    for ports in (Ports(8, 16, 1), Ports(8, 8, 2)):
        with pytest.raises(ConfigError, match="keeps the shape"):
            QuadraBN(kernel=3, expansion=2).check(ports)
    with pytest.raises(ConfigError, match="odd"):
        validated({"kernel": 4, "expansion": 2}, QuadraBN, "here")

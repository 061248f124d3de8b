"""Starting from weights that exist, against a ConvNeXt written here in plain torch with timm's names."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from quadnas.errors import ConfigError, DataError
from quadnas.network import Network
from quadnas.space.layer import Layer
from quadnas.training.initial import Taken, start_from
from quadnas.training.weights import weights_bytes

WIDTHS, DEPTHS = (8, 16), (2, 1)


class TimmBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.gamma = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv_dw(x).permute(0, 2, 3, 1))
        y = self.gamma * self.mlp["fc2"](F.gelu(self.mlp["fc1"](y)))
        z: Tensor = x + y.permute(0, 3, 1, 2)
        return z


class TimmConvNeXt(nn.Module):
    """The published structure, NCHW throughout, with the names of timm's state dict."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, WIDTHS[0], 4, 4), nn.LayerNorm(WIDTHS[0], eps=1e-6))
        self.stages = nn.ModuleList()
        for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
            parts: dict[str, nn.Module] = {"blocks": nn.Sequential(*(TimmBlock(width) for _ in range(depth)))}
            if stage:
                narrow = WIDTHS[stage - 1]
                parts["downsample"] = nn.Sequential(
                    nn.LayerNorm(narrow, eps=1e-6), nn.Conv2d(narrow, width, 2, 2)
                )
            self.stages.append(nn.ModuleDict(parts))
        self.head = nn.ModuleDict(
            {"norm": nn.LayerNorm(WIDTHS[-1], eps=1e-6), "fc": nn.Linear(WIDTHS[-1], classes)}
        )
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, images: Tensor) -> Tensor:
        x = over_channels(self.stem[1], self.stem[0](images))
        for stage in self.stages:
            assert isinstance(stage, nn.ModuleDict)
            if "downsample" in stage:
                norm, convolution = stage["downsample"].children()
                x = convolution(over_channels(norm, x))
            x = stage["blocks"](x)
        logits: Tensor = self.head["fc"](self.head["norm"](x.mean((2, 3))))
        return logits


def over_channels(norm: nn.Module, x: Tensor) -> Tensor:
    y: Tensor = norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return y


def layers(classes: int, *, block: str = "convnext", **arguments: object) -> list[Layer]:
    def stage(width: int, depth: int) -> list[Layer]:
        inner = Layer(
            block=block, channels_in=width, channels_out=width, arguments={"kernel": 7, **arguments}
        )
        return [inner] * depth

    return [
        Layer(block="patchify", channels_in=3, channels_out=WIDTHS[0], stride=4),
        *stage(WIDTHS[0], DEPTHS[0]),
        Layer(block="downsample", channels_in=WIDTHS[0], channels_out=WIDTHS[1], stride=2),
        *stage(WIDTHS[1], DEPTHS[1]),
        Layer(block="classifier", channels_in=WIDTHS[1], channels_out=classes),
    ]


@pytest.fixture
def published(tmp_path: Path) -> tuple[TimmConvNeXt, Path]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = TimmConvNeXt(10)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    return model, tmp_path / "model.safetensors"


def images() -> Tensor:
    return torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("quadratic", [False, True])
def test_the_network_computes_what_the_published_one_does(
    published: tuple[TimmConvNeXt, Path], quadratic: bool
) -> None:
    model, path = published
    spec = layers(10, quadratic=quadratic)
    network = Network(spec)
    taken = start_from(network, spec, path)
    depthwise = 2 * sum(DEPTHS)  # weight and bias of every block
    expected = Taken(len(model.state_dict()) - depthwise, depthwise, ())
    assert taken == (expected if quadratic else Taken(len(model.state_dict()), 0, ()))
    torch.testing.assert_close(network.double()(images()), model.double()(images()), rtol=1e-9, atol=1e-9)


def test_a_quadratic_term_leaves_every_bit_at_step_0_and_learns_from_the_first_step(
    published: tuple[TimmConvNeXt, Path],
) -> None:
    _, path = published
    networks = []
    for quadratic in (False, True):
        spec = layers(10, quadratic=quadratic)
        network = Network(spec)
        start_from(network, spec, path)
        networks.append(network.double())
    plain, quadra = networks
    assert torch.equal(quadra(images()), plain(images()))
    quadra(images()).square().sum().backward()
    gradients = [p.grad for name, p in quadra.named_parameters() if name.endswith("branch.mixer.weight")]
    assert len(gradients) == sum(DEPTHS)
    for gradient in gradients:
        assert gradient is not None
        factor_a, factor_b, linear = gradient
        assert factor_a.abs().max() > 0
        assert linear.abs().max() > 0
        assert not factor_b.any()  # its gradient is a's value times something, and a is 0


@pytest.mark.parametrize("quadratic_layers", [0, 1, 2])
def test_our_own_plain_network_starts_a_quadratic_one(tmp_path: Path, quadratic_layers: int) -> None:
    plain_spec = layers(10, block="conv", expansion=2, layer_scale=0.5)
    quadra_spec = layers(10, block="quadra", expansion=2, layer_scale=0.5, quadratic_layers=quadratic_layers)
    plain, quadra = Network(plain_spec), Network(quadra_spec)
    path = tmp_path / "plain.safetensors"
    path.write_bytes(weights_bytes(plain, {}))
    taken = start_from(quadra, quadra_spec, path)
    assert taken.linear_terms == 2 * sum(DEPTHS) * (1 + quadratic_layers)
    assert torch.equal(quadra.double()(images()), plain.double()(images()))


def test_other_classes_start_a_classifier_of_their_own(published: tuple[TimmConvNeXt, Path]) -> None:
    _, path = published
    spec = layers(4, quadratic=True)
    network = Network(spec)
    last = len(spec) - 1
    before = network.state_dict()[f"layers.{last}.linear.weight"].clone()
    assert start_from(network, spec, path).anew == (
        f"layers.{last}.linear.bias",
        f"layers.{last}.linear.weight",
    )
    assert torch.equal(network.state_dict()[f"layers.{last}.linear.weight"], before)


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (
            layers(10, kernel=5),
            "'layers.1.branch.mixer.weight' \\(expected \\(8, 1, 5, 5\\), found \\(8, 1, 7, 7\\)",
        ),
        (layers(10, block="quadra", expansion=4), "'layers.1.branch.mixer.bias' \\(expected None"),
        (layers(10)[:1] + layers(10)[2:], "does not fit: "),
    ],
)
def test_another_network_is_refused_and_nothing_is_taken(
    published: tuple[TimmConvNeXt, Path], spec: list[Layer], name: str
) -> None:
    network = Network(spec)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with pytest.raises(ConfigError, match=name):
        start_from(network, spec, published[1])
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())


def test_a_damaged_file_is_refused(published: tuple[TimmConvNeXt, Path]) -> None:
    path = published[1]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="not an intact safetensors file"):
        start_from(Network(layers(10)), layers(10), path)

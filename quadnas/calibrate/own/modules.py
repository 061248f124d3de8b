"""Graphs as torch modules with random weights: networks in their deployed form, and chains of operators."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from quadnas.errors import ConfigError
from quadnas.latency.kernels import Kernel, Operator
from quadnas.network import Network, deployed
from quadnas.ops.layer_norm import ChannelLayerNorm
from quadnas.space.layer import Layer

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "hswish": nn.Hardswish,
    "sigmoid": nn.Sigmoid,
}
_JOINS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"add": torch.add, "mul": torch.mul}


def network_module(layers: Sequence[Layer]) -> nn.Sequential:
    """Layers in their deployed form, every parameter random: runtimes drop a bias of zero, or merge equal ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = deployed(layers, Network(layers))
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.uniform_(-1, 1).mul_(max(parameter[0].numel(), 1) ** -0.5)
    return module


class OperatorModule(nn.Module):
    """Operators with their edges as plain modules: (N, C, H, W) -> the output of the last operator."""

    def __init__(self, operators: Sequence[Operator]) -> None:
        super().__init__()
        self._sources = [operator.sources for operator in operators]
        self._joins = [_JOINS.get(operator.kernel.op) for operator in operators]
        self.steps = nn.ModuleList(_module(operator.kernel) for operator in operators)

    def forward(self, images: Tensor) -> Tensor:
        """Every operator in order; an earlier output is kept for whoever reads it."""
        outputs: list[Tensor] = []
        for step, join, sources in zip(self.steps, self._joins, self._sources, strict=True):
            inputs = [images if source < 0 else outputs[source] for source in sources]
            outputs.append(join(*inputs) if join else step(inputs[0]))
        return outputs[-1]


class _Pointwise(nn.Linear):
    """A 1x1 convolution as a product over channels, as blocks have it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


def _module(kernel: Kernel) -> nn.Module:
    if kernel.op in _ACTIVATIONS:
        return _ACTIVATIONS[kernel.op]()
    if kernel.op in _JOINS:
        return nn.Identity()
    if kernel.op == "layernorm":
        return ChannelLayerNorm(kernel.cin)
    if kernel.op == "global-pool":
        return _Pool()
    if kernel.op == "fc" or (kernel.op == "conv" and kernel.kernel == kernel.stride == 1):
        return _Pointwise(kernel.cin, kernel.cout)
    if kernel.op in ("conv", "dwconv"):
        groups = kernel.cin if kernel.op == "dwconv" else 1
        padding = 0 if kernel.kernel == kernel.stride else kernel.kernel // 2
        return nn.Conv2d(kernel.cin, kernel.cout, kernel.kernel, kernel.stride, padding, groups=groups)
    raise ConfigError(f"no module is known for the operator {kernel.op!r}")

"""The quadratic form a(u) o b(u) + c(u) of three linear maps, as plain modules and as operators."""

from torch import Tensor, nn

from quadnas.latency.kernels import Kernel, Operator


class QuadraticForm(nn.Module):
    """a(u) o b(u) + c(u) of three plain modules: what every export target knows."""

    def __init__(self, factor_a: nn.Module, factor_b: nn.Module, linear: nn.Module) -> None:
        super().__init__()
        self.factor_a = factor_a
        self.factor_b = factor_b
        self.linear = linear

    def forward(self, u: Tensor) -> Tensor:
        """The shape that the three modules give."""
        y: Tensor = self.factor_a(u) * self.factor_b(u) + self.linear(u)
        return y


def quadratic_operators(branch: Kernel) -> list[Operator]:
    """Three times the linear operator ``branch`` (stride 1), a product and a sum."""
    size, channels = (branch.h, branch.w), branch.cout
    return [
        *(Operator(branch, (-1,)) for _ in range(3)),
        Operator(Kernel("mul", *size, (channels, channels), channels), (0, 1)),
        Operator(Kernel("add", *size, (channels, channels), channels), (3, 2)),
    ]

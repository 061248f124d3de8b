"""Space, architecture or model spec -> layers, plain network and its kernels; no supernet code inside."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import accumulate
from operator import mul

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from quadnas.blocks.base import block_of, connects
from quadnas.config import read_settings
from quadnas.errors import ConfigError
from quadnas.latency.kernels import Kernel, Operator, chain
from quadnas.latency.model import LatencyModel
from quadnas.ops.drop_path import DropPath
from quadnas.ops.statistics import statistics_kept
from quadnas.resources import locate
from quadnas.space.layer import Layer
from quadnas.space.search_space import SearchSpace, Slot, SpaceFile, space_from


class _Sequence(nn.Module):
    """Layers in sequence.

    With ``checkpointing`` (gradient checkpointing) a training pass keeps only what passes from layer to layer and
    computes the inside of a layer again for the backward pass.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.checkpointing = False

    def _run(self, layer: nn.Module, x: Tensor) -> Tensor:
        if not (self.checkpointing and self.training):
            return layer(x)  # type: ignore[no-any-return]
        normed = any(isinstance(module, _BatchNorm) for module in layer.modules())
        if not normed or torch.compiler.is_compiling():  # torch.compile refuses contexts, and updates once
            return checkpoint(layer, x, use_reentrant=False)  # type: ignore[no-any-return]
        return checkpoint(  # type: ignore[no-any-return]
            layer, x, use_reentrant=False, context_fn=lambda: (nullcontext(), statistics_kept(layer))
        )

    def set_drop_path(self, maximum: float) -> None:
        """Stochastic depth with rates that rise linearly from 0 in the first residual block to ``maximum``.

        Source: ConvNeXt (arXiv 2201.03545) appendix A, after Huang et al. (arXiv 1603.09382) section 3.
        """
        paths = [[m for m in layer.modules() if isinstance(m, DropPath)] for layer in self.layers]
        residual = [found for found in paths if found]
        for number, found in enumerate(residual):
            for path in found:
                path.rate = maximum * number / max(1, len(residual) - 1)


class Network(_Sequence):
    """The layers of a model spec in sequence: images (N, 3, H, W) -> logits (N, classes)."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__(build(layer) for layer in layers)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        x = images.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            x = self._run(layer, x)
        return x


class Backbone(_Sequence):
    """A network without its classifier, for dense prediction: images -> the last map of every stage, finest first.

    (N, 3, H, W) -> [(N, ``channels[i]``, H / ``strides[i]``, W / ``strides[i]``)]. ``network`` was built from
    ``layers``; its modules are shared.
    """

    def __init__(self, layers: Sequence[Layer], network: Network) -> None:
        super().__init__(network.layers[:-1])
        strides = list(accumulate((layer.stride for layer in layers), mul))
        self._ends = [i for i, behind in enumerate(layers[1:]) if behind.stride > 1 or behind is layers[-1]]
        self.channels = tuple(layers[i].channels_out for i in self._ends)
        self.strides = tuple(strides[i] for i in self._ends)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> one map per stage."""
        maps = []
        x = images.contiguous(memory_format=torch.channels_last)
        for number, layer in enumerate(self.layers):
            x = self._run(layer, x)
            if number in self._ends:
                maps.append(x)
        return maps


def deployed(layers: Iterable[Layer], network: Network) -> nn.Sequential:
    """The network of ``layers`` as it is deployed, in evaluation mode: (N, 3, H, W) -> (N, classes).

    Layer scale and batch normalisation are folded into their neighbours; ``network`` is only set to evaluation
    mode.
    """
    modules = zip(layers, network.eval().layers, strict=True)
    return nn.Sequential(*(block_of(layer)[0].deployed(module) for layer, module in modules)).eval()


def load_space(name: str) -> SearchSpace:
    """The search space of a packaged name, a path, or a name under $QUADNAS_HOME; raises ConfigError."""
    path = locate("search_spaces", name)
    return space_from(read_settings(path, SpaceFile), path, connects)


def build(layer: Layer) -> nn.Module:
    """The freshly initialised module of one layer; raises ConfigError."""
    block, ports = block_of(layer)
    return block.build(ports)


def with_all_arguments(layer: Layer) -> Layer:
    """The same layer with every default written out, so that it rebuilds even if a default changes."""
    block, _ = block_of(layer)
    return layer.model_copy(update={"arguments": block.model_dump(mode="json")})


def kernels_of(layers: Sequence[Layer], input_size: int, model: LatencyModel) -> list[Kernel]:
    """The fused kernels that the device runs for a whole network on images of side ``input_size``."""
    return model.kernels(operators_of(layers, input_size))


def operators_of(layers: Sequence[Layer], input_size: int) -> list[Operator]:
    """The unfused operators of a whole network on one image of side ``input_size``; -1 is the image."""
    parts = []
    height = width = input_size
    for layer in layers:
        found, height, width = _operators(layer, height, width)
        parts.append(found)
    return chain(*parts)


def require_size(layers: Sequence[Layer], size: int) -> None:
    """Raise ConfigError if a layer cannot be built, or leaves nothing of the map of an image of side ``size``."""
    height = width = size
    for layer in layers:
        _, height, width = _operators(layer, height, width)


def position_operators(
    space: SearchSpace, classes: int, input_size: int
) -> tuple[list[list[Operator]], list[list[list[Operator]]]]:
    """The unfused operators of every fixed layer, and those of every candidate of every slot.

    Returns ([fixed layer] -> operators, [slot][candidate] -> operators).
    """
    fixed: list[list[Operator]] = []
    slots: list[list[list[Operator]]] = []
    height = width = input_size
    head = space.head.model_copy(update={"channels_out": classes})
    for position in (*space.positions, head):
        if isinstance(position, Slot):
            outcomes = [_operators(layer, height, width) for layer in position.candidates.values()]
            slots.append([found for found, _, _ in outcomes])
            _, height, width = outcomes[0]
        else:
            found, height, width = _operators(position, height, width)
            fixed.append(found)
    return fixed, slots


def position_kernels(
    space: SearchSpace, classes: int, input_size: int, model: LatencyModel
) -> tuple[list[Kernel], list[list[list[Kernel]]]]:
    """What the fixed layers run together, and what every candidate of every slot runs.

    Returns (kernels of all fixed layers, [slot][candidate] -> kernels). Fusion across the border of a layer is
    left to ``kernels_of``.
    """
    fixed, slots = position_operators(space, classes, input_size)
    return (
        [kernel for found in fixed for kernel in model.kernels(found)],
        [[model.kernels(found) for found in candidates] for candidates in slots],
    )


def map_sizes(space: SearchSpace, input_size: int) -> list[int]:
    """The side of the feature map in every slot for images of side ``input_size``."""
    sizes = []
    height = width = input_size
    for position in space.positions:
        if isinstance(position, Slot):
            sizes.append(height)
            position = next(iter(position.candidates.values()))  # noqa: PLW2901
        _, height, width = _operators(position, height, width)
    return sizes


def _operators(layer: Layer, height: int, width: int) -> tuple[list[Operator], int, int]:
    block, ports = block_of(layer)
    out_height, out_width = block.output_size(ports, height, width)
    if min(out_height, out_width) < 1:
        raise ConfigError(
            f"block {layer.block!r} with stride {layer.stride} leaves nothing of a {height}x{width} map; "
            "use larger images (--input-size, --train-size) or fewer stages"
        )
    return block.operators(ports, height, width), out_height, out_width

"""Starting a training from weights that exist: of the same network, or of one with plain convolutions.

Source: QuadraNet V2 (arXiv 2405.03192): a pretrained linear term, and a quadratic term that starts at zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from quadnas.errors import ConfigError
from quadnas.network import Network
from quadnas.space.layer import Layer
from quadnas.training.weights import read_weights

TIMM = "stem.0.weight"
"""A tensor by which timm's ConvNeXt is known."""

TIMM_BLOCK = {
    "conv_dw": "branch.mixer",
    "norm": "branch.norm",
    "mlp.fc1": "branch.mlp.expand",
    "mlp.fc2": "branch.mlp.project",
    "gamma": "scale",
}
"""What timm calls the parts of a ConvNeXt block, and what we do."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What of a network came from a file.

    ``copied`` tensors were taken as they are, ``linear_terms`` became the linear term of a quadratic operator, and
    ``anew`` are those of the classifier if the file has another number of classes.
    """

    copied: int
    linear_terms: int
    anew: tuple[str, ...]

    def __str__(self) -> str:
        linear = (
            f", {self.linear_terms} became linear terms of quadratic operators" if self.linear_terms else ""
        )
        anew = f"; {', '.join(self.anew)} start anew" if self.anew else ""
        return f"{self.copied} tensors copied{linear}{anew}"


def start_from(network: Network, layers: Sequence[Layer], path: Path) -> Taken:
    """Put the weights of a safetensors file into ``network``, which was built from ``layers``.

    The file holds a network of the same shape, by our names or those of timm's ConvNeXt. Where ours is quadratic
    and the file's is plain, its weights become the linear term c of a(u) o b(u) + c(u), a starts at 0 and b as it
    was initialised: the function is the file's, and a learns from the first step on. A classifier for another
    number of classes starts anew. Raises ConfigError if anything else differs, DataError for a damaged file.
    """
    found, _ = read_weights(path)
    if TIMM in found:
        found = _from_timm(found, layers)
    own = network.state_dict()
    classifier = f"layers.{len(layers) - 1}.linear."
    copied = {name for name, t in own.items() if name in found and found[name].shape == t.shape}
    linear = {name for name, t in own.items() if name in found and (3, *found[name].shape) == t.shape}
    anew = {name for name in own if name.startswith(classifier) and name in found} - copied
    if wrong := sorted((own.keys() | found.keys()) - copied - linear - anew):
        expected, given = (tuple(t[wrong[0]].shape) if wrong[0] in t else None for t in (own, found))
        raise ConfigError(
            f"{path} does not fit: {len(wrong)} tensors differ, the first is {wrong[0]!r} (expected {expected}, "
            f"found {given}); give weights of a network of the same blocks, widths and depths, or with plain "
            "layers where this one has quadratic ones, as convnext_tiny for quadra_convnext_tiny"
        )
    for name in copied:
        own[name].copy_(found[name])
    for name in linear:
        factor_a, _, linear_term = own[name]
        factor_a.zero_()
        linear_term.copy_(found[name])
    return Taken(len(copied), len(linear), tuple(sorted(anew)))


def _from_timm(found: Mapping[str, Tensor], layers: Sequence[Layer]) -> dict[str, Tensor]:
    """The tensors of timm's ConvNeXt under our names; one that has no counterpart keeps its own."""
    names = _timm_names(layers)
    renamed = {}
    for name, tensor in found.items():
        module, _, parameter = name.rpartition(".")
        renamed[f"{names[module]}.{parameter}" if module in names else names.get(name, name)] = tensor
    return renamed


def _timm_names(layers: Sequence[Layer]) -> dict[str, str]:
    """What timm calls the modules of these layers -> what we do: it counts blocks by stage, we count layers."""
    last = len(layers) - 1
    names = {"stem.0": "layers.0.0", "stem.1": "layers.0.1"}
    stage = block = 0
    for number, layer in enumerate(layers[1:-1], start=1):
        if layer.block == "downsample":
            stage, block = stage + 1, 0
            names |= {f"stages.{stage}.downsample.{part}": f"layers.{number}.{part}" for part in (0, 1)}
        else:
            theirs = f"stages.{stage}.blocks.{block}"
            names |= {f"{theirs}.{part}": f"layers.{number}.{ours}" for part, ours in TIMM_BLOCK.items()}
            block += 1
    return names | {"head.norm": f"layers.{last}.norm", "head.fc": f"layers.{last}.linear"}

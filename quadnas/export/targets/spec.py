"""Export as a text with the weights beside it (safetensors), both of which ``quadnas train`` reads.

The text is a model spec (YAML) or, for networks of inverted residuals, ProxylessNAS's net.config (JSON).
"""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load

from quadnas.config import parse_yaml, validated, write_yaml
from quadnas.errors import DataError
from quadnas.export.base import TARGETS, Target
from quadnas.network import Network
from quadnas.run.atomic import commit_bytes
from quadnas.space.model_spec import ModelSpec
from quadnas.space.net_config import parse_net_config, write_net_config
from quadnas.training.weights import weights_bytes


def export_text(
    write: Callable[[ModelSpec], str], read: Callable[[str, str], ModelSpec]
) -> Callable[[ModelSpec, Network, dict[str, str], Path], list[Path]]:
    """The ``Target.write`` of a text format, of which ``read`` takes the text and what to call it in errors."""

    def export(spec: ModelSpec, network: Network, notes: dict[str, str], path: Path) -> list[Path]:
        text, weights = write(spec), weights_bytes(network, notes)
        rebuilt = Network(read(text, str(path)).layers)
        rebuilt.load_state_dict(load(weights))
        shape = 1, spec.input.channels, spec.input.size, spec.input.size
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            if not torch.equal(rebuilt.eval()(images), network.eval()(images)):
                raise DataError(
                    f"the network rebuilt from {path} differs from the one exported; nothing was written"
                )
        commit_bytes(path.with_suffix(".safetensors"), weights)
        commit_bytes(path, text.encode())
        return [path, path.with_suffix(".safetensors")]

    return export


def _parse_spec(text: str, source: str) -> ModelSpec:
    return validated(parse_yaml(text, source), ModelSpec, source)


TARGETS.register("spec")(Target(".yaml", export_text(write_yaml, _parse_spec), write_yaml))
TARGETS.register("net-config")(
    Target(".config", export_text(write_net_config, parse_net_config), write_net_config)
)

"""Export as a model spec (YAML) with the weights beside it (safetensors): what ``quadnas train`` reads."""

from pathlib import Path

import torch
from safetensors.torch import load

from quadnas.config import parse_yaml, validated, write_yaml
from quadnas.errors import DataError
from quadnas.export.base import TARGETS, Target
from quadnas.network import Network
from quadnas.run.atomic import commit_bytes
from quadnas.space.model_spec import ModelSpec
from quadnas.training.weights import weights_bytes


def export_spec(spec: ModelSpec, network: Network, notes: dict[str, str], path: Path) -> list[Path]:
    """Write ``path`` and the safetensors file of its stem; both rebuild to equal logits, or neither appears."""
    text, weights = write_yaml(spec), weights_bytes(network, notes)
    rebuilt = Network(validated(parse_yaml(text, str(path)), ModelSpec, str(path)).layers)
    rebuilt.load_state_dict(load(weights))
    images = torch.rand(2, spec.input.channels, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if not torch.equal(rebuilt.eval()(images), network.eval()(images)):
            raise DataError(
                f"the network rebuilt from {path} differs from the one exported; nothing was written"
            )
    commit_bytes(path.with_suffix(".safetensors"), weights)
    commit_bytes(path, text.encode())
    return [path, path.with_suffix(".safetensors")]


TARGETS.register("spec")(Target(".yaml", export_spec))

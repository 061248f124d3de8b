"""Experiments whose arms are networks: named models, or networks laid out in the file itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from quadnas.compare.experiment import Arm, ArmName, Experiment
from quadnas.config import overlaid, validated
from quadnas.errors import ConfigError
from quadnas.network import operators_of, require_size
from quadnas.report.models import parameters
from quadnas.space.layer import Layer
from quadnas.space.model_family import CLASSES, ModelFamily, find_model
from quadnas.space.model_spec import IMAGENET_INPUT, ModelSpec, counted_classes

Count = Annotated[int, Field(ge=1)]
_DESIGN = ("channels", "depths", "blocks")


class NetworkArm(Arm):
    """A network: the name or file of a ``model``, or what its own ``network`` changes in the experiment's."""

    model: str | None = None
    network: dict[str, Any] = Field(default_factory=dict)


class NetworkExperiment(Experiment):
    """``network`` is laid out as in a family file (``models/*.yaml``): stem, downsample, head, and one model's
    channels, depths and blocks. ``input_size``: side of the images in pixels, for costs and measurements.
    """

    arms: Mapping[ArmName, NetworkArm]
    network: dict[str, Any] = Field(default_factory=dict)
    input_size: Count = 224

    def specs(self) -> dict[str, ModelSpec]:
        """The network of every arm, checked to be buildable at ``input_size``; raises ConfigError."""
        found = {name: self._spec(name, arm) for name, arm in self.arms.items()}
        for spec in found.values():
            require_size(spec.layers, self.input_size)
        return found

    def _spec(self, name: str, arm: NetworkArm) -> ModelSpec:
        if arm.model is None:
            return spec_of(name, overlaid(self.network, arm.network))
        if arm.network:
            raise ConfigError(f"arms.{name}: a named model is taken as it is; give either model or network")
        return find_model(arm.model)


def spec_of(name: str, network: Mapping[str, Any]) -> ModelSpec:
    """The design that a file lays out, for as many classes as ImageNet has; raises ConfigError."""
    design = {key: network[key] for key in _DESIGN if key in network}
    rest = {key: value for key, value in network.items() if key not in _DESIGN}
    whole = {"format": "quadnas-models/1", "description": name, **rest, "models": {name: design}}
    where = f"arms.{name}.network"
    return ModelSpec(
        name=name,
        input=IMAGENET_INPUT,
        classes=counted_classes(CLASSES),
        layers=validated(whole, ModelFamily, where).layers(name, Path(where)),
    )


def size_of(layers: Sequence[Layer], input_size: int) -> dict[str, int]:
    """Parameters, and multiply-accumulates for one image of side ``input_size``."""
    macs = sum(operator.kernel.macs for operator in operators_of(layers, input_size))
    return {"parameters": parameters(layers), "macs": macs}


def fingerprint(specs: Mapping[str, ModelSpec]) -> tuple[tuple[str, tuple[Layer, ...]], ...]:
    """What tells apart the networks that named models stand for."""
    return tuple((name, spec.layers) for name, spec in specs.items())

"""Experiments whose arms are networks: named models, or networks laid out in the file itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from quadnas.compare.experiment import Arm, ArmName, Experiment
from quadnas.compare.table import Column
from quadnas.config import overlaid, validated
from quadnas.errors import ConfigError
from quadnas.latency.devices import find_device
from quadnas.latency.measurements import load_corrected
from quadnas.latency.model import estimate
from quadnas.network import kernels_of, require_size
from quadnas.registry import did_you_mean
from quadnas.sizes import macs, parameters
from quadnas.space.layer import Layer
from quadnas.space.model_family import CLASSES, Design, ModelFamily, find_model
from quadnas.space.model_spec import IMAGENET_INPUT, ModelSpec, counted_classes

Count = Annotated[int, Field(ge=1)]
_LAYOUT = {*ModelFamily.model_fields, *Design.model_fields} - {"format", "description", "models"}


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
        return self.for_each_arm(self._spec)

    def _spec(self, name: str) -> ModelSpec:
        arm = self.arms[name]
        if arm.model is None:
            spec = spec_of(name, overlaid(self.network, arm.network))
        elif arm.network:
            raise ConfigError(f"arms.{name}: a named model is taken as it is; give either model or network")
        else:
            spec = find_model(arm.model)
        require_size(spec.layers, self.input_size)
        return spec


def spec_of(name: str, network: Mapping[str, Any]) -> ModelSpec:
    """The design that a file lays out, for as many classes as ImageNet has; raises ConfigError."""
    where = f"arms.{name}.network"
    for key in network:
        if key not in _LAYOUT:
            raise ConfigError(f"{where}: unknown key {key!r}; {did_you_mean(key, _LAYOUT)}")
    design = {key: value for key, value in network.items() if key in Design.model_fields}
    rest = {key: value for key, value in network.items() if key not in design}
    whole = {"format": "quadnas-models/1", "description": name, **rest, "models": {name: design}}
    return ModelSpec(
        name=name,
        input=IMAGENET_INPUT,
        classes=counted_classes(CLASSES),
        layers=validated(whole, ModelFamily, where).layers(name, Path(where)),
    )


def size_of(layers: Sequence[Layer], input_size: int) -> dict[str, int]:
    """Parameters, and multiply-accumulates for one image of side ``input_size``."""
    return {"parameters": parameters(layers), "macs": macs(layers, input_size)}


def fingerprint(specs: Mapping[str, ModelSpec]) -> dict[str, object]:
    """What tells apart the networks that named models stand for, as inputs of a run."""
    return {f"model of {name}": spec.layers for name, spec in specs.items()}


def require_devices(devices: Sequence[str]) -> None:
    """Raise ConfigError or DataError if a device cannot be loaded."""
    for device in devices:
        load_corrected(device)


def latencies_ms(layers: Sequence[Layer], input_size: int, devices: Sequence[str]) -> dict[str, float | None]:
    """Predicted latency on every device, under ``<device>_ms``; None where an operator has no price there."""
    found = {}
    for device in devices:
        model = load_corrected(device)
        found[latency_key(device)] = estimate(model, kernels_of(layers, input_size, model)).latency_ms
    return found


def latency_key(device: str) -> str:
    """The key of the column with the latencies on a device."""
    return f"{Path(device).name}_ms"


def cost_columns(devices: Sequence[str], input_size: int) -> tuple[Column, ...]:
    """Parameters, multiply-accumulates and the latency on every device."""
    return (
        Column("parameters", "parameters, M", 3, 1e-6),
        Column("macs", f"GMACs at {input_size}", 3, 1e-9),
        *(Column(latency_key(device), _latency_title(device), 2) for device in devices),
    )


def _latency_title(device: str) -> str:
    _, card = find_device(device)
    return f"{card.device}, ms" + (f" for {card.batch} images" if card.batch > 1 else "")


def unpriced_note(rows: Mapping[str, Mapping[str, object]], devices: Sequence[str]) -> tuple[str, ...]:
    """Which arms have no total on a device, and why."""
    missing = [
        f"{arm} on {device}"
        for device in devices
        for arm, row in rows.items()
        if latency_key(device) in row and row[latency_key(device)] is None
    ]
    if not missing:
        return ()
    return (f"No latency where an operator has no price: {', '.join(missing)}.",)

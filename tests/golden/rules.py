"""The pair rules of the devices whose kernel lists are golden."""

from quadnas.latency.devices import available_devices, load_device

DEVICES = ("cortexA76", "adreno640", "myriadvpu", "a100")

ADRENO = tuple(
    (first, second)
    for first, behind in {
        "conv": ("bn", "relu", "relu6", "hswish", "add"),
        "dwconv": ("bn", "relu", "relu6", "add"),
        "bn": ("relu", "relu6"),
        "add": ("add", "relu"),
        "relu": ("relu", "add"),
        "se": ("relu",),
        "concat": ("add", "relu"),
        "fc": ("add", "relu"),
    }.items()
    for second in behind
)
"""nn-Meter's fusion tests of TFLite on the GPU, where a card does not hold them yet."""


def rules_of(device: str) -> tuple[tuple[str, str], ...]:
    """The rules on the device's card."""
    return load_device(device).card.fusion if device in available_devices() else ADRENO

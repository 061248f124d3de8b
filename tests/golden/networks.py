"""The networks whose kernels are known by heart, as layers of a model spec."""

from quadnas.network import load_space
from quadnas.space.layer import Layer

# expansion, channels, repeats, stride: table 2 of MobileNetV2 (arXiv 1801.04381)
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(classes: int = 1000) -> tuple[Layer, ...]:
    """MobileNetV2 at width 1.0."""
    layers = [Layer(block="conv_bn", channels_in=3, channels_out=32, stride=2, arguments={"kernel": 3})]
    channels = 32
    for expansion, wide, repeats, stride in MOBILENET_V2:
        for number in range(repeats):
            layers.append(
                Layer(
                    block="mbconv",
                    channels_in=channels,
                    channels_out=wide,
                    stride=1 if number else stride,
                    arguments={"kernel": 3, "expansion": expansion},
                )
            )
            channels = wide
    head = Layer(block="conv_bn", channels_in=channels, channels_out=1280, arguments={"kernel": 1})
    last = Layer(block="classifier", channels_in=1280, channels_out=classes, arguments={"norm": "none"})
    return (*layers, head, last)


def quadranet_xs(classes: int = 1000) -> tuple[Layer, ...]:
    """A QuadraNet of width 32: in every stage one block of kernel 3 and expansion 2, then one of 7 and 4."""
    space = load_space("quadranet_xs")
    labels = ("quadra-k3-e2", "quadra-k7-e4")
    seen: dict[int, int] = {}
    choices = []
    for slot in space.slots:
        number = seen[slot.stage] = seen.get(slot.stage, -1) + 1
        label = labels[number] if number < len(labels) else "identity"
        choices.append(slot.labels.index(label))
    return space.layers(choices, classes)

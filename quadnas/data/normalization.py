"""How pixels are normalised before a network sees them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation per RGB channel, on the scale 0..1 (grey: one value three times)."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET_NORMALIZATION = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

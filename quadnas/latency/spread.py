"""How far a measured network lies from its prediction: the statistics of a card at one probability."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from quadnas.errors import ConfigError
from quadnas.latency.card import DeviceCard, Quantiles, Winners


@dataclass(frozen=True, slots=True)
class Scale:
    """What the user's own measurements say of a device: its prices times ``factor``, from so many models.

    ``stale`` models were measured against another version of the predictor and do not count.
    """

    factor: float = 1.0
    models: int = 0
    stale: int = 0

    def __str__(self) -> str:
        """What every prediction says of it; nothing if there is nothing to say."""
        models = f"{self.models} model{'s' * (self.models > 1)}"
        found = f"scaled by {self.factor:.3g} from your measurements of {models}" if self.models else ""
        stale = f"{self.stale} of your measurements are of another version of the predictor: enter them again"
        return "; ".join(filter(None, (found, stale if self.stale else "")))


UNSCALED = Scale()


@dataclass(frozen=True, slots=True)
class Spread:
    """The ratio measured/predicted that stays below some value with probability ``level``.

    ``z`` is the normal quantile of that level without its sign, ``middle`` the median ratio over networks,
    ``edge`` the ratio at that level.
    """

    z: float
    middle: float
    edge: float
    found: Winners | None
    level: float

    @classmethod
    def of(cls, card: DeviceCard, level: float, scale: Scale) -> "Spread":
        """The spread that a card states; raises ConfigError for a level beyond its quantiles.

        A scale that is the median of n measurements shifts all predictions by its own error, 1/n of the
        spread in quadrature.
        """
        if card.error_quantiles is None:
            raise ConfigError(
                f"device {card.device!r} was never checked on measured networks, so nothing holds with a "
                "probability; leave --confidence away"
            )
        levels = [known for known, _ in card.error_quantiles]
        if not levels[0] <= level <= levels[-1]:
            raise ConfigError(
                f"a confidence lies between {max(levels[0], 0.5)} and {levels[-1]} for a limit and up to "
                f"{min(1 - 2 * levels[0], 2 * levels[-1] - 1):g} for an interval, as far as device "
                f"{card.device!r} was checked; {level:g} is beyond; for example --confidence 0.9"
            )
        middle, edge = _at(card.error_quantiles, level)
        widening = math.sqrt(1 + 1 / scale.models) if scale.models else 1.0
        if level >= 0.5:
            edge = middle + (edge - middle) * widening
        else:
            edge = 1 / (1 / middle + (1 / edge - 1 / middle) * widening)
        return cls(abs(NormalDist().inv_cdf(level)), middle, edge, card.winners, level)

    @property
    def winners(self) -> float:
        """How far the bias of winners itself scatters at this level, as a fraction."""
        if self.found is None:
            return 0.0
        middle, edge = _at(self.found.quantiles, self.level)
        return abs(edge / middle - 1)

    def bias(self, calibrated: bool) -> float:
        """How much dearer than predicted a searched network is on average, with or without surrogates in it."""
        if self.found is None:
            return 1.0
        return self.found.bias if calibrated else self.found.surrogate_bias

    def ratio(self, *errors: float) -> float:
        """The ratio with further independent ``errors`` at the same level (fractions), added in quadrature."""
        if self.level >= 0.5:
            return self.middle + math.hypot(self.edge - self.middle, *errors)
        return 1 / (1 / self.middle + math.hypot(1 / self.edge - 1 / self.middle, *errors))


def _at(quantiles: Quantiles, level: float) -> tuple[float, float]:
    """The median and the ratio at ``level``."""
    levels, ratios = zip(*quantiles, strict=True)
    return float(np.interp(0.5, levels, ratios)), float(np.interp(level, levels, ratios))

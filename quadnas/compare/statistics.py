"""What repeated trainings say: the noise of one training, and the smallest difference that is more than noise."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import variance

from scipy.stats import t


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviation of a single value, pooled over arms with several seeds, and its degrees of freedom."""

    deviation: float
    freedom: int

    def significant(self, seeds: int, confidence: float = 0.95) -> float:
        """The difference of two means of ``seeds`` values that equal arms exceed with 1 - ``confidence`` only.

        Fisher's least significant difference, t s sqrt(2/n): for one comparison, not for the best of many.
        """
        quantile = float(t.ppf((1 + confidence) / 2, self.freedom))
        return quantile * self.deviation * math.sqrt(2 / seeds)


def pooled_noise(groups: Iterable[Sequence[float]]) -> Noise | None:
    """The noise within groups of repeated values; None if no group has two."""
    repeated = [group for group in groups if len(group) > 1]
    freedom = sum(len(group) - 1 for group in repeated)
    if not freedom:
        return None
    squares = sum((len(group) - 1) * variance(group) for group in repeated)
    return Noise(math.sqrt(squares / freedom), freedom)

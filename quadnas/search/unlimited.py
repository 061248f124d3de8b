"""What a search would have chosen without its limits, from what its strategy asked while it chose under them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from quadnas.search.problem import Problem
from quadnas.search.strategy import Selection


class Witness:
    """Passes on what a strategy asks of a ``selection`` of a problem, and remembers it; nothing is computed twice.

    ``selection``: to be given to the strategy instead.
    """

    def __init__(self, problem: Problem, selection: Selection) -> None:
        self._problem, self._asked = problem, selection
        self._scores: NDArray[np.float64] | None = None
        self._losses: dict[tuple[int, ...], float] = {}
        self.selection = replace(selection, derive=self._derive, held_out_loss=self._held_out_loss)

    def unlimited(self) -> tuple[int, ...] | None:
        """The best network of the whole space by the scores that the knapsack was asked with.

        Of a strategy that asks no knapsack, and compares whole networks instead, the scores are what
        ``additive_scores`` makes of its comparisons. None if these say nothing: there are none, or the network is
        within the limits, and candidates that the limits kept out of every comparison might be better.
        """
        priced = self._problem.priced.numpy()
        if self._scores is not None:
            return _best(self._scores, priced)
        if not self._losses:
            return None
        networks, losses = list(self._losses), list(self._losses.values())
        seen = np.asarray(_one_hot(networks, priced.shape).any(0))
        best = _best(additive_scores(networks, losses, priced.shape), seen)
        return best if (seen == priced).all() or not self._problem.fits(best) else None

    def _derive(self, scores: NDArray[np.float64]) -> tuple[int, ...]:
        self._scores = scores
        return self._asked.derive(scores)

    def _held_out_loss(self, choices: Sequence[int]) -> float:
        loss = self._losses[tuple(choices)] = self._asked.held_out_loss(choices)
        return loss


def additive_scores(
    networks: Sequence[Sequence[int]], losses: Sequence[float], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """How much each candidate lowers the loss, (slots, most candidates) = ``shape``: Bayesian ridge regression.

    The losses themselves say how much of them the candidates explain. One in no network has 0, its slot's average.
    """
    from sklearn.linear_model import BayesianRidge  # noqa: PLC0415 (takes a second)

    chosen = _one_hot(networks, shape).reshape(len(networks), -1)
    scores: NDArray[np.float64] = BayesianRidge().fit(chosen, -np.asarray(losses)).coef_.reshape(shape)
    return scores


def _one_hot(networks: Sequence[Sequence[int]], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """(networks, slots, most candidates): which candidate each network has."""
    marks: NDArray[np.bool_] = np.equal.outer(np.asarray(networks), np.arange(shape[1]))
    return marks


def _best(scores: NDArray[np.float64], among: NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(np.where(among, scores, -np.inf).argmax(1).tolist())

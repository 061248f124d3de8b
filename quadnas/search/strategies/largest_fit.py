"""The largest network that fits: the baseline that a practitioner has without any search.

Size is counted in multiply-accumulates, the axis along which families of networks are scaled and listed and which,
unlike parameters, costs latency; parameters would all go to the last stages, where maps are small.
"""

from quadnas.search.paths import candidate_macs
from quadnas.search.problem import Problem
from quadnas.search.strategy import STRATEGIES, Selection, Strategy


@STRATEGIES.register("largest")
class LargestFit(Strategy):
    """The architecture with the most multiply-accumulates within the limit, which then trains from fresh weights.

    It costs nothing: there is no supernet.
    """

    def __init__(self, problem: Problem) -> None:
        self._macs = candidate_macs(problem)

    def choose(self, selection: Selection) -> tuple[int, ...]:
        """What the knapsack makes of the MACs."""
        return selection.derive(self._macs)

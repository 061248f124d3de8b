"""Random search with weight sharing: uniformly trained weights compare random architectures.

Source: Li and Talwalkar (arXiv 1902.07638) section 3.2, with architectures drawn among those within the limit.
"""

from collections.abc import Iterator
from itertools import islice

from quadnas.data.base import Batch
from quadnas.search.paths import uniform_path
from quadnas.search.problem import Problem
from quadnas.search.strategy import STRATEGIES, Moment, OneShot, Selection
from quadnas.supernet.entangled import EntangledSupernet
from quadnas.training.loop import Criterion, Loss

DRAWS = 200


@STRATEGIES.register("random")
class RandomSearch(OneShot):
    """One uniform path per weight step (1 budget unit); ``DRAWS`` feasible architectures are compared in the end.

    A comparison costs what ``selection.held_out_loss`` says, all of them at most 2800 units for batches of 64; the
    default schedule takes 13 500 weight steps on Fashion-MNIST.
    """

    def __init__(self, problem: Problem) -> None:
        self.supernet = EntangledSupernet(problem.space, problem.classes)
        self._priced = problem.priced

    def losses(self, batch: Batch, criterion: Criterion, moment: Moment) -> Iterator[Loss]:
        """Train one path."""
        logits = self.supernet(batch.images, uniform_path(self._priced, moment.generator()))
        yield Loss(criterion(logits, batch.labels), logits)

    def choose(self, selection: Selection) -> tuple[int, ...]:
        """The one with the lowest held-out loss; those drawn twice are compared once."""
        return min(dict.fromkeys(islice(selection.samples, DRAWS)), key=selection.held_out_loss)

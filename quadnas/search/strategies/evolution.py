"""Evolution on shared weights that were trained by the sandwich rule with in-place distillation.

Sources: BigNAS (arXiv 2003.11142) for the training, regularised evolution (arXiv 1802.01548) for the search, with
the crossover and the mutation rate of AttentiveNAS (arXiv 2011.09011).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch.nn import functional as F

from quadnas.data.base import Batch
from quadnas.search.paths import extreme_paths, uniform_path
from quadnas.search.problem import Problem
from quadnas.search.strategy import STRATEGIES, Moment, OneShot, Selection
from quadnas.supernet.entangled import EntangledSupernet
from quadnas.training.loop import Criterion, Loss

RANDOM_PATHS = 2
POPULATION, CHILDREN, TOURNAMENT = 50, 150, 10
MUTATION = 0.2
TRIES = 20

Path = tuple[int, ...]


@STRATEGIES.register("evolution")
class Evolution(OneShot):
    """Four paths per weight step (4 budget units); ``POPULATION`` + ``CHILDREN`` comparisons in the end.

    A comparison costs what ``selection.held_out_loss`` says, all of them at most 2800 units for batches of 64.
    At an equal budget it trains a quarter of the steps of a strategy with one path.
    """

    def __init__(self, problem: Problem) -> None:
        self.supernet = EntangledSupernet(problem.space, problem.classes)
        self._priced = problem.priced
        self._largest, self._smallest = extreme_paths(problem)

    def losses(self, batch: Batch, criterion: Criterion, moment: Moment) -> Iterator[Loss]:
        """The largest path learns the labels; the smallest and random ones learn what it answers."""
        logits = self.supernet(batch.images, self._largest)
        yield Loss(criterion(logits, batch.labels), logits)
        answers = logits.detach().softmax(1)
        generator = moment.generator()
        drawn = [uniform_path(self._priced, generator) for _ in range(RANDOM_PATHS)]
        for path in (self._smallest, *drawn):
            logits = self.supernet(batch.images, path)
            yield Loss(F.cross_entropy(logits, answers), logits)

    def choose(self, selection: Selection) -> Path:
        """The architecture with the lowest held-out loss that was ever in the population.

        Every child comes from the better ones of a random tournament and replaces the oldest of the population.
        """
        losses: dict[Path, float] = {}
        alive: deque[Path] = deque(maxlen=POPULATION)
        for path in islice(selection.samples, POPULATION):
            _admit(path, alive, losses, selection)
        for _ in range(CHILDREN):
            _admit(self._child(alive, losses, selection), alive, losses, selection)
        return min(losses, key=losses.__getitem__)

    def _child(self, alive: Sequence[Path], losses: dict[Path, float], selection: Selection) -> Path:
        """A new architecture within the limits; a random one if none came of so many tries."""
        generator = selection.generator
        for _ in range(TRIES):
            first, second = (_winner(alive, losses, generator) for _ in range(2))
            if torch.rand((), generator=generator) < 0.5:
                child = self._mutated(first, generator)
            else:
                child = _mixed(torch.full((len(first),), 0.5), first, second, generator)
            if child not in losses and selection.fits(child):
                return child
        return next(selection.samples)

    def _mutated(self, path: Path, generator: torch.Generator) -> Path:
        """Every slot is drawn anew with the probability ``MUTATION``, one of them in any case."""
        shares = torch.full((len(path),), MUTATION)
        shares[torch.randint(len(path), (), generator=generator)] = 1.0
        return _mixed(shares, path, uniform_path(self._priced, generator), generator)


def _admit(path: Path, alive: deque[Path], losses: dict[Path, float], selection: Selection) -> None:
    if path not in losses:
        losses[path] = selection.held_out_loss(path)
    alive.append(path)


def _winner(alive: Sequence[Path], losses: dict[Path, float], generator: torch.Generator) -> Path:
    """The best of a tournament."""
    drawn = torch.randperm(len(alive), generator=generator)[:TOURNAMENT].tolist()
    return min((alive[i] for i in drawn), key=losses.__getitem__)


def _mixed(shares: torch.Tensor, first: Path, second: Sequence[int], generator: torch.Generator) -> Path:
    """Each slot is that of ``second`` with its probability in ``shares`` (slots,), else that of ``first``."""
    taken = torch.bernoulli(shares, generator=generator).bool().tolist()
    return tuple(b if take else a for a, b, take in zip(first, second, taken, strict=True))

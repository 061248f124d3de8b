"""The table of searches: what each of them answered, what it cost, and how its supernet ranks the truth."""

from collections.abc import Iterable

from benchmarks.ground_truth.table import Entry, Key, SharedTable
from quadnas.config import Settings


class Answer(Settings):
    """What a search chose under one limit, ``share`` of the range of ``device``.

    ``bound_ms``: what was held to the limit; ``seconds`` of CPU and ``path_steps`` of choosing alone.
    """

    device: str
    share: float
    limit_ms: float
    architecture: str
    bound_ms: float
    seconds: float
    path_steps: float


class SearchRow(Entry):
    """A supernet, or none, and the answers it gave.

    ``seconds`` of CPU and ``path_steps`` (passes of one path forward and backward on one batch) of its training,
    which all answers share. ``scores``: what the strategy itself gives every candidate of every slot, if it does;
    they add up. ``losses``: of the planned networks of the truth, in their order, with the weights of the supernet
    on held-out images; empty where they were not asked for.
    """

    strategy: str
    seed: int
    seconds: float
    path_steps: float
    answers: tuple[Answer, ...]
    scores: tuple[tuple[float, ...], ...] = ()
    losses: tuple[float, ...] = ()

    @property
    def key(self) -> Key:
        """Strategy, seed, and the first limit."""
        return self.strategy, self.seed, self.answers[0].device, self.answers[0].share


class SearchTable(SharedTable[SearchRow]):
    """The searches that are compared on a ground truth."""

    entry = SearchRow
    entries, command = "searches", "search"


def chosen_networks(rows: Iterable[SearchRow]) -> list[str]:
    """Every architecture that some search chose, once, in order."""
    return list(dict.fromkeys(answer.architecture for row in rows for answer in row.answers))

"""Paths through a space: the largest and the smallest, and random ones, at will or within a limit."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quadnas.search.limits import macs_table
from quadnas.search.problem import Problem
from quadnas.training.loop import step_generator

SWEEPS = 8
"""Proposals per slot between two draws of the Markov chain."""


def candidate_macs(problem: Problem) -> NDArray[np.float64]:
    """(slots, most candidates): multiply-accumulates of every candidate at deployment size, for one image."""
    table = macs_table(problem.space, problem.classes, problem.settings.input_size)
    macs = np.zeros(tuple(problem.priced.shape))
    for row, found in zip(macs, table.rows, strict=True):
        row[: len(found)] = found
    return macs


def extreme_paths(problem: Problem) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The largest and the smallest path: per slot the most and the fewest MACs of what has a price."""
    macs, priced = candidate_macs(problem), problem.priced.numpy()
    largest, smallest = np.where(priced, macs, -np.inf).argmax(1), np.where(priced, macs, np.inf).argmin(1)
    return tuple(largest.tolist()), tuple(smallest.tolist())


def uniform_path(priced: Tensor, generator: torch.Generator) -> list[int]:
    """A candidate for every slot, each of those in ``priced`` (slots, most candidates) equally likely."""
    path: list[int] = torch.multinomial(priced.double(), 1, generator=generator)[:, 0].tolist()
    return path


def fair_path(priced: Tensor, seed: int, step: int) -> list[int]:
    """A candidate for every slot; all in ``priced`` (slots, most candidates) come once before any comes again.

    The order is drawn anew for every slot and every round, so that each path is as likely as any other.
    Source: strict fairness in FairNAS (arXiv 1907.01845), there with one update of the weights per round.
    """
    counts = priced.sum(1)
    path = torch.zeros_like(counts)
    for count in counts.unique().tolist():
        number, place = divmod(step, count)
        generator = step_generator(seed, f"round of {count}", number)
        order = torch.rand(priced.shape, generator=generator).masked_fill(~priced, torch.inf).argsort(1)
        path = order[:, place].where(counts == count, path)
    found: list[int] = path.tolist()
    return found


def feasible_paths(
    priced: Tensor, within: Callable[[Sequence[int]], bool], start: Sequence[int], generator: torch.Generator
) -> Iterator[tuple[int, ...]]:
    """Paths ``within`` a limit, drawn uniformly, without end, by a Metropolis chain from one that is within it.

    A proposal draws the candidates of two slots anew and is taken if it is within the limit. Where costs add up,
    the cheapest path can be reached from every other, so the chain finds all; rejection sampling would find none
    when the limit is close to the minimum. Successive draws are ``SWEEPS`` proposals per slot apart.
    """
    candidates = [row.nonzero()[:, 0].tolist() for row in priced]
    steps = SWEEPS * len(candidates)
    state = list(start)
    while True:
        pairs = torch.randint(len(candidates), (steps, 2), generator=generator).tolist()
        places = torch.rand(steps, 2, dtype=torch.float64, generator=generator).tolist()
        for slots, shares in zip(pairs, places, strict=True):
            proposal = state.copy()
            for slot, share in zip(slots, shares, strict=True):
                proposal[slot] = candidates[slot][int(share * len(candidates[slot]))]
            if within(proposal):
                state = proposal
        yield tuple(state)

"""Strategies against each other, seed by seed."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import TypeVar

from benchmarks.ground_truth.ranking import EVERYWHERE, EXCESS, OWN, SIZE, WEIGHTS, Taus
from benchmarks.ground_truth.regret import HIGHER_IS_BETTER, Judged
from benchmarks.ground_truth.rivals import RIVALS
from quadnas.compare.statistics import Interval, Paired, holm, mean_interval, paired

OURS = "swap"
NORMAL_95 = 1.96

BySeed = Mapping[int, float]
ItemType = TypeVar("ItemType")
KeyType = TypeVar("KeyType")


def gathered(items: Iterable[ItemType], key: Callable[[ItemType], KeyType]) -> dict[KeyType, list[ItemType]]:
    """The items by their key, in order of appearance."""
    found: dict[KeyType, list[ItemType]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def mean_regret(group: Sequence[Judged], key: str) -> Interval:
    """Of one strategy, over all limits of the group: over seeds, and widened by what trainings leave open.

    The means of what was chosen are of few trainings, those that were chosen more often weigh more, and so is that
    of the best. All of it together is somewhat too wide, for the spread over seeds is partly that of trainings.
    """
    by_seed = regrets(group, key)
    over_seeds = mean_interval([*by_seed.values()])
    chosen = [one for one in group if one.seed in by_seed]
    verdicts = {one.verdicts[key].network: one.verdicts[key] for one in chosen}
    seedless = RIVALS[group[0].strategy].supernet == "none"
    if not all(one.trainings for one in verdicts.values()) or (over_seeds.half is None and not seedless):
        return over_seeds
    times = Counter(one.verdicts[key].network for one in chosen)
    open_ = sum((count / len(chosen)) ** 2 / verdicts[name].trainings for name, count in times.items())
    of_best = 1 / chosen[0].verdicts[key].best_trainings
    half = math.hypot(over_seeds.half or 0.0, NORMAL_95 * math.sqrt(open_ + of_best))
    return Interval(over_seeds.value, over_seeds.value - half, over_seeds.value + half, over_seeds.count)


def against(ours: BySeed, theirs: BySeed) -> tuple[list[float], list[float]]:
    """The values of seeds that both have; one that knows no seeds stands against all of them."""
    if len(theirs) == 1:
        theirs = dict.fromkeys(ours, *theirs.values())
    seeds = sorted(ours.keys() & theirs.keys())
    return [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]


def regrets(group: Iterable[Judged], key: str) -> dict[int, float]:
    """By seed, over all limits; seeds that have not answered under all of them yet are left out."""
    by_seed = gathered(group, lambda one: one.seed)
    most = max(map(len, by_seed.values()))
    return {
        seed: fmean(one.verdicts[key].regret for one in found)
        for seed, found in by_seed.items()
        if len(found) == most
    }


def regret_contests(verdicts: Sequence[Judged], key: str) -> dict[str, dict[str, BySeed]]:
    """Every strategy's regret by seed: the mean over all limits, and under each of them."""
    groups = {"mean regret": verdicts}
    for (device, share), group in gathered(verdicts, lambda one: one.point).items():
        groups[f"regret on {device} at {share:.0%}"] = group
    return {
        f"{title} ({key})": {
            strategy: regrets(own, key) for strategy, own in gathered(group, lambda one: one.strategy).items()
        }
        for title, group in groups.items()
    }


def contests(
    verdicts: Sequence[Judged], taus: Mapping[tuple[str, str], Mapping[int, Taus]], devices: Sequence[str]
) -> dict[str, dict[str, BySeed]]:
    """By what is compared: every strategy's values by seed; tau is that of what the strategy chooses by."""
    found = {
        title: values for key in HIGHER_IS_BETTER for title, values in regret_contests(verdicts, key).items()
    }
    own = {
        strategy: seeds
        for by in (WEIGHTS, SIZE, OWN)
        for (strategy, used), seeds in taus.items()
        if used == by
    }
    titles = {EXCESS: EXCESS, EVERYWHERE: "tau"}
    for place in (EXCESS, EVERYWHERE, *devices):
        found[titles.get(place, f"tau within +-5 % on {place}")] = {
            strategy: {seed: tau for seed, places in seeds.items() if not math.isnan(tau := places[place])}
            for strategy, seeds in own.items()
        }
    return found


def pairs(values: Mapping[str, BySeed]) -> dict[str, tuple[Paired, float | None]]:
    """Ours less each rival, with its p-value raised for their number by Holm; None where one seed says nothing."""
    ours = values.get(OURS, {})
    rivals = {name: against(ours, theirs) for name, theirs in values.items() if name != OURS}
    found = {name: paired(*both) for name, both in rivals.items() if both[0]}
    known = {name: pair.p for name, pair in found.items() if pair.p is not None}
    raised = dict(zip(known, holm(list(known.values())), strict=True))
    return {name: (pair, raised.get(name)) for name, pair in found.items()}

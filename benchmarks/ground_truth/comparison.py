"""The searches side by side: Markdown tables of regret, ranking and cost, and a picture."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from textwrap import fill

from benchmarks.ground_truth.answers import Answer, SearchRow, SearchTable, chosen_networks
from benchmarks.ground_truth.contest_figure import contest_picture
from benchmarks.ground_truth.contests import OURS, BySeed, contests, gathered, mean_regret, pairs
from benchmarks.ground_truth.fit import limit_within
from benchmarks.ground_truth.plan import (
    ANSWER_SEEDS,
    FINAL_SEEDS,
    Truth,
    latency_tables,
    limit_points,
    network_of,
    relative_costs,
    stratified,
)
from benchmarks.ground_truth.ranking import BEST, EVERYWHERE, EXCESS, Taus, all_taus, ceilings, ranked_truth
from benchmarks.ground_truth.regret import HIGHER_IS_BETTER, Judge, Judged, judged
from benchmarks.ground_truth.report import SCORES
from benchmarks.ground_truth.table import TruthTable
from quadnas.compare.statistics import Interval, mean_interval
from quadnas.data.base import load_data
from quadnas.errors import DataError
from quadnas.network import load_space

WIDTH = 118
BY_FIT = "~"
"""Marks what rests on the fit, because some of the trainings are still missing."""


NOTES = f"""
    Regret: by how many deviations of one training the best finalist within the limit is better, with 95
    % intervals over the seeds of the searches and over the trainings (up to {len(ANSWER_SEEDS)} of what
    was chosen, {len(FINAL_SEEDS)} of finalists), none of which anyone chose by. The best is chosen by
    half of its trainings and scored by the other half, in turn: with few trainings it is badly chosen,
    and all regrets are as much too low. What a seed adds to all networks alike is taken off. {BY_FIT}:
    the fit stands in for trainings that are missing, and its best has the winner's curse. CPU: seconds
    of one thread for supernet and choice; where one supernet answers under all limits, all of them
    together count it once. Main effects are those of the fit, judged by the trainings that it was fitted
    to: about the most that a sum over slots can do. Other networks' trainings: every tenth of the
    networks is predicted by a fit through the rest. The {BEST} best: among the planned networks within a
    limit, by how much the cross-entropy of the {BEST} that are ranked first is above that of the {BEST}
    lowest, mean over the limits; no fit, and no training that follows from a fit, is in it. A perfect
    predictor has more than 0 there, for one noisy training each says which are lowest. Differences
    are paired by the seed of the search, and their p-values take the scores of networks for known.
"""


def compare(truth: Truth, table: Path, searches: Path, picture: Path | None) -> None:
    """Print how the searches compare on a truth; raises DataError for too few trainings or searches."""
    rows, found = TruthTable(table).rows(), SearchTable(searches).rows()
    if not found:
        raise DataError(
            f"{searches} holds no searches; make some with python -m benchmarks.ground_truth search"
        )
    space, data = load_space(truth.space), load_data(truth.data, limit=truth.train_images)
    tables = latency_tables(truth, space, len(data.classes))
    planned = stratified(relative_costs(list(tables.values())), truth.networks)
    judges = {key: Judge(truth, space, tables, rows, key) for key in HIGHER_IS_BETTER}
    verdicts = judged(found, judges)
    limits_ms = [(device, limit_within(tables[device], share)) for device, share in limit_points(truth)]
    ranked = ranked_truth(space, planned, rows, limits_ms)
    taus = all_taus(ranked, judges["loss"], found)
    highest = ceilings(ranked, judges["loss"])
    chosen = {network_of(space, architecture) for architecture in chosen_networks(found)}
    print(
        f"{len(found)} searches chose {len(chosen)} networks; finalists have "
        f"{judges['loss'].final_seeds} of {len(FINAL_SEEDS)} trainings each; {_noise(judges)}\n"
    )
    print(limits_table(verdicts), "\n")
    print(summary_table(verdicts, found), "\n")
    print(ranking_table(taus, highest), "\n")
    print(pairs_table(contests(verdicts, taus, truth.devices)))
    print(f"\n{fill(' '.join(NOTES.split()), WIDTH)}")
    if picture:
        contest_picture(verdicts, taus, highest).savefig(picture, dpi=120)


def _noise(judges: Mapping[str, Judge]) -> str:
    noises = " and ".join(
        f"{SCORES[key][0] * judge.noise.deviation:.3g} {SCORES[key][1]}" for key, judge in judges.items()
    )
    return f"the noise of one training, the unit of regret, is {noises}"


def limits_table(verdicts: Sequence[Judged]) -> str:
    """What each strategy chose under each limit, over the seeds."""
    head = ["strategy", "device", "limit, ms", "used", "accuracy, %", "cross-entropy",
            "regret (accuracy)", "regret (cross-entropy)", "CPU, s"]  # fmt: skip
    lines = []
    for (strategy, (device, _)), group in gathered(verdicts, lambda one: (one.strategy, one.point)).items():
        answers = [one.answer for one in group]
        lines.append(
            [
                strategy, device, f"{answers[0].limit_ms:.4g}",
                f"{fmean(answer.bound_ms / answer.limit_ms for answer in answers):.0%}",
                f"{100 * fmean(one.verdicts['accuracy'].score for one in group):.2f}",
                f"{fmean(one.verdicts['loss'].score for one in group):.4f}",
                *(_mark(group) + _text(mean_regret(group, key)) for key in HIGHER_IS_BETTER),
                f"{fmean(one.training_seconds + one.answer.seconds for one in group):.0f}",
            ]
        )  # fmt: skip
    return _markdown(head, lines)


def summary_table(verdicts: Sequence[Judged], searches: Sequence[SearchRow]) -> str:
    """Each strategy over all limits, and what its answers cost: one alone, and all of them."""
    head = ["strategy", "seeds", "regret (accuracy)", "regret (cross-entropy)", "path steps for one limit",
            "for all limits", "CPU, s, for one limit", "for all limits"]  # fmt: skip
    rows = gathered(searches, lambda row: row.strategy)
    lines = []
    for strategy, group in gathered(verdicts, lambda one: one.strategy).items():
        own = rows[strategy]
        seeds = len({row.seed for row in own})
        alone = [(row, answer) for row in own for answer in row.answers]
        together: list[SearchRow | Answer] = [*own, *(answer for _, answer in alone)]
        means = [mean_regret(group, key) for key in HIGHER_IS_BETTER]
        lines.append(
            [
                strategy, str(means[0].count), *(_mark(group) + _text(mean) for mean in means),
                f"{fmean(row.path_steps + answer.path_steps for row, answer in alone):.0f}",
                f"{sum(paid.path_steps for paid in together) / seeds:.0f}",
                f"{fmean(row.seconds + answer.seconds for row, answer in alone):.0f}",
                f"{sum(paid.seconds for paid in together) / seeds:.0f}",
            ]
        )  # fmt: skip
    return _markdown(head, lines)


def ranking_table(taus: Mapping[tuple[str, str], Mapping[int, Taus]], highest: Taus) -> str:
    """Kendall's tau over all planned networks and within +-5 % of a latency, also over its ceiling; EXCESS."""
    everywhere, *bands = places = [place for place in highest if place != EXCESS]
    assert everywhere == EVERYWHERE
    head = ["strategy", "ranked by", "tau", "over its ceiling"]
    head += [text for place in bands for text in (f"within +-5 % on {place}", "over its ceiling")]
    head += [EXCESS]
    perfect = [text for place in places for text in (f"{highest[place]:.3f}", "1")]
    lines = [["(ceiling)", "", *perfect, f"{highest[EXCESS]:.1f}"]]
    for (strategy, by), seeds in taus.items():
        means = {place: mean_interval([found[place] for found in seeds.values()]) for place in highest}
        lines.append(
            [strategy, by]
            + [
                text
                for place in places
                for text in (_text(means[place], 3), f"{means[place].value / highest[place]:.2f}")
            ]
            + [_text(means[EXCESS], 1)]
        )
    return _markdown(head, lines)


def pairs_table(compared: Mapping[str, Mapping[str, BySeed]]) -> str:
    """Ours less each rival, seed by seed."""
    head = ["contest", f"{OURS} less", "difference", "seeds", "lower, equal, higher", "p (Holm)"]
    lines = [
        [
            title, rival, _text(pair.difference), str(pair.difference.count),
            f"{pair.losses}, {pair.ties}, {pair.wins}", "-" if p is None else f"{p:.3g}",
        ]
        for title, values in compared.items()
        for rival, (pair, p) in pairs(values).items()
    ]  # fmt: skip
    return _markdown(head, lines)


def _mark(group: Sequence[Judged]) -> str:
    return "" if all(v.trainings for one in group for v in one.verdicts.values()) else BY_FIT


def _text(interval: Interval, digits: int = 2) -> str:
    half = "" if interval.half is None else f" ± {interval.half:.{digits}f}"
    return f"{interval.value:.{digits}f}{half}"


def _markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))

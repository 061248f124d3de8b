"""Comparing searches on a ground truth: known regrets, known ranks, paired over seeds."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from benchmarks.ground_truth.answers import Answer, SearchRow, SearchTable
from benchmarks.ground_truth.comparison import compare
from benchmarks.ground_truth.contests import against, mean_regret, pairs, regret_contests, regrets
from benchmarks.ground_truth.plan import ANSWER_SEEDS, FINAL_SEEDS, Training, Truth
from benchmarks.ground_truth.ranking import (
    EFFECTS,
    EVERYWHERE,
    EXCESS,
    HELD_OUT,
    OWN,
    WEIGHTS,
    additive,
    ranked_truth,
    search_taus,
)
from benchmarks.ground_truth.regret import Judge, Judged, Verdict, best_score, levelled
from benchmarks.ground_truth.table import Row, TruthTable
from benchmarks.ground_truth.training import Workshop, open_workshop
from quadnas.errors import DataError
from tests.benchmarks.truths import HEADER, SEVEN, SPACE, row, tiny_truth

NOISE = 0.001
DEVICE = "cortexA76"
WHOLE = 1.1
"""A share of the range that holds back nothing."""


def true_loss(a: int, b: int) -> float:
    """Of the network with candidates a and b: (2, 2) is the best."""
    return 1 - 0.1 * (a == 2) - 0.05 * (b == 2)


def known_truth(folder: Path) -> Truth:
    """The 49 networks of two slots, whose losses are known."""
    truth = tiny_truth(folder, limits=(WHOLE,), networks=49, finalists=3)
    Path(truth.space).write_text(SPACE.replace(SPACE.splitlines()[3], f"candidates: {SEVEN}"))
    return truth


def choosing_rows(workshop: Workshop) -> list[Row]:
    """Two noisy trainings of every network."""
    generator = np.random.default_rng(0)
    return [
        trained(workshop, choices, seed, generator.normal(0, NOISE))
        for choices in product(range(7), repeat=2)
        for seed in (0, 1)
    ]


def trained(workshop: Workshop, choices: Sequence[int], seed: int, more: float = 0.0) -> Row:
    """A training with the known loss and ``more``."""
    name = workshop.name(Training(tuple(choices), seed))
    loss = true_loss(*choices) + more
    latency_ms = {DEVICE: workshop.tables[DEVICE].of(choices)}
    return row(name, seed, accuracy=0.9 - loss / 10, loss=loss).model_copy(update={"latency_ms": latency_ms})


def final_rows(workshop: Workshop, trainings: Sequence[Training]) -> list[Row]:
    """Without noise of their own; a seed moves all of them alike, the later ones up."""
    return [trained(workshop, one.choices, one.seed, 0.01 * one.seed) for one in trainings]


def answer(workshop: Workshop, choices: tuple[int, ...]) -> Answer:
    """A choice without any limit."""
    name = workshop.name(Training(choices, 0))
    bound_ms = workshop.tables[DEVICE].of(choices)
    return Answer(
        device=DEVICE, share=WHOLE, limit_ms=1e6, architecture=name, bound_ms=bound_ms, seconds=2.0, path_steps=3.0
    )  # fmt: skip


# regret


def test_what_a_seed_adds_to_all_networks_is_taken_off() -> None:
    true = {"a": 1.0, "b": 3.0, "c": 7.0}
    scores = {
        name: {seed: value + 0.1 * seed for seed in (FINAL_SEEDS if name != "c" else ANSWER_SEEDS)}
        for name, value in true.items()
    }
    found = levelled(scores, ["a", "b"])
    common = 0.1 * np.mean(FINAL_SEEDS)
    assert found.keys() == true.keys()
    assert set(found["c"]) == set(ANSWER_SEEDS)
    for name, left in found.items():
        assert list(left.values()) == pytest.approx([true[name] + common] * len(left))
    begun = levelled(scores, ["a", "b", "c"])
    for name, value in true.items():
        assert begun[name] == pytest.approx(
            {seed: value + 0.1 * np.mean(ANSWER_SEEDS) for seed in ANSWER_SEEDS}
        )
    assert levelled(scores, ["a", "d"])["a"] == {}, "a finalist is not trained yet"


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_best_of_many_equal_networks_is_no_better_than_they_are(sign: float) -> None:
    generator = np.random.default_rng(0)
    worlds = generator.normal(0, 1, (60, 12, len(FINAL_SEEDS)))
    cursed = (sign * worlds.mean(2)).max(1).mean()
    assert cursed > 0.4, "the highest mean of twelve"
    found = [
        sign * best_score([dict(zip(FINAL_SEEDS, values, strict=True)) for values in world], sign)
        for world in worlds
    ]
    assert abs(np.mean(found)) < 0.1
    clear = [dict.fromkeys(FINAL_SEEDS, sign * value) for value in (1.0, 5.0, 3.0)]
    assert best_score(clear, sign) == sign * 5.0


def test_regret_is_measured_in_deviations_of_one_training(tmp_path: Path) -> None:
    workshop = open_workshop(known_truth(tmp_path))
    truth, space, tables = workshop.truth, workshop.space, workshop.tables
    rows = choosing_rows(workshop)
    by_fit = Judge(truth, space, tables, rows, "loss")
    assert by_fit.noise.deviation == pytest.approx(NOISE, rel=0.3)
    noise = by_fit.noise.deviation
    guessed = by_fit.judge(answer(workshop, (2, 0)))
    assert guessed.trainings == 0
    assert guessed.regret == pytest.approx(0.05 / noise, rel=0.2)

    finals = workshop.final(rows)
    assert (2, 2) in {training.choices for training in finals}
    first = [training for training in finals if training.seed == FINAL_SEEDS[0]]
    assert finals[: len(first)] == first, "seed by seed"
    for trained_seeds in (1, 2):
        done = [training for training in finals if training.seed in FINAL_SEEDS[:trained_seeds]]
        judge = Judge(truth, space, tables, rows + final_rows(workshop, done), "loss")
        assert judge.judge(answer(workshop, (2, 2))).best_trainings == (0 if trained_seeds == 1 else 2)
    rows += final_rows(workshop, finals)
    judge = Judge(truth, space, tables, rows, "loss")
    assert not judge.judge(answer(workshop, (2, 0))).trainings, "the choice is not trained yet"
    rows += final_rows(workshop, [Training((2, 0), seed) for seed in ANSWER_SEEDS])
    rows += final_rows(workshop, [Training((3, 4), seed) for seed in ANSWER_SEEDS[:2]])
    judge = Judge(truth, space, tables, rows, "loss")
    level = 0.01 * np.mean(FINAL_SEEDS)
    for choices, trainings in (((2, 2), 10), ((2, 0), 3), ((3, 4), 2)):
        found = judge.judge(answer(workshop, choices))
        assert found.trainings == trainings
        assert found.score == pytest.approx(true_loss(*choices) + level)
        assert found.regret == pytest.approx((true_loss(*choices) - true_loss(2, 2)) / noise, abs=1e-6)
    accuracies = Judge(truth, space, tables, rows, "accuracy")
    found = accuracies.judge(answer(workshop, (2, 0)))
    assert found.regret == pytest.approx(0.005 / accuracies.noise.deviation)
    tight = answer(workshop, (2, 0)).model_copy(update={"limit_ms": tables[DEVICE].of((2, 2)) * (1 - 1e-9)})
    assert judge.judge(tight).regret < 0.05 / noise - 1, "what is above the limit is no rival"


# ranking


def test_taus_are_those_of_scipy_everywhere_and_in_bands(tmp_path: Path) -> None:
    workshop = open_workshop(known_truth(tmp_path))
    generator = np.random.default_rng(1)
    planned = list(product(range(7), repeat=2))
    bands = np.repeat([10.0, 20.0, 40.0], [20, 15, 14])
    rows = [
        trained(workshop, choices, 0, generator.normal(0, 0.1)).model_copy(
            update={"latency_ms": {DEVICE: ms}}
        )
        for choices, ms in zip(planned, bands, strict=True)
    ]
    shuffled = [rows[i] for i in generator.permutation(49) if i != 7]  # one is not trained yet
    truth = ranked_truth(workshop.space, planned, shuffled, [(DEVICE, 1e6)])
    losses = generator.normal(0, 1, 49).tolist()
    scores = tuple(tuple(line) for line in generator.normal(0, 1, (2, 7)).tolist())
    search = SearchRow(
        strategy="swap", seed=0, seconds=1.0, path_steps=1.0, answers=(), scores=scores, losses=tuple(losses)
    )
    found = search_taus(truth, search)
    known = [i for i in range(49) if i != 7]
    predictions = {
        WEIGHTS: [-value for value in losses],
        OWN: [scores[0][a] + scores[1][b] for a, b in planned],
    }
    for by, predicted in predictions.items():
        labels = [-one.loss for one in rows]
        whole = kendalltau([predicted[i] for i in known], [labels[i] for i in known]).statistic
        assert found[by][EVERYWHERE] == pytest.approx(whole)
        agreeing = [
            np.sign(predicted[i] - predicted[j]) * np.sign(labels[i] - labels[j])
            for i in known
            for j in known
            if i < j and bands[i] == bands[j]
        ]
        assert found[by][DEVICE] == pytest.approx(np.mean(agreeing))
    assert set(found[OWN]) == {EVERYWHERE, DEVICE, EXCESS}
    assert additive([[1.0, 2.0], [10.0, 20.0]], np.array([[0, 1], [1, 0]])).tolist() == [21.0, 12.0]
    assert search_taus(truth, search.model_copy(update={"losses": ()})) == {}


def test_the_best_within_limits_are_looked_at(tmp_path: Path) -> None:
    """Losses 0, 1, 2, ..., those of even number within the first limit: ranked well, backwards, and by halves."""
    workshop = open_workshop(known_truth(tmp_path))
    planned = list(product(range(7), repeat=2))
    rows = [
        trained(workshop, choices, 0).model_copy(
            update={"loss": float(number), "latency_ms": {DEVICE: 1.0 + number % 2}}
        )
        for number, choices in enumerate(planned)
    ]
    truth = ranked_truth(workshop.space, planned, rows, [(DEVICE, 1.5), (DEVICE, 2.0)])
    numbers = np.arange(49.0)
    assert truth.excess(-numbers) == 0
    evens, every = np.mean([48, 46, 44, 42, 40]) - np.mean([0, 2, 4, 6, 8]), 46 - 2
    assert truth.excess(numbers) == pytest.approx((evens + every) / 2)
    assert truth.excess(-abs(numbers - 20)) == pytest.approx((20 - 4 + 20 - 2) / 2)
    assert truth.taus(-numbers)[EXCESS] == 0


# against each other


def test_rivals_are_paired_by_seed_and_one_without_seeds_stands_against_all() -> None:
    ours = {0: 1.0, 1: 2.0, 3: 4.0}
    assert against(ours, {3: 1.0, 1: 5.0, 2: 9.0}) == ([2.0, 4.0], [5.0, 1.0])
    assert against(ours, {0: 7.0}) == ([1.0, 2.0, 4.0], [7.0, 7.0, 7.0])
    found = pairs({"swap": ours, "random": {0: 2.0, 1: 4.0, 3: 7.0}, "largest": {0: 7.0}})
    pair, p = found["random"]
    assert pair.difference.value == -2.0
    assert (pair.losses, pair.wins) == (3, 0)
    assert pair.p is not None and p is not None
    assert p == pytest.approx(max(2 * min(pair.p, found["largest"][0].p or 1), pair.p))


def one_judged(
    seed: int, share: float, regret: float, name: str = "x", strategy: str = "proxyless"
) -> Judged:
    """An answer whose network has five trainings."""
    asked = Answer(
        device=DEVICE, share=share, limit_ms=1.0, architecture=name, bound_ms=1.0, seconds=0.0, path_steps=0.0
    )  # fmt: skip
    return Judged(strategy, seed, asked, 1.0, {"loss": Verdict(name, 0.5, regret, 5, 10)})


def test_a_seed_that_has_not_answered_everywhere_has_no_mean_yet() -> None:
    group = [one_judged(0, 0.25, 1.0), one_judged(0, 0.5, 3.0), one_judged(1, 0.25, 9.0)]
    assert regrets(group, "loss") == {0: 2.0}
    assert mean_regret(group, "loss").half is None


def test_regrets_are_compared_over_all_limits_and_under_each() -> None:
    group = [one_judged(0, 0.5, 1.0), one_judged(0, 0.75, 4.0), one_judged(0, 0.5, 3.0, strategy="random")]
    assert regret_contests(group, "loss") == {
        "mean regret (loss)": {"proxyless": {0: 2.5}, "random": {0: 3.0}},
        f"regret on {DEVICE} at 50% (loss)": {"proxyless": {0: 1.0}, "random": {0: 3.0}},
        f"regret on {DEVICE} at 75% (loss)": {"proxyless": {0: 4.0}},
    }


def test_an_interval_of_regret_is_as_wide_as_simulated_worlds_ask_for() -> None:
    """Searches that choose one of a few equal networks, whose means are of five trainings: regret is 0."""
    generator = np.random.default_rng(0)
    for networks in (1, 3, 40):
        covered, halves = 0, []
        for _ in range(400):
            means = generator.normal(0, 1 / np.sqrt(5), networks)
            best = generator.normal(0, 1 / np.sqrt(10))
            chosen = generator.integers(networks, size=5)
            group = [one_judged(seed, 0.5, best - means[i], str(i)) for seed, i in enumerate(chosen.tolist())]
            found = mean_regret(group, "loss")
            assert found.low is not None and found.high is not None
            covered += found.low <= 0 <= found.high
            halves.append(found.high - found.value)
        assert covered / 400 > 0.94, "never too narrow"
        needed = 1.96 * np.sqrt(1 / 10 + 1 / 5 / min(networks, 5))
        assert np.mean(halves) < 1.6 * needed


def test_what_knows_no_seed_has_the_interval_of_its_trainings() -> None:
    found = mean_regret([one_judged(0, 0.5, 3.0, strategy="largest")], "loss")
    assert found.value == 3.0
    assert found.half == pytest.approx(1.96 * np.sqrt(1 / 5 + 1 / 10))


def test_the_comparison_tells_the_known_regrets_and_ranks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = known_truth(tmp_path)
    workshop = open_workshop(truth)
    rows = choosing_rows(workshop)
    rows += final_rows(workshop, workshop.final(rows))
    rows += final_rows(workshop, [Training((2, 0), seed) for seed in ANSWER_SEEDS])
    table, searches = TruthTable(tmp_path / "table.jsonl", HEADER), SearchTable(tmp_path / "s.jsonl", HEADER)
    for one in rows:
        table.append(one)
    with pytest.raises(DataError, match="holds no searches"):
        compare(truth, tmp_path / "table.jsonl", tmp_path / "none.jsonl", None)
    architectures = workshop.architectures
    perfect = tuple(true_loss(*choices) for choices in architectures)
    for seed in (0, 1, 2):
        for strategy, chosen, losses in (
            ("swap", (2, 2), perfect),
            ("random", (2, 0), tuple(-loss for loss in perfect)),
            ("proxyless", (6, 6), ()),
        ):
            searches.append(
                SearchRow(
                    strategy=strategy, seed=seed, seconds=10.0 + seed, path_steps=100.0, losses=losses,
                    answers=(answer(workshop, chosen),),
                )
            )  # fmt: skip
    compare(truth, tmp_path / "table.jsonl", tmp_path / "s.jsonl", tmp_path / "picture.png")
    told = capsys.readouterr().out
    judge = Judge(truth, workshop.space, workshop.tables, rows, "loss")
    noise = judge.noise.deviation
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines()]
    limits = {line[0]: line for line in lines if len(line) == 9}
    assert limits["swap"][6:] == [f"0.00 ± {1.96 * (1 / 10 + 1 / 10) ** 0.5:.2f}"] * 2 + ["13"]
    assert limits["random"][7] == f"{0.05 / noise:.2f} ± {1.96 * (1 / len(ANSWER_SEEDS) + 1 / 10) ** 0.5:.2f}"
    assert limits["proxyless"][7].startswith("~"), "nobody has trained it yet"
    ranks = {line[0]: line for line in lines if len(line) == 7 and line[1] == WEIGHTS}
    assert float(ranks["swap"][2].split()[0]) == -float(ranks["random"][2].split()[0]) > 0.4
    (perfect_excess,) = (float(line[-1]) for line in lines if line[:1] == ["(ceiling)"])
    # of six equal networks the four lowest labels, on average 0.48 deviations below their mean, beside (2, 2)
    assert perfect_excess == pytest.approx(1e3 * NOISE * 0.48 * 4 / 5, abs=0.25)
    (difference,) = (line[2] for line in lines if line[:2] == ["tau", "random"])
    assert float(difference.split()[0]) == pytest.approx(2 * float(ranks["swap"][2].split()[0]), abs=0.01)
    (effects,) = (float(line[2]) for line in lines if line[:2] == ["(fit)", EFFECTS])
    assert effects > 0.4, "the truth is a sum"
    (held_out,) = (float(line[2]) for line in lines if line[:2] == ["(fit)", HELD_OUT])
    predicted = dict(zip(product(range(7), repeat=2), judge.fit.held_out, strict=True))
    measured = [
        next(one.loss for one in rows if one.architecture == name and one.seed == 0)
        for name in map(str, map(workshop.space.architecture, predicted))
    ]
    assert held_out == pytest.approx(kendalltau(list(predicted.values()), measured).statistic, abs=1e-3)
    assert ["mean regret (loss)", "random", f"{-0.05 / noise:.2f} ± 0.00", "3", "3, 0, 0", "0.5"] in lines
    assert (tmp_path / "picture.png").stat().st_size > 10_000

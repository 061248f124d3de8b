"""The ground truth's plan, table, trainings and fit, against brute force and known effects."""

import json
import multiprocessing
import re
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ground_truth.analysis import agreement, ceiling, likely_truth, quality, seed_noise
from benchmarks.ground_truth.fit import (
    Labels,
    best_within,
    finalists,
    fit,
    fit_with,
    labels_of,
    latencies,
    limit_within,
    similarity,
    whole_space,
)
from benchmarks.ground_truth.plan import (
    ANSWER_SEEDS,
    FINAL_SEEDS,
    Training,
    network_of,
    plan,
    relative_costs,
    stratified,
)
from benchmarks.ground_truth.report import report
from benchmarks.ground_truth.sharing import Job, in_processes, work_off
from benchmarks.ground_truth.table import Row, TruthTable
from benchmarks.ground_truth.training import open_workshop, work
from quadnas.compare.statistics import Noise
from quadnas.errors import ConfigError, DataError, MachineError
from quadnas.latency.table import CostTable
from quadnas.space.search_space import SearchSpace
from tests.benchmarks.truths import HEADER, SEVEN, SPACE, row, tiny_truth
from tests.toy import toy_space

# the plan


def test_a_stratified_sample_covers_the_whole_range_evenly() -> None:
    generator = np.random.default_rng(0)
    costs = [row * 1.0 for row in generator.random((8, 7))]
    costs = [row - row.min() for row in costs]
    total = sum(float(row.max()) for row in costs)
    costs = [row / total for row in costs]
    chosen = stratified(costs, 60)
    prices = np.array([sum(costs[s][i] for s, i in enumerate(choices)) for choices in chosen])
    assert len(set(chosen)) == 60
    middle = (np.arange(60) + 0.5) / 60
    assert abs(prices - middle).max() < 0.03
    uniform = np.array([sum(generator.choice(row) for row in costs) for _ in range(60)])
    assert np.ptp(prices) > 1.3 * np.ptp(uniform), "a uniform sample bunches"


def test_relative_costs_average_the_devices_each_over_its_own_range() -> None:
    tables = [CostTable(5.0, ((0.0, 1.0), (0.0, 3.0))), CostTable(1.0, ((10.0, 70.0), (20.0, 60.0)))]
    costs = relative_costs(tables)
    assert np.allclose(costs[0], [0, (1 / 4 + 60 / 100) / 2])
    assert np.allclose(costs[1], [0, (3 / 4 + 40 / 100) / 2])
    assert sum(row.max() for row in costs) == pytest.approx(1)


def test_every_beginning_of_the_plan_is_of_use(tmp_path: Path) -> None:
    truth = tiny_truth(tmp_path, networks=60, repeated=5, seeds=4)
    trainings = list(plan(truth, [(number,) for number in range(60)]))
    assert len(trainings) == len(set(trainings)) == 60 + 5 * 3
    assert {t.choices for t in trainings if t.seed == 0} == {(number,) for number in range(60)}
    first = trainings[:15]
    singles = sorted(t.choices[0] for t in first if t.seed == 0)
    assert len(singles) == 12
    assert max(np.diff(singles)) == 5, "the first block spans the range of costs"
    again = {t.choices[0] for t in trainings if t.seed}
    assert len(again) == 5
    assert len({number // 12 for number in again}) >= 3, "repeated networks are of several sizes"


# the table


def test_a_table_of_other_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    TruthTable(path, HEADER).append(row("a"))
    assert [r.architecture for r in TruthTable(path, HEADER).rows()] == ["a"]
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="epochs differ"):
        TruthTable(path, {**HEADER, "epochs": 2})
    with pytest.raises(ConfigError, match="rate differ"):
        TruthTable(path, {**HEADER, "rate": 0.1})
    assert path.read_bytes() == before


def test_a_torn_line_is_dropped_and_a_damaged_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    table = TruthTable(path, HEADER)
    table.append(row("a"))
    with path.open("ab") as file:
        file.write(b'{"architecture": "b", "se')
    assert [r.architecture for r in table.rows()] == ["a"]
    table.append(row("c"))
    assert [r.architecture for r in table.rows()] == ["a", "c"]
    path.write_text(path.read_text().replace('"seed"', '"sead"'))
    with pytest.raises(DataError, match="none of its trainings"):
        table.rows()


def _claim(path: str, free: "multiprocessing.Queue[bool]") -> None:
    with TruthTable(Path(path), HEADER).claimed("a", 0) as mine:
        free.put(mine)


def test_a_training_is_claimed_by_one_process_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path, free = tmp_path / "table.jsonl", context.Queue()

    def other_gets_it() -> bool:
        process = context.Process(target=_claim, args=(str(path), free))
        process.start()
        process.join()
        return bool(free.get())

    table = TruthTable(path, HEADER)
    with table.claimed("a", 0) as mine:
        assert mine
        assert not other_gets_it()
        with table.claimed("a", 1) as another:
            assert another
    assert other_gets_it()


def test_what_another_process_has_done_meanwhile_is_not_done_again(tmp_path: Path) -> None:
    table, asked = TruthTable(tmp_path / "table.jsonl", HEADER), []

    def missing(rows: Sequence[Row]) -> list[Job[Row]]:
        done = {one.architecture for one in rows}
        if not rows:
            table.append(row("a"))  # it ends after the rows were read
        return [(("a", 0), lambda: work_on("a")), (("b", 0), lambda: work_on("b"))] if "b" not in done else []

    def work_on(name: str) -> Row:
        asked.append(name)
        return row(name)

    work_off(table, missing)
    assert asked == ["b"]
    assert [one.architecture for one in table.rows()] == ["a", "b"]


def test_a_process_that_fails_is_told() -> None:
    with pytest.raises(MachineError, match=r"2 of 2 processes failed [(]exit code 3, 3[)]"):
        in_processes(sys.exit, (3,), 2)


# the trainings


def test_the_same_training_gives_the_same_numbers_and_another_seed_others(tmp_path: Path) -> None:
    workshop = open_workshop(tiny_truth(tmp_path))
    one, same, other = (workshop.train(Training((0, 1), seed), clock=lambda: 0.0) for seed in (3, 3, 4))
    assert one == same
    assert one.loss != other.loss
    assert one.architecture == "quadra-k3-e2,identity"
    assert one.macs > 0 and one.latency_ms["cortexA76"] > 0


def test_where_an_identity_stands_changes_no_number_and_is_not_trained_again(tmp_path: Path) -> None:
    workshop = open_workshop(tiny_truth(tmp_path))
    early, late = (workshop.train(Training(choices, 3), clock=lambda: 0.0) for choices in ((1, 0), (0, 1)))
    assert early == late.model_copy(update={"architecture": early.architecture})
    assert late.architecture != early.architecture
    networks = {network_of(workshop.space, one) for one in ("identity,quadra-k3-e2", (0, 1), (1, 0))}
    assert len(networks) == 1
    assert network_of(workshop.space, (0, 0)) not in networks

    rows = [row(workshop.name(one), one.seed) for one in workshop.planned([])]
    assert workshop.planned(rows) == []
    names = [early.architecture, late.architecture]
    wanted = workshop.final(rows, names)
    both = [one.seed for one in wanted if network_of(workshop.space, one.choices) in networks]
    assert both == sorted(set(both))
    assert set(both) >= set(ANSWER_SEEDS)
    done = [row(late.architecture, both[0])]
    assert workshop.final(rows + done, names) == [
        one
        for one in wanted
        if one.seed != both[0] or network_of(workshop.space, one.choices) not in networks
    ]


def test_a_killed_run_goes_on_and_trains_nothing_twice(tmp_path: Path) -> None:
    truth, path, searches = tiny_truth(tmp_path), tmp_path / "table.jsonl", tmp_path / "none.jsonl"

    class KilledError(Exception):
        pass

    def kill(_: Row) -> None:
        if len(TruthTable(path).rows()) == 3:
            raise KilledError

    with pytest.raises(KilledError):
        work(truth, path, searches, observe=kill)
    begun = path.read_bytes()
    work(truth, path, searches)
    assert path.read_bytes().startswith(begun)
    rows = TruthTable(path).rows()
    pairs = [(r.architecture, r.seed) for r in rows]
    assert len(pairs) == len(set(pairs))
    assert sorted(seed for _, seed in pairs) == [0] * 4 + [1] * 2 + list(FINAL_SEEDS)
    assert len({name for name, _ in pairs}) == 4
    whole = tmp_path / "whole.jsonl"
    work(truth, whole, searches)
    assert [r.model_copy(update={"seconds": 0.0}) for r in TruthTable(whole).rows()] == [
        r.model_copy(update={"seconds": 0.0}) for r in rows
    ]
    work(truth, path, searches)
    assert len(TruthTable(path).rows()) == len(rows), "nothing is left to do"
    with pytest.raises(ConfigError, match="epochs differ"):
        work(truth.model_copy(update={"epochs": 2}), path, searches)
    assert json.loads(begun.splitlines()[0])["recipe"]["batch_size"] == 32


# the fit


def toy_truth(space: SearchSpace, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Effects of slots and pairs that are known: the score of every architecture, an axis per slot."""
    generator = np.random.default_rng(seed)
    kernels = [similarity(slot) for slot in space.slots]
    sizes = [len(kernel) for kernel in kernels]
    mains = [generator.multivariate_normal(np.zeros(len(k)), k) for k in kernels]
    scores = np.zeros(sizes)
    for choices in product(*map(range, sizes)):
        scores[choices] = sum(main[i] for main, i in zip(mains, choices, strict=True))
        scores[choices] += 0.5 * (choices[0] == 6) * (choices[1] == 6)
    return scores


def sampled(scores: np.ndarray[tuple[int, ...], np.dtype[np.float64]], count: int, noise: float) -> Labels:
    """Noisy scores of some architectures."""
    generator = np.random.default_rng(1)
    places = generator.choice(scores.size, size=count, replace=False)
    choices = np.stack(np.unravel_index(places, scores.shape), axis=1)
    labels = scores.ravel()[places] + generator.normal(0, noise, count)
    return Labels(choices, labels, np.ones(count))


def test_similar_candidates_agree_by_rank_and_other_families_do_not() -> None:
    kernel = similarity(toy_space((8,), (1,), SEVEN).slots[0])
    assert kernel.shape == (7, 7)
    assert np.allclose(np.diag(kernel), 1)
    assert kernel[0, 2] == pytest.approx((1 + 0.5 + 1 + 0) / 4), "k3 e2 and k5 e2"
    assert kernel[0, 5] == pytest.approx(1 / 4), "k3 e2 and k7 e4"
    assert (kernel[6, :6] == 0).all()
    assert np.linalg.eigvalsh(kernel).min() > 0.1, "any effects can be fitted"


def test_a_fit_is_kernel_ridge_regression_and_its_tables_add_up() -> None:
    space = toy_space((8, 16), (1, 2), SEVEN)
    labels = sampled(toy_truth(space), 40, 0.1)
    labels = Labels(labels.choices, labels.scores, np.where(np.arange(40) < 5, 4.0, 1.0))
    kernels = [similarity(slot) for slot in space.slots]

    def covariance(a: np.ndarray, b: np.ndarray) -> float:
        k = [kernel[i, j] for kernel, i, j in zip(kernels, a, b, strict=True)]
        return float(np.mean(k) + 0.2 * np.mean([k[0] * k[1], k[0] * k[2], k[1] * k[2]]))

    gram = np.array([[covariance(a, b) for b in labels.choices] for a in labels.choices])
    mean = np.average(labels.scores, weights=labels.counts)
    dual = np.linalg.solve(gram + np.diag(0.05 / labels.counts), labels.scores - mean)
    model = fit_with(kernels, labels, 0.2, 0.05)
    new = np.array([[0, 6, 3], [5, 1, 1]])
    expected = mean + np.array([[covariance(a, b) for b in labels.choices] for a in new]) @ dual
    assert np.allclose(model.of(new), expected)
    everywhere = whole_space(model)
    assert everywhere[0, 6, 3] == pytest.approx(expected[0])
    for s, effect in enumerate(model.effects()):
        others = tuple(axis for axis in range(3) if axis != s)
        assert np.allclose(effect, everywhere.mean(axis=others) - everywhere.mean())


def test_known_effects_are_found_and_held_out_networks_predicted() -> None:
    space = toy_space((8, 16), (2, 2), SEVEN)
    scores = toy_truth(space)
    labels = sampled(scores, 150, 0.1)
    found = fit(space, labels)
    explained = quality(found, labels)
    assert explained.r2 > 0.9
    assert explained.tau.value > 0.75
    true = scores.mean(axis=(1, 2, 3)) - scores.mean()
    assert np.corrcoef(found.model.effects()[0], true)[0, 1] > 0.95
    assert found.pair_share > 0
    moved = Labels(labels.choices, labels.scores + 3.0 * (np.arange(150) == 7), labels.counts)
    again = fit(space, moved).held_out
    assert again[7] == pytest.approx(found.held_out[7]), "a held-out label is not seen"
    assert abs(again - found.held_out).max() > 0.01, "other folds see it"


def test_the_best_within_a_limit_are_those_of_brute_force() -> None:
    generator = np.random.default_rng(0)
    table = CostTable(2.0, tuple(tuple(generator.random(4)) for _ in range(3)))
    scores, costs_ms = generator.random((4, 4, 4)), latencies(table)
    everything = list(product(range(4), repeat=3))
    assert all(costs_ms[choices] == pytest.approx(table.of(choices)) for choices in everything)
    low, high = table.range
    limit_ms = low + 0.3 * (high - low)
    allowed = sorted((c for c in everything if table.of(c) <= limit_ms), key=lambda c: -scores[c])
    assert 5 < len(allowed) < 64
    assert best_within(scores, costs_ms, limit_ms, 5) == allowed[:5]
    assert best_within(scores, costs_ms, low + 1e-9, 5) == [min(everything, key=table.of)]


def test_finalists_lead_under_their_limits(tmp_path: Path) -> None:
    truth = tiny_truth(tmp_path, devices=("toy",), limits=(0.2, 1.0), finalists=2)
    space = toy_space((8,), (2,), SEVEN)
    table = CostTable(1.0, (tuple(float(i) for i in (1, 2, 3, 4, 5, 6, 0)),) * 2)
    rows = [
        row(str(space.architecture((a, b))), loss=2.0 - 0.1 * (a != 6) * (a + 1) - 0.1 * (b != 6) * (b + 1))
        for a, b in product(range(7), repeat=2)
    ]
    assert limit_within(table, 0.2) == pytest.approx(3.4)
    chosen = finalists(truth, space, {"toy": table}, rows)
    assert chosen[1] == (5, 5), "k7 e4 twice leads without a limit"
    assert table.of(chosen[0]) <= 3.4
    assert len(chosen) == 4
    own = [row(str(space.architecture(choices)), FINAL_SEEDS[0], loss=9.0) for choices in chosen]
    assert finalists(truth, space, {"toy": table}, [*rows, *own]) == chosen
    assert (
        len(labels_of(space, [*rows, rows[0].model_copy(update={"loss": 0.0, "seed": 1})], "loss").scores)
        == 49
    )


# noise and ceiling


def test_the_ceiling_is_what_noise_leaves() -> None:
    truth = np.linspace(0, 1, 60)
    assert ceiling(truth, Noise(1e-9, 10)).tau == pytest.approx(1)
    assert abs(ceiling(truth, Noise(1e3, 10)).tau) < 0.05
    clear, blurred = ceiling(truth, Noise(0.05, 10)), ceiling(truth, Noise(0.2, 10))
    assert 0.6 < blurred.tau < clear.tau < 1
    banded = ceiling(truth, Noise(0.2, 10), (1 + truth).tolist())
    assert banded.tau < blurred.tau - 0.2, "networks of equal cost are closer to each other here"
    assert banded.pairs < blurred.pairs == 60 * 59 // 2


def test_normal_truth_and_noise_have_the_ceiling_of_the_arcsine_law() -> None:
    generator = np.random.default_rng(0)
    found = ceiling(generator.normal(0, 1, 500), Noise(0.75, 10))
    assert found.tau == pytest.approx(2 / np.pi * np.arcsin(1 / np.sqrt(1 + 0.75**2)), abs=0.03)


def test_what_a_seed_adds_to_all_networks_is_no_noise_between_them() -> None:
    generator = np.random.default_rng(0)
    scores = (
        generator.normal(0, 3, (400, 1)) + generator.normal(0, 0.5, 40) + generator.normal(0, 0.2, (400, 40))
    )
    found = seed_noise({str(number): values for number, values in enumerate(scores.tolist())}, 40)
    assert found is not None
    assert found.own.deviation == pytest.approx(0.2, rel=0.03)
    assert found.seeds == pytest.approx(0.5, rel=0.3)
    assert found.own.freedom == 399 * 39
    by_hand = seed_noise({"a": [0.0, 1.0], "b": [0.0, 2.0], "c": [9.0]}, 2)
    assert by_hand is not None
    assert by_hand.own.deviation == pytest.approx(0.5), "residuals of 1/4 four times, one degree of freedom"
    assert seed_noise({"a": [0.0, 1.0]}, 2) is None


def test_agreement_compares_every_two_seeds() -> None:
    groups = {"a": [1.0, 2.0], "b": [2.0, 3.0], "c": [3.0, 1.0], "d": [9.0]}
    tau, networks = agreement(groups, 2)
    assert tau == pytest.approx(-1 / 3)
    assert networks == 3
    assert np.isnan(agreement(groups, 3)[0])


def test_the_likely_truth_has_the_variance_of_the_true_one() -> None:
    space = toy_space((8, 16), (2, 2), SEVEN)
    scores = toy_truth(space)
    scores = scores + np.random.default_rng(3).normal(0, 0.15, scores.shape)  # what no pair explains
    labels = sampled(scores, 200, 0.2)
    true = likely_truth(fit(space, labels), labels, Noise(0.2, 80))
    wanted = scores[tuple(labels.choices.T)].std()
    assert true.std() == pytest.approx(wanted, rel=0.1)


def test_the_report_tells_noise_effects_and_the_best_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = tiny_truth(tmp_path, limits=(1.0,))
    Path(truth.space).write_text(SPACE.replace(SPACE.splitlines()[3], f"candidates: {SEVEN}"))
    workshop, path, generator = open_workshop(truth), tmp_path / "table.jsonl", np.random.default_rng(0)
    table = TruthTable(path, HEADER)
    for a, b in product(range(7), repeat=2):
        name = workshop.name(Training((a, b), 0))
        latency_ms = {"cortexA76": workshop.tables["cortexA76"].of((a, b))}
        for seed in (0, 1, FINAL_SEEDS[0]):
            loss = 1 - 0.1 * (a == 2) - 0.05 * (b == 2) + generator.normal(0, 0.001)
            one = row(name, seed, accuracy=0.9 - loss / 10, loss=loss)
            table.append(one.model_copy(update={"latency_ms": latency_ms}))
    report(truth, path, tmp_path / "picture.png")
    told = capsys.readouterr().out
    assert "147 trainings" in told
    assert "loss, in nats of cross-entropy: 49 networks" in told
    noise = float(re.findall("noise of one training: (\\S+) \\(48 degrees", told)[1])
    assert noise == pytest.approx(0.001, rel=0.4)
    effects = [line.split() for line in told.splitlines() if re.match(" +[12] +1 ", line)]
    assert [min(range(7), key=lambda i: float(line[2:][i])) for line in effects] == [2, 2]
    best = told.split("of the range)")[1].splitlines()[1]
    assert "k5-e2,k5-e2" in best and "81.50 % over 1" in best
    assert (tmp_path / "picture.png").stat().st_size > 10_000
    with pytest.raises(DataError, match="too few networks"):
        report(truth, _shortened(path), None)


def _shortened(path: Path) -> Path:
    short = path.with_name("short.jsonl")
    short.write_text("".join(path.read_text().splitlines(keepends=True)[:10]))
    return short

"""Selection of terms on networks whose true kernel times are known."""

from collections.abc import Sequence

import numpy as np

from quadnas.calibrate.measured import MeasuredNetwork
from quadnas.calibrate.selection import select_terms
from quadnas.config import validated
from quadnas.latency.backends.additive import operator_ms
from quadnas.latency.card import DeviceFacts
from quadnas.latency.kernels import Kernel
from quadnas.latency.terms.general import Shapes
from quadnas.testing.toy_device import facts

CANDIDATES = {
    "conv": ["macs", "macs_odd_cin", "weights", "input", "output", "calls", "rows"],
    "add": ["elements", "rows", "calls"],
}
TRUTH = {"conv": {"macs": 2e-6, "output": 1e-3}, "add": {"elements": 1e-3}}


def toy_facts(**changes: object) -> DeviceFacts:
    terms = {op: names[:1] for op, names in CANDIDATES.items()}
    return validated({**facts(), "terms": terms, "candidates": CANDIDATES, **changes}, DeviceFacts, "toy")


def network(
    number: int, family: str, kernels: Sequence[Kernel], truth: dict[str, dict[str, float]], error: float
) -> MeasuredNetwork:
    total_ms = 0.0
    for kernel in kernels:
        own = toy_facts(terms={kernel.op: list(truth[kernel.op])}, candidates={})
        coefficients = np.array(list(truth[kernel.op].values()))
        total_ms += float(operator_ms(own, kernel.op, Shapes.of([kernel]), coefficients)[0])
    return MeasuredNetwork(str(number), family, tuple(kernels), total_ms * (1 + error))


def draw_networks(count: int, noise: float, seed: int = 0) -> list[MeasuredNetwork]:
    """Networks of four families, each with its own range of sizes."""
    draw = np.random.default_rng(seed)
    found = []
    for number in range(count):
        low = 8 + 12 * (number % 4)
        kernels = []
        for _ in range(int(draw.integers(3, 8))):
            side, cin, cout = (int(draw.integers(low, low + 24)) for _ in range(3))
            kernels.append(Kernel("conv", side, side, (cin,), cout, int(draw.choice((1, 3))), batch=2))
            if draw.random() < 0.5:
                kernels.append(Kernel("add", side, side, (cin, cin), cin, batch=2))
        found.append(network(number, f"f{number % 4}", kernels, TRUTH, noise * draw.standard_normal()))
    return found


def test_the_terms_that_the_times_were_made_of_are_found() -> None:
    assert select_terms(toy_facts(), draw_networks(240, noise=0.01)) == {
        "conv": ("macs", "output"),
        "add": ("elements",),
    }


def test_the_held_out_networks_are_not_looked_at() -> None:
    """With what was held out eight times slower, or gone, the choice is the same."""
    networks = draw_networks(160, noise=0.05)
    slower = [
        MeasuredNetwork(n.id, n.family, n.kernels, n.latency_ms * (8 if n.held_out else 1)) for n in networks
    ]
    training = [n for n in networks if not n.held_out]
    assert 0 < len(training) < len(networks)
    chosen = select_terms(toy_facts(), networks)
    assert select_terms(toy_facts(), slower) == chosen == select_terms(toy_facts(), training)


def test_a_term_that_only_fits_one_family_better_is_left_out() -> None:
    """Within each family h = 14 or 28 never varies, so ``rows`` and ``calls`` of an add are the same; only the
    families left out tell that the time goes by elements."""
    draw = np.random.default_rng(1)
    networks = []
    for number in range(160):
        side = (7, 14, 21, 28)[number % 4]
        channels = [int(c) for c in draw.integers(8, 64, size=6)]
        kernels = [Kernel("add", side, side, (c, c), c, batch=2) for c in channels]
        networks.append(network(number, f"side{side}", kernels, TRUTH, 0.02 * draw.standard_normal()))
    found = select_terms(
        toy_facts(terms={"add": ["elements"]}, candidates={"add": CANDIDATES["add"]}), networks
    )
    assert found == {"add": ("elements",)}


def test_the_first_candidate_always_stays_and_an_unmeasured_operator_keeps_all() -> None:
    candidates = {"conv": ["rows", "macs", "output"], "add": ["rows", "elements"], "fc": ["weights", "cout"]}
    terms = {op: names[:1] for op, names in candidates.items()}
    found = select_terms(toy_facts(terms=terms, candidates=candidates), draw_networks(160, noise=0.01))
    assert found["conv"][0] == "rows" and {"macs", "output"} <= set(found["conv"])
    assert found["add"] == ("rows", "elements") and found["fc"] == ("weights", "cout")


def test_without_candidates_the_terms_are_pruned() -> None:
    pruned = select_terms(toy_facts(terms=CANDIDATES, candidates={}), draw_networks(240, noise=0.01))
    assert pruned == {"conv": ("macs", "output"), "add": ("elements",)}


def test_few_families_are_judged_by_folds_alone() -> None:
    """One family or two make no difference, four do not choose more."""
    networks = draw_networks(160, noise=0.01)
    by_families = [
        select_terms(
            toy_facts(),
            [MeasuredNetwork(n.id, f"f{int(n.id) % families}", n.kernels, n.latency_ms) for n in networks],
        )
        for families in (1, 2)
    ]
    assert by_families[0] == by_families[1]
    assert {"macs", "output"} <= set(by_families[0]["conv"]) < set(CANDIDATES["conv"])


def test_of_terms_that_explain_the_same_the_last_is_chosen() -> None:
    """An add behind every convolution, as large as its output: in whatever order their sums are rounded."""
    draw = np.random.default_rng(2)
    truth = {"conv": {"macs": 2e-6, "output": 1e-3}, "add": {"calls": 1e-2}}
    networks = []
    for number in range(160):
        kernels = []
        for side, cin, cout in draw.integers(8, 48, size=(int(draw.integers(3, 8)), 3)).tolist():
            kernels += [
                Kernel("conv", side, side, (cin,), cout, 1, batch=2),
                Kernel("add", side, side, (cout, cout), cout, batch=2),
            ]
        networks.append(network(number, f"f{number % 4}", kernels, truth, 0.01 * draw.standard_normal()))
    terms = {"conv": ["macs"], "add": ["calls"]}
    candidates = {"conv": ["macs", "output"], "add": ["calls", "elements"]}
    facts_of = toy_facts(terms=terms, candidates=candidates)
    for seed in range(6):
        shuffled = [networks[i] for i in np.random.default_rng(seed).permutation(len(networks))]
        assert select_terms(facts_of, shuffled) == {"conv": ("macs", "output"), "add": ("calls",)}

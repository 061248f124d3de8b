"""Arms held against each other seed by seed: a table of paired differences."""

from collections.abc import Iterable, Mapping, Sequence

from quadnas.compare.statistics import Paired, holm, paired
from quadnas.compare.table import Column, Row, Table, Value

CONFIDENCE = 0.95
Samples = Mapping[str, Mapping[int, float]]
"""Arm -> seed -> what was measured with it."""


def pair_name(ours: str, theirs: str) -> str:
    """What a row that holds ``ours`` against ``theirs`` is called."""
    return f"{ours} minus {theirs}"


def paired_table(samples: Samples, pairs: Iterable[tuple[str, str]]) -> Table | None:
    """Differences of fractions over the seeds that both arms of a pair have; None if none has any."""
    found: dict[str, Paired] = {}
    for ours, theirs in pairs:
        mine, others = samples.get(ours, {}), samples.get(theirs, {})
        if shared := sorted(mine.keys() & others.keys()):
            values = [mine[seed] for seed in shared], [others[seed] for seed in shared]
            found[pair_name(ours, theirs)] = paired(*values, CONFIDENCE)
    if not found:
        return None
    tested = {name: pair.p for name, pair in found.items() if pair.p is not None}
    raised = dict(zip(tested, holm(list(tested.values())), strict=True))
    rows = tuple(Row(name, _values(pair, raised.get(name))) for name, pair in found.items())
    return Table(_COLUMNS, rows, _notes(list(found.values())), "Paired differences", "pair")


_COLUMNS = (
    Column("difference", "difference, points", 2, 100),
    Column("low", "95 % from", 2, 100),
    Column("high", "to", 2, 100),
    Column("seeds", "seeds", 0),
    Column("wins", "wins/ties/losses"),
    Column("p_t", "p, t", 3),
    Column("p_exact", "p, exact", 3),
    Column("p_holm", "p, Holm", 3),
    Column("verdict", "verdict"),
)


def _values(pair: Paired, raised: float | None) -> dict[str, Value]:
    difference = pair.difference
    return {
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "seeds": difference.count,
        "wins": f"{pair.wins}/{pair.ties}/{pair.losses}",
        "p_t": pair.p_t,
        "p_exact": None if difference.count < 2 else pair.p_exact,
        "p_holm": raised,
        "verdict": _verdict(pair, raised),
    }


def _verdict(pair: Paired, raised: float | None) -> str:
    if raised is None:
        return "one seed: no statement"
    if raised > 1 - CONFIDENCE:
        return "not told apart"
    side = "better" if pair.difference.value > 0 else "worse"
    return side if pair.p_exact <= 1 - CONFIDENCE else f"{side}, if normal"


def _notes(pairs: Sequence[Paired]) -> tuple[str, ...]:
    most = max(pair.difference.count for pair in pairs)
    if most == 1:
        return ("One seed tells nothing of the noise: give more seeds before calling a difference one.",)
    notes = [
        "Differences are taken seed by seed; intervals and p by Student's paired t. The exact p assumes symmetry "
        "alone. Verdicts are by Holm's p, which counts all pairs of this table."
    ]
    if 2 / 2**most > 1 - CONFIDENCE:
        notes.append(
            f"With {most} seeds the exact p cannot fall below {2 / 2**most:.3g}: a verdict then rests on normal "
            "differences, and says so; 6 seeds let it do without."
        )
    return tuple(notes)

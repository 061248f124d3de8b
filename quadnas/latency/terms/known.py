"""All terms that a card may name: the general ones and those of every kind of hardware."""

from quadnas.latency.terms import general, nce, tiles, vectors, workgroups
from quadnas.latency.terms.general import Term

KNOWN_TERMS: dict[str, dict[str, Term]] = {
    op: {
        name: term
        for of in (general, tiles, workgroups, nce, vectors)
        for name, term in of.TERMS.get(op, {}).items()
    }
    for op in general.TERMS
}
"""By operator, then by name."""

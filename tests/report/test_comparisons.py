"""Networks that were compared before one was chosen: a journal made by hand."""

from typing import Any

import pytest

from quadnas.report.comparisons import SHOWN, compared_networks, comparison_sentence, comparison_table
from quadnas.report.page import render_page

from .example import device_card, search_result, search_settings
from .test_page import Page

CHOSEN = "quadra-k7-e4,quadra-k3-e2,identity|quadra-k5-e2,quadra-k5-e2"
CHEAP = "quadra-k7-e4,identity,identity|quadra-k5-e2,quadra-k3-e2"
OTHER = "quadra-k7-e4,quadra-k3-e2,quadra-k3-e2|quadra-k5-e2,quadra-k5-e2"


def compared(architecture: str, loss: float) -> dict[str, Any]:
    return {"event": "Compared", "architecture": architecture, "loss": loss}


DERIVED = {"event": "Derived", "architecture": CHOSEN}


def test_the_winner_and_its_rivals_by_loss() -> None:
    """Of a front the last choice counts; what was compared before a stop stands there once."""
    events = [
        compared(OTHER, 0.1), DERIVED, compared(CHEAP, 0.8),
        compared(CHEAP, 0.75), compared(CHOSEN, 0.5), compared(OTHER, 0.625), DERIVED, compared(CHEAP, 9.0),
    ]  # fmt: skip
    best, second, last = compared_networks(search_result(), events)
    assert (best.architecture, best.loss, best.chosen, best.differences) == (CHOSEN, 0.5, True, ())
    assert (second.loss, second.differences) == (0.625, (("1.3", "quadra k3 e2"),))
    assert (last.loss, last.chosen) == (0.75, False)
    assert last.differences == (("1.2", "identity"), ("2.2", "quadra k3 e2"))
    # 32.5 ms; k3 e2 in the empty slot takes 4; without one, and 4 in place of 5, it is 5 less
    assert [one.latency_ms for one in (best, second, last)] == pytest.approx([32.5, 36.5, 27.5])
    assert comparison_sentence([best, second, last]) == (
        "3 networks were compared by their loss on held-out images with the supernet's weights. That of the "
        "chosen one, 0.5, is the lowest; the best other one has 0.625 at about 36.50 ms, with quadra k3 e2 in 1.3."
    )
    assert "quadra k3 e2 in 1.3 and" not in comparison_sentence([best, second])
    assert comparison_sentence([best, last]).endswith("with identity in 1.2 and 1 more.")


def test_without_comparisons_nothing_is_said() -> None:
    assert compared_networks(search_result(), [DERIVED]) == compared_networks(search_result(), []) == ()
    assert (comparison_sentence(()), comparison_table(())) == ("", [])
    only = compared_networks(search_result(), [compared(CHOSEN, 0.5), DERIVED])
    assert comparison_sentence(only) == "One network was compared, the chosen one: its loss is 0.5."
    without = compared_networks(search_result(), [compared(CHEAP, 0.5), compared(OTHER, 0.6), DERIVED])
    assert comparison_sentence(without).endswith("; the chosen one is none of them.")


def test_the_page_shows_the_best_and_the_chosen_one() -> None:
    rows = search_result().slots[0].labels
    many = [compared(f"{label},{other},identity|quadra-k5-e2,quadra-k5-e2", 0.1 + i / 100)
            for i, (label, other) in enumerate((a, b) for a in rows for b in rows[:2])]  # fmt: skip
    lost = [event | {"loss": 0.9} if event["architecture"] == CHOSEN else event for event in many]
    table = comparison_table(compared_networks(search_result(), [*lost, DERIVED]))
    assert len(table) == SHOWN + 1
    assert table[-1] == ("0.9000", "32.5", "chosen")
    text = Page(render_page(search_settings(), search_result(), [*lost, DERIVED], device_card())).text
    assert "is number 14 from below" in text
    assert all(" ".join(row) in text for row in table)

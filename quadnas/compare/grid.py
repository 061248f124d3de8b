"""The arms of a grid: every choice along one axis with every choice along the others."""

from collections.abc import Mapping
from functools import reduce
from itertools import product
from typing import Any

from quadnas.config import overlaid


def with_grid_arms(data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an experiment with an arm, under ``arms``, for every crossing of its ``grid``.

    ``grid`` is a sequence of axes, each a mapping from names to the settings that they stand for; an arm is named
    by its choices (``ours-cpu``), the first axis changes fastest, and an arm is held ``against`` those that differ
    from it in an earlier choice of the first axis alone. What ``arms`` lists itself is laid over its namesake, or
    added. A grid of another form is left for the validation to refuse.
    """
    axes, listed = data.get("grid", ()), data.get("arms", {})
    if not axes or not isinstance(listed, dict) or not _is_grid(axes):
        return dict(data)
    arms: dict[str, Any] = {}
    for reversed_names in product(*reversed(axes)):
        first, *rest = reversed_names[::-1]
        chosen = [axis[name] for axis, name in zip(axes, (first, *rest), strict=True)]
        earlier = list(axes[0])[: list(axes[0]).index(first)]
        arms["-".join((first, *rest))] = {
            "search": reduce(overlaid, chosen),
            **({"against": {rival: "-".join((rival, *rest)) for rival in earlier}} if earlier else {}),
        }
    for name, own in listed.items():
        arms[name] = overlaid(arms[name], own) if name in arms and isinstance(own, dict) else own
    return {**data, "grid": (), "arms": arms}


def _is_grid(axes: Any) -> bool:
    return isinstance(axes, tuple) and all(
        isinstance(axis, dict)
        and axis
        and all(isinstance(name, str) and isinstance(settings, dict) for name, settings in axis.items())
        for axis in axes
    )

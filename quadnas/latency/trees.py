"""Regression trees as arrays: many rows through many trees at once, level by level."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

LEAF = -1
CHUNK = 1 << 20
"""Rows x trees that are walked at once: a few tens of megabytes."""
MAX_MS = 1e6  # no kernel takes a quarter of an hour


@dataclass(frozen=True, slots=True)
class Forest:
    """All trees of a random forest, one after the other.

    ``roots`` (trees,) int64 holds the first node of every tree, ascending; ``feature`` (nodes,) int16 which
    column a node asks for, -1 in a leaf; ``value`` (nodes,) float64 the threshold, in a leaf the prediction in
    ms; ``children`` (nodes, 2) int32 where a row goes with a column <= threshold, and where else, (0, 0) in a
    leaf. A child stands behind its parent, so no walk is longer than its tree.
    """

    roots: NDArray[np.int64]
    feature: NDArray[np.int16]
    value: NDArray[np.float64]
    children: NDArray[np.int32]

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], name: str, columns: int) -> Self:
        """The forest stored as ``name.roots``, ``name.feature`` ... for rows of ``columns`` features.

        Raises ValueError for a missing array, another dtype or shape, a child outside its tree or in front of
        its parent, an unknown feature, and a threshold or a prediction that cannot be.
        """
        found: dict[str, NDArray[Any]] = {}
        for column, dtype in _DTYPES.items():
            array = arrays.get(f"{name}.{column}")
            if array is None or array.dtype != dtype:
                raise ValueError(f"{name}.{column} is {array if array is None else array.dtype}, not {dtype}")
            found[column] = array
        forest = cls(**found)
        forest._check(columns)
        return forest

    def _check(self, columns: int) -> None:
        count = len(self.value)
        shapes = (self.value.shape, self.feature.shape, self.children.shape, self.roots.ndim)
        if shapes != ((count,), (count,), (count, 2), 1) or not len(self.roots):
            raise ValueError("its arrays differ in length")
        ends = np.append(self.roots[1:], count)
        if self.roots[0] != 0 or np.any(ends <= self.roots):
            raise ValueError("its trees do not follow one another")
        inner = self.feature != LEAF
        if np.any(self.feature < LEAF) or np.any(self.feature >= columns):
            raise ValueError(f"a node asks for a feature outside the {columns} of its kernel")
        nodes = np.arange(count, dtype=np.int32)
        end_of = np.repeat(ends.astype(np.int32), ends - self.roots)
        behind = (self.children > nodes[:, None]) & (self.children < end_of[:, None])
        if np.any(inner & ~behind.all(axis=1)):
            raise ValueError("a node has a child outside its tree or in front of it")
        possible = (self.value > 0) & (self.value <= MAX_MS)
        if not np.isfinite(self.value).all() or not np.all(inner | possible):
            raise ValueError(f"a threshold is not finite or a prediction is outside (0, {MAX_MS:g}] ms")

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        """The arrays that ``of`` reads back under the same name."""
        return {f"{name}.{column.name}": getattr(self, column.name) for column in fields(self)}

    def predict_ms(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean over all trees, in ms, of rows (n, features).

        As in scikit-learn the features are rounded to float32 and compared with thresholds of float64.
        """
        features = rows.astype(np.float32)
        total_ms = np.zeros(len(features))
        at_once = max(1, CHUNK // max(len(features), 1))
        for first in range(0, len(self.roots), at_once):
            self._walk(self.roots[first : first + at_once], features, total_ms)
        return total_ms / len(self.roots)

    def _walk(
        self, roots: NDArray[np.int64], features: NDArray[np.float32], total_ms: NDArray[np.float64]
    ) -> None:
        """Add what these trees say; a row leaves the walk as soon as it has reached its leaf."""
        node: NDArray[Any] = np.repeat(roots, len(features))
        row = np.tile(np.arange(len(features)), len(roots))
        while len(node):
            asked = self.feature[node]
            inner = asked != LEAF
            if not inner.all():
                done = ~inner
                total_ms += np.bincount(row[done], self.value[node[done]], len(features))
                node, row, asked = node[inner], row[inner], asked[inner]
            goes_on = features[row, asked] > self.value[node]
            node = self.children[node, goes_on.astype(np.intp)]


_DTYPES = {"roots": np.int64, "feature": np.int16, "value": np.float64, "children": np.int32}

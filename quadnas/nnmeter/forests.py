"""A pickled scikit-learn forest -> the arrays of its trees, without scikit-learn."""

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from quadnas.errors import DataError
from quadnas.latency.trees import LEAF, Forest
from quadnas.nnmeter.pickles import FOREST, MEMBERS, TREE, Record, UnreadableError, as_array, read_pickle

_NO_CHILD = -1
_MAX_NODES = 2**31 - 1
_NODE_BYTES = 48
"""The least that a node takes in a file: four columns of its own and its value."""


def read_forest(stream: IO[bytes], size: int, columns: int, source: str) -> Forest:
    """The forest in a pickle of ``size`` bytes, for rows of ``columns`` features.

    Takes what scikit-learn 0.23.1 writes and what later versions write. Raises DataError, naming ``source``,
    for anything else: not a random forest of one output, another number of features, trees with cycles or
    children out of range, thresholds that are not finite, predictions that are not positive.
    """
    record = read_pickle(stream, size, source)
    try:
        return _forest(record, size, columns)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise DataError(f"{source} is not a random forest of latencies: {str(error)[:200]}") from None


def _forest(record: Record, size: int, columns: int) -> Forest:
    members = _state(record, FOREST).get("estimators_")
    if type(members) is not list or not members:
        raise UnreadableError("it holds no trees")
    trees, roots, count = [], [], 0
    for member in members:
        roots.append(count)
        trees.append(_tree(_state(member, *MEMBERS).get("tree_"), columns, count))
        count += len(trees[-1][0])
        # An array that is noted once and named often would grow without bound.
        if count * _NODE_BYTES > size or count > _MAX_NODES:
            raise UnreadableError(f"{count} nodes in a file of {size} bytes")
    feature, value, children = (np.concatenate(parts) for parts in zip(*trees, strict=True))
    forest = Forest(np.array(roots, dtype=np.int64), feature, value, children)
    return Forest.of(forest.arrays("forest"), "forest", columns)


def _tree(record: Any, columns: int, first: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Features, thresholds or predictions, and children of one tree whose nodes are numbered from ``first``."""
    state = _state(record, TREE)
    if len(record.arguments) != 3 or record.arguments[0] != columns or record.arguments[2] != 1:
        raise UnreadableError(f"a tree that is not for {columns} features and one output")
    nodes, values = as_array(state.get("nodes")), as_array(state.get("values"))
    if nodes.dtype.names is None or nodes.ndim != 1 or values.shape != (len(nodes), 1, 1):
        raise UnreadableError(f"nodes of shape {nodes.shape} with values of shape {values.shape}")
    children = np.stack([_column(nodes, "left_child", "i8"), _column(nodes, "right_child", "i8")], axis=1)
    leaf = children[:, 0] == _NO_CHILD
    feature = np.where(leaf, LEAF, _column(nodes, "feature", "i8"))
    inner = children[~leaf]
    if np.any(children[leaf] != _NO_CHILD) or np.any(inner < 0) or np.any(inner >= len(nodes)):
        raise UnreadableError("a node with a child outside its tree")
    if np.any(feature[~leaf] < 0) or np.any(feature >= columns):
        raise UnreadableError(f"a node that asks for a feature outside the {columns} of its kernel")
    children = np.where(leaf[:, None], 0, children + first)
    value = np.where(leaf, values[:, 0, 0], _column(nodes, "threshold", "f8"))
    return feature.astype(np.int16), value.astype(np.float64), children.astype(np.int32)


def _column(nodes: NDArray[Any], name: str, code: str) -> NDArray[Any]:
    if name not in (nodes.dtype.names or ()) or nodes.dtype[name] != np.dtype(code):
        raise UnreadableError(f"nodes without {name!r} of type {code}")
    return np.asarray(nodes[name])


def _state(value: Any, *names: str) -> dict[str, Any]:
    if not isinstance(value, Record) or value.name not in names or type(value.state) is not dict:
        found = value.name if isinstance(value, Record) else type(value).__name__
        raise UnreadableError(f"{found!r} where {names[0].rpartition('.')[2]} belongs")
    return value.state

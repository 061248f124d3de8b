"""A pickled scikit-learn forest -> the arrays of its trees, without scikit-learn."""

from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from quadnas.errors import DataError
from quadnas.latency.trees import LEAF, Forest
from quadnas.nnmeter.pickles import FOREST, MEMBER, TREE, Record, UnreadableError, as_array, read_pickle

_NODE = np.dtype(
    [
        ("left_child", "<i8"),
        ("right_child", "<i8"),
        ("feature", "<i8"),
        ("threshold", "<f8"),
        ("impurity", "<f8"),
        ("n_node_samples", "<i8"),
        ("weighted_n_node_samples", "<f8"),
    ]
)
"""A node of scikit-learn 0.23.1, the version that wrote nn-Meter's forests."""
_LATER_NODE = np.dtype([*_NODE.descr, ("missing_go_to_left", "u1")], align=True)
"""A node since scikit-learn 1.3."""
_NO_CHILD = -1
_MAX_NODES = 2**31 - 1


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
    state = _state(record, FOREST)
    members = state.get("estimators_")
    if type(members) is not list or not members or state.get("n_estimators") != len(members):
        raise UnreadableError("it holds no trees, or another number than it says")
    trees, roots, count = [], [], 0
    for member in members:
        roots.append(count)
        trees.append(_tree(_state(member, MEMBER).get("tree_"), columns, count))
        count += len(trees[-1][0])
        # Arrays that are noted once and named often would grow without bound.
        if count * _NODE.itemsize > size or count > _MAX_NODES:
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
    record.state = None  # frees the file's arrays, tree by tree
    if nodes.dtype not in (_NODE, _LATER_NODE) or values.dtype != np.float64:
        raise UnreadableError("nodes or values of a layout that scikit-learn does not write")
    if nodes.shape != (state.get("node_count"),) or values.shape != (*nodes.shape, 1, 1):
        raise UnreadableError(f"nodes of shape {nodes.shape} with values of shape {values.shape}")
    children = np.stack([nodes["left_child"], nodes["right_child"]], axis=1)
    leaf = children[:, 0] == _NO_CHILD
    feature = np.where(leaf, LEAF, nodes["feature"])
    inner = children[~leaf]
    if np.any(children[leaf] != _NO_CHILD) or np.any(inner < 0) or np.any(inner >= len(nodes)):
        raise UnreadableError("a node with a child outside its tree")
    if np.any(feature[~leaf] < 0) or np.any(feature >= columns):
        raise UnreadableError(f"a node that asks for a feature outside the {columns} of its kernel")
    children = np.where(leaf[:, None], 0, children + first)
    value = np.where(leaf, values[:, 0, 0], nodes["threshold"])
    return feature.astype(np.int16), value, children.astype(np.int32)


def _state(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Record) or value.name != name or type(value.state) is not dict:
        found = value.name if isinstance(value, Record) else type(value).__name__
        raise UnreadableError(f"{found!r} where {name.rpartition('.')[2]} belongs")
    return value.state

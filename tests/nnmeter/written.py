"""Forests written byte by byte in the layout of scikit-learn 0.23.1, as nn-Meter published them.

Class and function names, the order of the attributes and the dtype of a node are those of that version; the
opcodes are those with which Python 3.6 to 3.8 pickled them.
"""

import pickle
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

OLD_NODE = np.dtype(
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
FOREST = "sklearn.ensemble._forest RandomForestRegressor"
MEMBER = "sklearn.tree._classes DecisionTreeRegressor"
TREE = "sklearn.tree._tree Tree"


@dataclass(frozen=True)
class Name:
    """A reference to a module's class or function."""

    text: str


@dataclass(frozen=True)
class Made:
    """An object by a call (REDUCE) or by a class (NEWOBJ), and its state."""

    called: str
    arguments: tuple[Any, ...]
    state: Any = None
    new: bool = False


@dataclass(frozen=True)
class Noted:
    """A value that is written once and named afterwards."""

    value: Any


class Writer:
    """Writes values as a pickle of one protocol."""

    def __init__(self, protocol: int) -> None:
        self.protocol = protocol
        self.noted: dict[int, int] = {}
        self.data = bytearray(pickle.PROTO + bytes([protocol]))

    def whole(self, value: Any) -> bytes:
        self.add(value)
        return bytes(self.data + pickle.STOP)

    def add(self, value: Any) -> None:
        """Append what pushes the value."""
        match value:
            case None | bool():
                self.data += {None: pickle.NONE, True: pickle.NEWTRUE, False: pickle.NEWFALSE}[value]
            case int():
                self.data += pickle.BININT + struct.pack("<i", value)
            case float():
                self.data += pickle.BINFLOAT + struct.pack(">d", value)
            case str():
                self.data += pickle.BINUNICODE + struct.pack("<I", len(value.encode())) + value.encode()
            case bytes():
                self._bytes(value)
            case tuple():
                self.data += pickle.MARK
                self._all(value)
                self.data += pickle.TUPLE
            case list():
                self.data += pickle.EMPTY_LIST + pickle.MARK
                self._all(value)
                self.data += pickle.APPENDS
            case dict():
                self.data += pickle.EMPTY_DICT + pickle.MARK
                self._all([part for item in value.items() for part in item])
                self.data += pickle.SETITEMS
            case Noted():
                self._noted(value)
            case Name(text):
                self._name(text)
            case Made():
                self._made(value)
            case _:
                raise TypeError(value)

    def _all(self, values: Any) -> None:
        for value in values:
            self.add(value)

    def _made(self, value: Made) -> None:
        self._name(value.called)
        self.add(value.arguments)
        self.data += pickle.NEWOBJ if value.new else pickle.REDUCE
        if value.state is not None:
            self.add(value.state)
            self.data += pickle.BUILD

    def _noted(self, value: Noted) -> None:
        if id(value) in self.noted:
            self.data += pickle.BINGET + bytes([self.noted[id(value)]])
        else:
            self.add(value.value)
            self.data += pickle.BINPUT + bytes([self.noted.setdefault(id(value), len(self.noted))])

    def _name(self, text: str) -> None:
        module, name = text.split(" ")
        if self.protocol < 4:
            self.data += pickle.GLOBAL + f"{module}\n{name}\n".encode()
        else:
            self._all((module, name))
            self.data += pickle.STACK_GLOBAL

    def _bytes(self, value: bytes) -> None:
        if self.protocol < 3:
            self.add(Made("_codecs encode", (value.decode("latin1"), "latin1")))
        else:
            self.data += pickle.BINBYTES + struct.pack("<I", len(value)) + value


def dtype(found: np.dtype[Any]) -> Made:
    """As numpy 1.18 pickles a dtype: the flags of the call are numbers."""
    if found.names is None:
        code = f"{found.kind}{found.itemsize}"
        return Made("numpy dtype", (code, 0, 1), (3, "<", None, None, None, -1, -1, 0))
    fields = {name: (dtype(found.fields[name][0]), found.fields[name][1]) for name in found.names}  # type: ignore[index]
    state = (3, "|", None, found.names, fields, found.itemsize, 1, 16)
    return Made("numpy dtype", (f"V{found.itemsize}", 0, 1), state)


def array(values: NDArray[Any]) -> Made:
    state = (1, values.shape, dtype(values.dtype), False, values.tobytes())
    return Made("numpy.core.multiarray _reconstruct", (Name("numpy ndarray"), (0,), b"b"), state)


def old_tree(nodes: NDArray[Any], values: NDArray[Any], columns: int) -> Made:
    """The compiled tree of scikit-learn 0.23.1."""
    return tree_of(len(nodes), array(nodes), array(values), columns)


def tree_of(count: int, nodes: Any, values: Any, columns: int) -> Made:
    """The same, of whatever stands for its arrays."""
    state = {"max_depth": 9, "node_count": count, "nodes": nodes, "values": values}
    return Made(TREE, (columns, array(np.array([1])), 1), state)


def old_forest(trees: list[tuple[NDArray[Any], NDArray[Any]]], columns: int) -> Made:
    """A forest of scikit-learn 0.23.1 from nodes (of ``OLD_NODE``) and values (nodes, 1, 1) per tree."""
    shared = {
        "criterion": "mse", "max_depth": 70, "min_samples_split": 2, "min_samples_leaf": 1,
        "min_weight_fraction_leaf": 0.0, "max_features": 6, "max_leaf_nodes": None,
        "min_impurity_decrease": 0.0, "min_impurity_split": None, "ccp_alpha": 0.0,
    }  # fmt: skip
    member = {**shared, "splitter": "best", "presort": "deprecated", "class_weight": None}
    unfitted = Made(MEMBER, (), {**member, "random_state": None, "_sklearn_version": "0.23.1"}, new=True)
    members = [
        Made(
            MEMBER,
            (),
            {
                **member, "random_state": seed, "n_features_": columns, "n_outputs_": 1,
                "max_features_": columns, "tree_": old_tree(*tree, columns), "_sklearn_version": "0.23.1",
            },
            new=True,
        )
        for seed, tree in enumerate(trees)
    ]  # fmt: skip
    state = {
        "base_estimator": unfitted, "n_estimators": len(trees), "estimator_params": tuple(shared),
        "bootstrap": True, "oob_score": True, "n_jobs": 32, "random_state": 10, "verbose": 0,
        "warm_start": False, "class_weight": None, "max_samples": None, **shared, "n_features_": columns,
        "n_outputs_": 1, "base_estimator_": unfitted, "estimators_": members,
        "oob_prediction_": array(np.ones(5)),
        "oob_score_": Made("numpy.core.multiarray scalar", (dtype(np.dtype("f8")), struct.pack("<d", 0.9))),
        "_sklearn_version": "0.23.1",
    }  # fmt: skip
    return Made(FOREST, (), state, new=True)


def as_old(forest: RandomForestRegressor) -> Made:
    """A forest of today in the old layout: the same splits, thresholds and predictions."""
    trees = []
    for member in forest.estimators_:
        nodes = np.zeros(member.tree_.node_count, OLD_NODE)
        state = member.tree_.__getstate__()
        for name in OLD_NODE.names or ():
            nodes[name] = state["nodes"][name]
        trees.append((nodes, state["values"]))
    return old_forest(trees, forest.n_features_in_)


def fitted(columns: int, seed: int = 0, trees: int = 4, samples: int = 60) -> RandomForestRegressor:
    """A small forest of positive, uneven values."""
    choose = np.random.default_rng(seed)
    rows = np.rint(choose.random((samples, columns)) * 100)
    values = 0.01 + rows @ choose.random(columns) * choose.random(samples)
    return RandomForestRegressor(trees, random_state=seed, max_features=columns).fit(rows, values)


def old_pickle(forest: RandomForestRegressor, protocol: int = 3) -> bytes:
    """The forest as a file of scikit-learn 0.23.1."""
    return Writer(protocol).whole(as_old(forest))

"""Pickled forests are read as scikit-learn means them, without scikit-learn, in both layouts."""

import io
import pickle
import random
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

from quadnas.errors import DataError
from quadnas.latency.trees import LEAF, Forest
from quadnas.nnmeter.forests import read_forest
from tests.nnmeter.written import (
    FOREST,
    MEMBER,
    OLD_NODE,
    Made,
    Noted,
    Writer,
    array,
    as_old,
    fitted,
    old_forest,
    old_pickle,
    tree_of,
)

COLUMNS = 3


def read(data: bytes, columns: int = COLUMNS) -> Forest:
    return read_forest(io.BytesIO(data), len(data), columns, "conv.pkl")


def questions(columns: int = COLUMNS, count: int = 200) -> NDArray[np.float64]:
    """Rows on, between and beyond the samples; thresholds of whole numbers lie on halves."""
    return np.random.default_rng(1).integers(-10, 240, (count, columns)) / 2


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_layout_of_0_23_1(protocol: int) -> None:
    forest = fitted(COLUMNS)
    found = read(old_pickle(forest, protocol)).predict_ms(questions())
    assert found == pytest.approx(forest.predict(questions()), rel=1e-12)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "settings", [{}, {"max_depth": 1}, {"max_leaf_nodes": 7}, {"oob_score": True, "n_estimators": 40}]
)
def test_what_scikit_learn_writes_today(protocol: int, settings: dict[str, Any]) -> None:
    forest = fitted(COLUMNS).set_params(**settings)
    rows = questions(count=80)
    forest.fit(rows, rows.sum(axis=1) ** 2 + 1)
    found = read(pickle.dumps(forest, protocol)).predict_ms(questions())
    assert found == pytest.approx(forest.predict(questions()), rel=1e-12)


@pytest.mark.parametrize(
    ("threshold", "row", "left"),
    [
        (0.5, 0.5, True),
        (0.5, np.nextafter(np.float32(0.5), np.float32(1)), False),
        # float32(0.1) is 0.100000001490116: above this threshold, though 0.1 is not
        (0.1000000005, 0.1, False),
        (0.1000000005, 0.0999999, True),
    ],
)
def test_rows_are_rounded_to_float32_and_a_row_on_the_threshold_goes_left(
    threshold: float, row: float, left: bool
) -> None:
    nodes = np.zeros(3, OLD_NODE)
    nodes["left_child"], nodes["right_child"] = (1, -1, -1), (2, -1, -1)
    nodes["feature"], nodes["threshold"] = (0, -2, -2), (threshold, -2, -2)
    data = Writer(3).whole(old_forest([(nodes, np.array([[[9.0]], [[1.0]], [[2.0]]]))], 1))
    assert read(data, 1).predict_ms(np.array([[row]])).tolist() == [1.0 if left else 2.0]


def test_the_old_layout_written_here_is_one_that_the_real_unpickler_reads() -> None:
    """The writer of these tests is checked by the standard library, with stand-ins for the classes."""

    class Stub:
        def __init__(self, *arguments: Any) -> None:
            self.arguments = arguments

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module.startswith("sklearn"):
                return Stub
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)

    forest = fitted(COLUMNS)
    for protocol in (2, 3, 4, 5):
        found = Reader(io.BytesIO(old_pickle(forest, protocol))).load()
        assert len(found.estimators_) == found.n_estimators == len(forest.estimators_)
        for mine, theirs in zip(found.estimators_, forest.estimators_, strict=True):
            assert mine.tree_.nodes.dtype == OLD_NODE and mine.tree_.nodes.dtype.itemsize == 56
            assert np.array_equal(mine.tree_.nodes["threshold"], theirs.tree_.threshold)
            assert np.array_equal(mine.tree_.values, theirs.tree_.value)


def test_the_pickle_of_today_is_of_the_later_layout() -> None:
    tree = fitted(COLUMNS).estimators_[0].tree_
    assert tree.__getstate__()["nodes"].dtype.names[-1] == "missing_go_to_left"


def broken(change: str) -> bytes:
    """A small forest with one thing wrong."""
    nodes = np.zeros(5, OLD_NODE)
    nodes["left_child"], nodes["right_child"] = (1, 2, -1, -1, -1), (4, 3, -1, -1, -1)
    nodes["feature"], nodes["threshold"] = (0, 2, -2, -2, -2), (3.5, 7.5, -2, -2, -2)
    values = np.array([3.0, 2.5, 1.0, 2.0, 4.0]).reshape(5, 1, 1)
    exec(change, {"nodes": nodes, "values": values, "np": np})
    return Writer(4).whole(old_forest([(nodes, values)], COLUMNS))


def test_the_unbroken_one_is_taken() -> None:
    assert read(broken("")).predict_ms(np.array([[3, 0, 7], [3, 0, 8], [4, 0, 0]])).tolist() == [
        1.0,
        2.0,
        4.0,
    ]


@pytest.mark.parametrize(
    "change",
    [
        "nodes['left_child'][0] = 5",
        "nodes['right_child'][0] = 2**40",
        "nodes['left_child'][1] = 1",
        "nodes['left_child'][1] = 0",
        "nodes['left_child'][0] = -3",
        "nodes['left_child'][1] = -1",
        "nodes['right_child'][2] = 3",
        "nodes['feature'][0] = 3",
        "nodes['feature'][0] = -1",
        "nodes['feature'][0] = 2**32",
        "nodes['threshold'][0] = np.nan",
        "nodes['threshold'][1] = np.inf",
        "values[2] = -1",
        "values[2] = 0",
        "values[3] = np.nan",
        "values[4] = np.inf",
        "values[4] = 1e9",
    ],
)
def test_a_damaged_tree_is_refused(change: str) -> None:
    with pytest.raises(DataError, match=r"conv\.pkl is not a random forest of latencies"):
        read(broken(change))


def test_an_inner_node_may_hold_any_mean() -> None:
    assert read(broken("values[0] = np.nan")).feature.tolist() == [0, 2, LEAF, LEAF, LEAF]


def with_state(**changes: Any) -> bytes:
    made = as_old(fitted(COLUMNS))
    return Writer(4).whole(Made(FOREST, (), {**made.state, **changes}, new=True))


@pytest.mark.parametrize(
    "data",
    [
        with_state(estimators_=[]),
        with_state(estimators_=None),
        with_state(estimators_=[Made(FOREST, (), {"a": 1}, new=True)], n_estimators=1),
        with_state(n_estimators=5),
        old_pickle(fitted(COLUMNS + 1)),
        pickle.dumps(RandomForestRegressor(2)),
        pickle.dumps(RandomForestRegressor(2).fit([[0, 0, 0], [1, 1, 1]], [[1.0, 2.0], [3.0, 4.0]])),
        pickle.dumps(fitted(COLUMNS).estimators_[0]),
        pickle.dumps({"estimators_": []}),
        pickle.dumps(np.ones(3)),
    ],
)
def test_other_objects_are_refused(data: bytes) -> None:
    with pytest.raises(DataError, match=r"conv\.pkl is not a"):
        read(data)


def small() -> tuple[NDArray[Any], NDArray[Any]]:
    made = fitted(COLUMNS, trees=1, samples=400).estimators_[0].tree_.__getstate__()
    return made["nodes"][list(OLD_NODE.names or ())].astype(OLD_NODE), made["values"]


def forest_of(trees: list[Made]) -> bytes:
    made = as_old(fitted(COLUMNS, trees=1))
    member = made.state["estimators_"][0]
    members = [Made(MEMBER, (), {**member.state, "tree_": tree}, new=True) for tree in trees]
    state = {**made.state, "estimators_": members, "n_estimators": len(members)}
    return Writer(4).whole(Made(FOREST, (), state, new=True))


def test_arrays_that_are_named_again_and_again_do_not_grow() -> None:
    """One tree's arrays in the file, in a hundred trees: not more nodes than the file has bytes for."""
    nodes, values = small()
    noted = Noted(array(nodes)), Noted(array(values))
    assert len(read(forest_of([tree_of(len(nodes), *noted, COLUMNS)])).value) == len(nodes)
    with pytest.raises(DataError, match=r"nodes in a file of \d+ bytes"):
        read(forest_of([tree_of(len(nodes), *noted, COLUMNS) for _ in range(100)]))


def test_a_tree_that_stands_twice_in_the_list_is_refused() -> None:
    forest = fitted(COLUMNS, trees=1)
    forest.estimators_ *= 2
    forest.n_estimators = 2
    with pytest.raises(DataError, match=r"'sklearn\.tree\._tree\.Tree' where Tree belongs"):
        read(pickle.dumps(forest))


def test_another_layout_is_refused() -> None:
    """The names are there, but not where scikit-learn has them: an impurity for a threshold, float32 values."""
    nodes, values = small()
    fields = {name: OLD_NODE.fields[name] for name in OLD_NODE.names or ()}  # type: ignore[index]
    fields["threshold"], fields["impurity"] = fields["impurity"], fields["threshold"]
    moved = nodes.view(np.dtype({"names": list(fields), "formats": [f[0] for f in fields.values()],
                                 "offsets": [f[1] for f in fields.values()]}))  # fmt: skip
    for one, other in ((moved, values), (nodes, values.astype(np.float32)), (nodes, values.view(np.int64))):
        with pytest.raises(DataError, match="a layout that scikit-learn does not write"):
            read(forest_of([tree_of(len(nodes), array(one), array(other), COLUMNS)]))


def test_reading_needs_no_scikit_learn(tmp_path: Any) -> None:
    path = tmp_path / "f.pkl"
    path.write_bytes(old_pickle(fitted(COLUMNS)))
    code = (
        "import sys; from quadnas.nnmeter.forests import read_forest\n"
        f"f = open({str(path)!r}, 'rb'); read_forest(f, {path.stat().st_size}, {COLUMNS}, 'f')\n"
        "sys.exit(any(m in sys.modules for m in ('sklearn', 'scipy', 'torch', 'nn_meter')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_random_bytes_changed_are_refused_or_change_nothing_else() -> None:
    """1,000 flipped bits: a file that is still taken differs, if at all, only where the numbers stand."""
    data = old_pickle(fitted(COLUMNS, trees=2, samples=12), 4)
    whole = read(data)
    payloads = [
        range(start, start + len(content))
        for member in as_old(fitted(COLUMNS, trees=2, samples=12)).state["estimators_"]
        for key in ("nodes", "values")
        for content in (member.state["tree_"].state[key].state[4],)
        for start in (data.index(content),)
    ]
    choose, taken = random.Random(0), 0
    for _ in range(1000):
        position = choose.randrange(len(data))
        changed = bytearray(data)
        changed[position] ^= 1 << choose.randrange(8)
        try:
            found = read(bytes(changed))
        except DataError:
            continue
        taken += 1
        if not any(position in payload for payload in payloads):
            assert all(
                np.array_equal(getattr(found, column), getattr(whole, column))
                for column in ("roots", "feature", "value", "children")
            ), position
    assert 0 < taken < 900

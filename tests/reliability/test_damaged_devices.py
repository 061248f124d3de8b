"""Device folders that were damaged, exchanged or edited: none is loaded, and each refusal says what is wrong."""

import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import yaml
from numpy.typing import NDArray

from quadnas.errors import ConfigError, CoverageError, DataError
from quadnas.latency import backends
from quadnas.latency.card import DeviceCard, DeviceFacts, HeldOut, Sampled, read_card, write_card
from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.model import estimate
from quadnas.latency.nnmeter_kernels import KERNELS
from quadnas.testing.toy_device import ARRAYS, card
from tests.cli.command import quadnas
from tests.nnmeter.written import fitted

Arrays = dict[str, NDArray[Any]]
CONV = Kernel("conv", 14, 14, (64,), 64, batch=2)


def write_device(folder: Path, files: dict[str, Arrays], **changes: Any) -> Path:
    folder.mkdir(parents=True)
    digests = {}
    for name, arrays in files.items():
        data = safetensors.numpy.save(arrays)
        (folder / name).write_bytes(data)
        digests[name] = hashlib.sha256(data).hexdigest()
    (folder / "card.yaml").write_bytes(write_card(card(**{"arrays": digests, **changes})))
    return folder


def additive(folder: Path) -> Path:
    first, *others = ARRAYS
    files = {"one.safetensors": {first: ARRAYS[first]}, "two.safetensors": {op: ARRAYS[op] for op in others}}
    return write_device(folder, files)


def trees(name: str) -> Arrays:
    """A small forest by scikit-learn, in the arrays of the back-end."""
    import io
    import pickle

    from quadnas.nnmeter.forests import read_forest

    data = pickle.dumps(fitted(KERNELS[name].columns, trees=2, samples=12))
    return read_forest(io.BytesIO(data), len(data), KERNELS[name].columns, name).arrays(name)


def forest(folder: Path) -> Path:
    names = ("conv-bn-relu", "add")
    sampled = {"h": [1, 224], "cin": [3, 2160], "cout": [3, 2160], "kernels": [1], "strides": [1]}
    files = {f"{name}.safetensors": trees(name) for name in names}
    facts = {"back_end": "forest", "batch": 1, "batches": [1, 1], "measured_batch": 1}
    return write_device(folder, files, sampled={name: [sampled] for name in names}, **facts)


MAKERS: dict[str, Callable[[Path], Path]] = {"additive": additive, "forest": forest}


def test_every_back_end_has_its_folder_here() -> None:
    assert set(MAKERS) == {module.name for module in iter_modules(backends.__path__)}


@pytest.mark.parametrize("back_end", MAKERS)
def test_of_1000_random_corruptions_none_is_accepted(back_end: str, tmp_path: Path) -> None:
    """Flipped bits, cut, zeroed, shifted and exchanged pieces, lost and exchanged files."""
    folder = MAKERS[back_end](tmp_path / "device")
    load_device(str(folder))
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = MAKERS["forest" if back_end == "additive" else "additive"](tmp_path / "other")
    foreign = [path.read_bytes() for path in other.iterdir()]
    choose, refused = random.Random(0), 0
    while refused < 1000:
        name = "card.yaml" if choose.random() < 0.6 else choose.choice(sorted(whole))
        data = damaged(whole, name, foreign, choose)
        if data == whole[name]:
            continue
        if data is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(data)
        with pytest.raises(
            ConfigError if (data, name) == (None, "card.yaml") else DataError, match=str(folder)
        ):
            load_device(str(folder))
        (folder / name).write_bytes(whole[name])
        refused += 1
    load_device(str(folder))


def damaged(whole: dict[str, bytes], name: str, foreign: list[bytes], choose: random.Random) -> bytes | None:
    """The file in one of ten ways damaged; None: lost."""
    data = whole[name]
    start, length = choose.randrange(len(data)), choose.randint(1, 64)
    before, piece, after = data[:start], data[start : start + length], data[start + length :]
    ways: tuple[bytes | None, ...] = (
        before + bytes([data[start] ^ (1 << choose.randrange(8))]) + data[start + 1 :],
        before,
        before + bytes(len(piece)) + after,
        before + after,
        before + choose.randbytes(length) + data[start:],
        before[: start // 2] + piece + before[start // 2 :] + after,
        whole[choose.choice(sorted(whole))],
        choose.choice(foreign),
        b"",
        None,
    )
    return choose.choice(ways)


def test_files_of_the_same_device_exchanged_for_one_another(tmp_path: Path) -> None:
    folder = forest(tmp_path / "device")
    one, two = (folder / f"{name}.safetensors" for name in ("conv-bn-relu", "add"))
    one.rename(tmp_path / "kept")
    two.rename(one)
    (tmp_path / "kept").rename(two)
    with pytest.raises(DataError, match="damaged or exchanged"):
        load_device(str(folder))


def test_arrays_that_are_no_regular_file(tmp_path: Path) -> None:
    folder = additive(tmp_path / "device")
    (folder / "one.safetensors").unlink()
    (folder / "one.safetensors").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*one\.safetensors"):
        load_device(str(folder))
    shutil.rmtree(folder)
    (folder / "card.yaml").mkdir(parents=True)
    with pytest.raises(DataError, match=r"cannot read the device card"):
        load_device(str(folder))


def resealed(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Edit the card as someone does who knows how to seal it."""
    path = folder / "card.yaml"
    data = yaml.safe_load(path.read_text().rpartition("sha256: ")[0])
    change(data)
    body = yaml.safe_dump(data, sort_keys=False)
    path.write_text(f"{body}sha256: {hashlib.sha256(body.encode()).hexdigest()}\n")
    return folder


def test_resealing_alone_is_accepted(tmp_path: Path) -> None:
    folder = resealed(additive(tmp_path / "device"), lambda data: None)
    assert load_device(str(folder)).card == read_card(additive(tmp_path / "again") / "card.yaml")


REQUIRED = [
    name for model in (DeviceFacts, DeviceCard) for name, f in model.model_fields.items() if f.is_required()
]


@pytest.mark.parametrize("field", [*dict.fromkeys(REQUIRED), "held_out", "error_quantiles"])
def test_a_card_without_a_field_is_refused(tmp_path: Path, field: str) -> None:
    folder = resealed(additive(tmp_path / "device"), lambda data: data.pop(field))
    quadnas("devices", "show", folder).refused(4, field, "card.yaml")


def test_every_figure_of_the_error_is_required(tmp_path: Path) -> None:
    for model, key in ((HeldOut, "held_out"), (Sampled, "sampled")):
        for name, field in model.model_fields.items():
            if not field.is_required():
                continue
            folder = tmp_path / f"{key}-{name}"

            def drop(data: dict[str, Any], key: str = key, name: str = name) -> None:
                where = data[key] if key == "held_out" else data[key]["conv"][0]
                where.pop(name)

            with pytest.raises(DataError, match=f"{name}' is missing"):
                load_device(str(resealed(additive(folder), drop)))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("launch_us", "1 us", "launch_us: Input should be a valid number"),
        ("launch_us", -1.0, "greater than 0"),
        ("launch_us", 0.0, "greater than 0"),
        ("launch_us", float("nan"), "launch_us"),
        ("launch_us", float("inf"), "launch_us"),
        ("launch_ms", 1.0, "unknown key 'launch_ms'; did you mean 'launch_us'"),
        ("peak_gflops_per_second", 1.0, "unknown key 'peak_gflops_per_second'"),
        ("peak_gmacs_per_second", "19 GMAC/s", "peak_gmacs_per_second: Input should be a valid number"),
        ("bytes_per_element", 32, "Input should be 1, 2 or 4"),
        ("bytes_per_element", "fp32", "Input should be 1, 2 or 4"),
        ("extrapolation_error", 20.0, "less than or equal to 1"),
        ("batch", 0, "greater than or equal to 1"),
        ("batch", "8", "valid integer"),
        ("batches", [4, 1], "batch 2 lies outside batches, 4 to 1"),
        ("batch", 5, "batch 5 lies outside batches, 1 to 4"),
        ("error_quantiles", [[5, 0.9], [50, 1.0], [95, 1.1]], "less than or equal to 1"),
        ("error_quantiles", [[0.5, 1.1], [0.9, 1.0]], "do not fall"),
        ("error_quantiles", [[0.5, -1.0], [0.9, 1.0]], "greater than 0"),
        ("format", "quadnas-device/2", "quadnas-device/1"),
        ("source", "guessed", "'measured', 'fitted' or 'analytical'"),
        ("device", "", "at least 1 character"),
        ("terms", {"conv": ["macs"], "add": ["elements"], "fc": ["weights"]}, r"the array 'conv' is"),
        ("terms", {"conv": ["watts"], "add": ["elements"], "fc": ["weights"]}, "unknown terms of 'conv': watts"),
        ("back_end", "woods", "unknown latency back-end 'woods'"),
    ],
)  # fmt: skip
def test_a_wrong_value_or_unit_is_refused(tmp_path: Path, key: str, value: Any, message: str) -> None:
    folder = resealed(additive(tmp_path / "device"), lambda data: data.update({key: value}))
    with pytest.raises((DataError, ConfigError), match=message):
        load_device(str(folder))


@pytest.mark.parametrize("key", ["within_5", "within_10", "spearman"])
def test_a_share_in_per_cent_is_refused(tmp_path: Path, key: str) -> None:
    folder = resealed(additive(tmp_path / "device"), lambda data: data["held_out"].update({key: 99.5}))
    with pytest.raises(DataError, match=rf"held_out\.{key}.*less than or equal to 1"):
        load_device(str(folder))


BAD: dict[str, Any] = {
    "nan": np.array([np.nan, 0.5]),
    "infinite": np.array([np.inf, 0.5]),
    "negative": np.array([-1e-9, 0.5]),
    "hours": np.array([2e-6, 3.6e6]),
    "another length": np.array([2e-6]),
    "two dimensions": np.array([[2e-6, 0.5]]),
    "float32": np.array([2e-6, 0.5], np.float32),
    "whole numbers": np.array([1, 2]),
}


@pytest.mark.parametrize("case", BAD)
def test_arrays_that_no_fit_gives_are_refused(tmp_path: Path, case: str) -> None:
    """With matching checksums: someone made the file so."""
    folder = write_device(tmp_path / "device", {"one.safetensors": {**ARRAYS, "conv": BAD[case]}})
    quadnas("devices", "--json")
    with pytest.raises(DataError, match="the array 'conv'"):
        load_device(str(folder))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.0, 1e7])
def test_a_forest_with_an_impossible_prediction_is_refused(tmp_path: Path, value: float) -> None:
    arrays = trees("add")
    leaf = np.flatnonzero(arrays["add.feature"] < 0)[0]
    arrays["add.value"] = np.where(np.arange(len(arrays["add.value"])) == leaf, value, arrays["add.value"])
    sampled = {"add": [{"h": [1, 224], "cin": [3, 2160], "cout": [3, 2160], "kernels": [1], "strides": [1]}]}
    folder = write_device(tmp_path / "device", {"a.safetensors": arrays}, back_end="forest", sampled=sampled)
    with pytest.raises(DataError, match="damaged forest"):
        load_device(str(folder))


@pytest.mark.parametrize("arrays", [{"conv": ARRAYS["conv"]}, {**ARRAYS, "gelu": ARRAYS["add"]}, {}])
def test_an_operator_without_a_model_or_a_model_without_an_operator(tmp_path: Path, arrays: Arrays) -> None:
    folder = write_device(tmp_path / "device", {"one.safetensors": arrays})
    with pytest.raises(DataError, match="the arrays are of"):
        load_device(str(folder))


def test_an_operator_that_nothing_prices_gives_no_total(tmp_path: Path) -> None:
    model = load_device(str(additive(tmp_path / "device")))
    found = estimate(model, [CONV, Kernel("attention", 14, 14, (64,), 64, batch=2)])
    assert found.latency_ms is None
    assert found.shares["uncovered"] == 0.5
    with pytest.raises(CoverageError, match="'attention' was never measured"):
        found.interval_ms()


@pytest.mark.parametrize("batch", [0, -1, 5, 10**9])
def test_a_batch_outside_the_range_is_refused(tmp_path: Path, batch: int) -> None:
    folder = additive(tmp_path / "device")
    with pytest.raises(ConfigError, match=f"no prices at batch {batch}; allowed: 1 to 4"):
        load_device(str(folder), batch)


def test_kernels_of_another_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch"):
        load_device(str(additive(tmp_path / "device")), 4).price([CONV])


def test_a_folder_without_a_card_is_a_user_s_mistake(tmp_path: Path) -> None:
    quadnas("devices", "show", f"{tmp_path}/").refused(2, "is no device", "card.yaml", "cortexA76")
    quadnas("predictors", "evaluate", "--device", f"{tmp_path}/", "--data", "x").refused(2, "is no device")

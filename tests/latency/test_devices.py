"""Loading a device: every byte is verified, every mistake is explained, and torch stays out."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from quadnas.errors import ConfigError, DataError
from quadnas.latency.card import read_card, write_card
from quadnas.latency.devices import available_devices, load_device
from quadnas.latency.kernels import Kernel
from quadnas.resources import locate
from quadnas.testing.toy_device import ARRAYS, card

ARRAY_FILE = "coefficients.safetensors"
KERNEL = Kernel("conv-bn-relu", 14, 14, (64,), 64, 3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a shipped device."""
    return Path(shutil.copytree(locate("latency_predictors", "cortexA76"), tmp_path / "copy"))


def write_toy(folder: Path, **changes: object) -> Path:
    folder.mkdir(parents=True)
    data = safetensors.numpy.save(ARRAYS)
    (folder / ARRAY_FILE).write_bytes(data)
    toy = card(**{"arrays": {ARRAY_FILE: hashlib.sha256(data).hexdigest()}, **changes})
    (folder / "card.yaml").write_bytes(write_card(toy))
    return folder


def test_a_folder_loads_like_the_name_it_was_copied_from(folder: Path) -> None:
    by_path, by_name = load_device(f"{folder}"), load_device("cortexA76")
    assert by_path.card == by_name.card
    assert by_path.price([KERNEL]) == by_name.price([KERNEL])


def test_a_user_s_device_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUADNAS_HOME", str(tmp_path))
    write_toy(tmp_path / "latency_predictors" / "mine")
    assert "mine" in available_devices()
    loaded = load_device("mine", batch=4)
    assert loaded.batch == 4
    assert all(np.array_equal(loaded.arrays[op], values) for op, values in ARRAYS.items())


def test_a_written_card_reads_back_equal(tmp_path: Path) -> None:
    folder = write_toy(tmp_path / "toy")
    assert read_card(folder / "card.yaml").surrogates == card().surrogates


def test_an_unknown_device_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cortexA76'"):
        load_device("cortexA77")


@pytest.mark.parametrize(
    ("device", "batch"), [("cortexA76", 8), ("myriadvpu", 2), ("a100", 0), ("a100", 4096)]
)
def test_a_batch_that_the_device_cannot_price_is_refused(device: str, batch: int) -> None:
    with pytest.raises(ConfigError, match=f"{device!r} has no prices at batch {batch}; allowed: 1"):
        load_device(device, batch)


def test_the_a100_means_batch_8_and_takes_others() -> None:
    assert load_device("a100").batch == 8
    larger = load_device("a100", 64)
    price = larger.price([Kernel("conv", 14, 14, (64,), 64, batch=64)])[0]
    assert "conv transferred from TensorRT" in price.reason


def test_a_missing_array_file_is_named(folder: Path) -> None:
    (folder / ARRAY_FILE).unlink()
    with pytest.raises(DataError, match=ARRAY_FILE):
        load_device(str(folder))


@pytest.mark.parametrize("place", ["empty/", "file.txt", "card.yaml"])
def test_a_folder_without_a_card_is_a_user_s_mistake(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    if place.endswith("/"):
        path.mkdir()
    else:
        path.write_text("device: toy")
    with pytest.raises(ConfigError, match=r"is no device: a device is a folder with card\.yaml.*cortexA76"):
        load_device(f"{path}/" if place.endswith("/") else str(path))


def test_an_edited_card_is_told_how_to_seal_it(folder: Path) -> None:
    path = folder / "card.yaml"
    text = path.read_text().replace("One Cortex-A76 core", "My core")
    path.write_text(text)
    with pytest.raises(DataError, match="let its last line read: sha256: ") as caught:
        load_device(str(folder))
    path.write_text(text[: text.rindex("sha256: ")] + "sha256: " + str(caught.value)[-64:] + "\n")
    assert load_device(str(folder)).card.description.startswith("My core")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"back_end": "woods"}, "unknown latency back-end 'woods'; allowed: additive, forest"),
        ({"arrays": {ARRAY_FILE: "0" * 64}}, "it was damaged or exchanged"),
    ],
)
def test_a_card_that_cannot_be_used_says_why(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        load_device(str(write_toy(tmp_path / "toy", **changes)))


def test_arrays_never_leave_their_folder() -> None:
    with pytest.raises(ConfigError, match="pattern"):
        card(arrays={"../other.safetensors": "0" * 64})


def test_loading_and_pricing_imports_no_torch() -> None:
    code = (
        "import sys; from quadnas.latency.devices import load_device; "
        "from quadnas.latency.kernels import Kernel; "
        "assert load_device('cortexA76').price([Kernel('conv', 14, 14, (64,), 64)])[0].latency_ms; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

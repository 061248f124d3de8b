"""Downloading and importing forests: verified, converted, registered whole or not at all."""

import functools
import hashlib
import http.server
import io
import json
import os
import pickle
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from quadnas.errors import ConfigError, DataError, MachineError
from quadnas.latency.devices import load_device
from quadnas.latency.kernels import Kernel
from quadnas.latency.nnmeter_kernels import KERNELS, features
from quadnas.nnmeter import fetch
from quadnas.nnmeter.archive import members
from quadnas.nnmeter.fetch import fetch_official, import_forests
from quadnas.nnmeter.official import PinnedFile, Published, published
from tests.cli.command import quadnas
from tests.nnmeter.written import fitted, old_pickle

NAME = "cortexA76cpu_tflite21"
KERNEL_NAMES = ("conv-bn-relu", "add", "fc")
CONV = Kernel("conv-bn-relu", 56, 56, (64,), 128, 3, 2)
RULES = json.dumps({"BF_conv_bn": {"obey": True}, "BF_conv_bn_relu": {"obey": True}, "BF_conv_se": {"obey": False},
                    "MON": {"obey": None}})  # fmt: skip


@functools.cache
def forest(kernel: str) -> RandomForestRegressor:
    return fitted(KERNELS[kernel].columns, seed=len(kernel))


@functools.cache
def files() -> dict[str, bytes]:
    return {f"{kernel}.pkl": old_pickle(forest(kernel)) for kernel in KERNEL_NAMES}


def zipped(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def in_folder(content: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{NAME}/{name}": data for name, data in content.items()}


def proper() -> bytes:
    return zipped({f"{NAME}/": b"", **in_folder(files()), f"{NAME}/fusion_rules.json": RULES.encode()})


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUADNAS_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "latency_predictors"


@pytest.fixture(autouse=True)
def pinned(monkeypatch: pytest.MonkeyPatch) -> Published:
    """The small forests of these tests in the place of nn-Meter's, under one of its names."""
    of_file = {
        name.removesuffix(".pkl"): PinnedFile(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in files().items()
    }
    found = Published(facts=published()[NAME].facts, optional=("fc",), files=of_file)
    monkeypatch.setattr(fetch, "published", lambda: {NAME: found})
    return found


Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], str]]:
    """Starts a server on this machine that answers every request in one way; returns its address."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    started: list[http.server.HTTPServer] = []

    def start(answer: Answer) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requested.append(self.path)
                answer(self)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1"

    requested: list[str] = []
    yield start
    assert set(requested) <= {f"/v1/{NAME}.zip"}
    for server in started:
        server.shutdown()
        server.server_close()


def sends(data: bytes, announced: int | None = None) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(data) if announced is None else announced))
        request.end_headers()
        request.wfile.write(data)

    return answer


def redirects(target: str) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.end_headers()

    return answer


def missing(request: http.server.BaseHTTPRequestHandler) -> None:
    request.send_error(404)


def breaks_off(request: http.server.BaseHTTPRequestHandler) -> None:
    """Half of the archive, then a reset connection."""
    sends(proper()[:2000], len(proper()))(request)
    request.wfile.flush()
    request.connection.setsockopt(1, 13, b"\x01\x00\x00\x00\x00\x00\x00\x00")  # SO_LINGER: reset on close
    request.connection.close()


def expected_ms(kernel: str, asked: Kernel) -> float:
    return float(forest(kernel).predict([features(kernel, asked)])[0])


def test_a_fetched_predictor_is_a_device(home: Path, serve: Callable[[Answer], str]) -> None:
    assert fetch_official(NAME, serve(sends(proper()))) == home / NAME
    assert sorted(path.name for path in home.iterdir()) == [NAME]
    assert sorted(path.name for path in (home / NAME).iterdir()) == sorted(
        ["card.yaml", *(f"{kernel}.safetensors" for kernel in KERNEL_NAMES)]
    )
    model = load_device(NAME)
    price = model.price([CONV])[0]
    assert price.latency_ms == pytest.approx(expected_ms("conv-bn-relu", CONV), rel=1e-12)
    assert price.coverage == "exact"
    card = model.card
    assert (card.device, card.back_end, card.held_out, card.error_quantiles) == (NAME, "forest", None, None)
    assert set(card.sampled) == set(KERNEL_NAMES)
    assert card.fusion == published()[NAME].facts.fusion


def test_what_may_be_missing_may_be_missing(home: Path, serve: Callable[[Answer], str]) -> None:
    fetch_official(NAME, serve(sends(zipped(in_folder({k: v for k, v in files().items() if k != "fc.pkl"})))))
    assert load_device(NAME).price([Kernel("fc", 1, 1, (1024,), 1000)])[0].latency_ms is None


def changed(name: str, data: bytes) -> bytes:
    return zipped(in_folder({**files(), name: data}))


def longer(count: int) -> bytes:
    return proper() + bytes(count)


SMALL = {"add.pkl": files()["add.pkl"]}
OTHER = bytes([*files()["fc.pkl"][:-9], files()["fc.pkl"][-9] ^ 1, *files()["fc.pkl"][-8:]])
TWICE = {"a/add.pkl": files()["add.pkl"], "b/add.pkl": files()["add.pkl"]}
REFUSED: dict[str, tuple[Callable[[], Answer], type[Exception], str]] = {
    "another content": (lambda: sends(changed("fc.pkl", OTHER)), DataError, r"fc\.pkl has sha256 .*pinned is"),
    "another size": (lambda: sends(changed("fc.pkl", b"abc")), DataError, "of a file of 3 bytes"),
    "a forest fewer": (lambda: sends(zipped(in_folder(SMALL))), DataError, "lacks conv-bn-relu"),
    "a forest more": (lambda: sends(changed("bn.pkl", b"abc")), DataError, r"bn\.pkl is not pinned"),
    "no kernel": (lambda: sends(changed("evil.pkl", b"abc")), DataError, "no kernel 'evil'"),
    "no forests": (lambda: sends(zipped({"readme.txt": b"x"})), DataError, r"no \.pkl file"),
    "up": (lambda: sends(zipped({**files(), "../../evil.pkl": b"x"})), DataError, "a path outside itself"),
    "absolute": (lambda: sends(zipped({**files(), "/etc/evil.pkl": b"x"})), DataError, "a path outside itself"),
    "backslash": (lambda: sends(zipped({**files(), "..\\evil.pkl": b"x"})), DataError, "a path outside itself"),
    "drive": (lambda: sends(zipped({**files(), "C:evil.pkl": b"x"})), DataError, "a path outside itself"),
    "twice": (lambda: sends(zipped({**files(), **TWICE})), DataError, r"holds 'add\.pkl' twice"),
    "cut": (lambda: sends(proper()[:-500]), DataError, "not an intact zip file"),
    "cut in front": (lambda: sends(proper()[500:]), DataError, r"cannot read|not an intact zip file"),
    "no zip": (lambda: sends(b"<html>sign in</html>"), DataError, "not an intact zip file"),
    "ends early": (lambda: sends(proper()[:-500], len(proper())), MachineError, "ended after"),
    "breaks off": (lambda: breaks_off, MachineError, "cannot download|ended after"),
    "too long": (lambda: sends(longer(4 << 20)), DataError, "sends more than"),
    "not there": (lambda: missing, MachineError, "HTTP 404"),
    "redirected to http": (lambda: redirects("http://127.0.0.1:1/x.zip"), DataError, "is not https: not followed"),
    "redirected to a file": (lambda: redirects("file:///etc/passwd"), MachineError, "HTTP 302"),
    "redirected to nobody": (lambda: redirects("https://127.0.0.1:1/x.zip"), MachineError, "cannot download"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_and_leaves_nothing(
    case: str, home: Path, serve: Callable[[Answer], str]
) -> None:
    answer, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        fetch_official(NAME, serve(answer()))
    assert list(home.iterdir()) == []
    assert list(home.parent.parent.rglob("evil*")) == []


def test_every_flipped_bit_of_an_archive_is_refused_or_changes_nothing(
    home: Path, tmp_path: Path, pinned: Published
) -> None:
    """500 places in an archive: names, sizes, checksums, the forests themselves."""
    whole = proper()
    choose = np.random.default_rng(0)
    for position in choose.integers(0, len(whole), 500).tolist():
        data = bytearray(whole)
        data[position] ^= 1 << int(choose.integers(8))
        archive = tmp_path / "a.zip"
        archive.write_bytes(data)
        try:
            with members(archive) as found:
                fetch._verify(pinned, fetch._forests(found), NAME)
                for name, content in files().items():
                    if name in found:
                        with found[name].open() as stream:
                            assert stream.read() == content
        except DataError:
            continue


def test_nobody_answers(home: Path) -> None:
    with pytest.raises(MachineError, match=r"quadnas predictors import FILE --as NAME"):
        fetch_official(NAME, "http://127.0.0.1:1/v1")
    assert list(home.iterdir()) == []


def test_an_interrupt_leaves_nothing(
    home: Path, serve: Callable[[Answer], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "save_tensors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch_official(NAME, serve(sends(proper())))
    assert list(home.iterdir()) == []


def test_a_device_that_is_there_is_kept(home: Path) -> None:
    (home / NAME).mkdir(parents=True)
    with pytest.raises(ConfigError, match="exists already; remove it"):
        fetch_official(NAME, "http://127.0.0.1:1/v1")


def test_an_unknown_name() -> None:
    quadnas("predictors", "fetch", "cortexA77").refused(2, "no predictor 'cortexA77'", NAME)
    for name in ("../x", "a/b", "", ".hidden"):
        quadnas("predictors", "import", ".", "--as", name).refused(2, "cannot name a device")


def in_a_folder(folder: Path, content: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("as_zip", [False, True])
def test_nn_meter_s_own_files_are_recognised(home: Path, tmp_path: Path, as_zip: bool) -> None:
    source = in_a_folder(tmp_path / "mine", {k: v for k, v in files().items() if k != "add.pkl"})
    if as_zip:
        source = tmp_path / "mine.zip"
        source.write_bytes(zipped({k: v for k, v in files().items() if k != "add.pkl"}))
    assert quadnas("predictors", "import", source, "--as", "phone").code == 0
    card = load_device("phone").card
    assert (card.device, card.runtime) == ("phone", published()[NAME].facts.runtime)
    assert "nn-Meter's published random forests" in card.provenance
    assert (home / "phone" / "card.yaml").exists()


def test_the_user_s_own_files_are_unverified_and_bring_their_fusion_rules(home: Path, tmp_path: Path) -> None:
    own = {"conv-bn-relu.pkl": pickle.dumps(fitted(7, seed=5)), "add.pkl": files()["add.pkl"]}
    source = in_a_folder(tmp_path / "mine", own)
    quadnas("predictors", "import", source, "--as", "mine").refused(
        2, "fusion_rules.json", "what the device fuses"
    )
    assert list(home.iterdir()) == []
    (source / "fusion_rules.json").write_text(RULES)
    import_forests(source, "mine")
    model = load_device("mine")
    assert "unverified" in model.card.provenance
    assert model.card.fusion == (("conv", "bn"), ("conv-bn", "relu"), ("conv-bn", "relu6"))
    expected = fitted(7, seed=5).predict([features("conv-bn-relu", CONV)])[0]
    assert model.price([CONV])[0].latency_ms == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize("rules", ["", "[]", "{", '{"BF_a_b": 1}', "[" * 10000])
def test_damaged_fusion_rules_are_refused(home: Path, tmp_path: Path, rules: str) -> None:
    source = in_a_folder(tmp_path / "mine", {"add.pkl": pickle.dumps(fitted(3, seed=1))})
    (source / "fusion_rules.json").write_text(rules)
    quadnas("predictors", "import", source, "--as", "mine").refused(
        4, "not a file of nn-Meter's fusion rules"
    )


def test_bad_files_are_refused_and_leave_nothing(home: Path, tmp_path: Path) -> None:
    hostile = b"\x80\x03cposix\nsystem\n(X\x09\x00\x00\x00touch rantR."
    source = in_a_folder(tmp_path / "mine", {"add.pkl": hostile, "fusion_rules.json": RULES.encode()})
    quadnas("predictors", "import", source, "--as", "mine").refused(
        4, "posix.system", "nothing of it was run"
    )
    quadnas("predictors", "import", tmp_path / "none", "--as", "mine").refused(2, "no folder or zip file")
    (source / "add.pkl").write_bytes(pickle.dumps(fitted(4)))
    quadnas("predictors", "import", source, "--as", "mine").refused(4, "add.pkl", "3 features")
    assert list(home.iterdir()) == []


def test_an_unchecked_device_says_so(home: Path, tmp_path: Path) -> None:
    import_forests(in_a_folder(tmp_path / "mine", files()), "phone")
    listed = quadnas("devices").out
    assert "unchecked" in next(line for line in listed.splitlines() if line.startswith("phone"))
    assert quadnas("devices", "--json").json["phone"]["checked"] is False
    assert "not checked on measured networks here" in quadnas("devices", "show", "phone").out
    measured = {
        "id": "n", "family": "f", "latency_ms": {"cortexA76": expected_ms("conv-bn-relu", CONV) * 1.04},
        "kernels": [["conv-bn-relu", 56, 64, 128, 3, 2]],
    }  # fmt: skip
    (tmp_path / "m.jsonl").write_text(json.dumps(measured) + "\n")
    report = quadnas(
        "predictors", "evaluate", "--device", "phone", "--data", tmp_path / "m.jsonl", "--json"
    ).json
    assert (report["models"], report["within_5"], report["interval_90"]) == (1, 1.0, None)


def test_the_pinned_table_is_the_published_one() -> None:
    """Against the table of the repository, if it is here, and against the lists of nn-Meter's package."""
    import csv
    from importlib.util import find_spec

    import yaml

    folder = {"cpu": NAME, "gpu": "adreno640gpu_tflite21", "gpu1": "adreno630gpu_tflite21",
              "vpu": "myriadvpu_openvino2019r2"}  # fmt: skip
    spec = find_spec("nn_meter")
    assert spec and spec.origin
    listed = yaml.safe_load((Path(spec.origin).parent / "configs/predictors.yaml").read_text())
    assert {row["name"] for row in listed} == set(published())
    for row in listed:
        found = published()[row["name"]]
        assert set(found.files) - set(found.optional) == set(row["kernel_predictors"])
        assert row["download"] == f"{fetch.RELEASE}/{row['name']}.zip"
    data = Path(os.environ.get("QUADNAS_MEASURED", Path(__file__).parents[2] / "../shared/data"))
    if not data.is_dir():
        pytest.skip("no published table: set QUADNAS_MEASURED to the folder of the data")
    table = list(csv.DictReader((data / "nnmeter_bench/official_forests.csv").read_text().splitlines()))
    for line in table:
        _, _, place, file = line["path"].split("/")
        pinned = published()[folder[place]].files[file.removesuffix(".pkl")]
        assert (pinned.sha256, pinned.bytes) == (line["sha256"], int(line["bytes"]))
    assert (
        sum(len(found.files) for found in published().values()) == len(table) + 1
    )  # add is addrelu once more

"""nn-Meter's forests -> a device of the user's: downloaded or from disk, verified, converted to arrays."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import torch

from quadnas.config import validated
from quadnas.errors import ConfigError, DataError, MachineError
from quadnas.latency.card import DeviceCard, DeviceFacts, Sampled, write_card
from quadnas.latency.devices import KIND
from quadnas.latency.nnmeter_kernels import KERNELS
from quadnas.nnmeter.archive import RULES, Member, fusion_pairs, members, reading
from quadnas.nnmeter.forests import read_forest
from quadnas.nnmeter.official import Published, published
from quadnas.registry import did_you_mean
from quadnas.resources import own_entry
from quadnas.run.atomic import commit_bytes, disk_errors, sync_folder
from quadnas.run.tensors import save_tensors

RELEASE = "https://github.com/microsoft/nn-Meter/releases/download/v1.0-data"
TIMEOUT_SECONDS = 60
_CHUNK = 1 << 20
_UNKNOWN_PEAK = 1e6
"""GMAC/s and GB/s that no device reaches: nothing is known of the user's own."""


def fetch_official(name: str, release: str = RELEASE) -> Path:
    """Download one of nn-Meter's published predictors and register it as the device ``name``.

    Every forest of the archive must have its pinned sha256 and size. Returns the new folder under
    $QUADNAS_HOME/latency_predictors; on any error there is none. Raises ConfigError for an unknown name, a
    device that is there already; MachineError if the network or the disk fails; DataError
    for an archive that differs from what is pinned.
    """
    known = published()
    if name not in known:
        raise ConfigError(f"nn-Meter has published no predictor {name!r}; {did_you_mean(name, known)}")
    found = known[name]
    target = own_entry(KIND, name)
    with _new_device(target) as folder:
        archive = folder.with_name("archive.zip")
        size = sum(file.bytes for file in found.files.values())
        commit_bytes(archive, _download(f"{release}/{name}.zip", size + _CHUNK))
        with members(archive) as files:
            forests = _forests(files)
            _verify(found, forests, name)
            _write_device(folder, found.facts, forests)
    return target


def import_forests(path: Path, name: str) -> Path:
    """Register a folder or zip file of nn-Meter's ``.pkl`` files as the device ``name``.

    Files that all carry the pinned sha256 of one published predictor get what is known of its device. Others
    are the user's own: unverified, fused by the ``fusion_rules.json`` beside them. Returns and raises as
    ``fetch_official`` does.
    """
    target = own_entry(KIND, name)
    with _new_device(target) as folder, members(path) as files:
        forests = _forests(files)
        facts = _recognised(forests) or _own_facts(path, files)
        _write_device(folder, facts.model_copy(update={"device": name}), forests)
    return target


@contextmanager
def _new_device(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes ``target`` in one step when the block ends well."""
    if target.exists():
        raise ConfigError(
            f"{target} exists already; remove it to get the device anew, or choose another name"
        )
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-", suffix=".tmp"))
    try:
        folder = scratch / target.name
        folder.mkdir()
        yield folder
        with disk_errors(target):
            folder.rename(target)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _forests(files: Mapping[str, Member]) -> dict[str, Member]:
    """The forests by the name of their kernel."""
    found = {name.removesuffix(".pkl"): file for name, file in files.items() if name.endswith(".pkl")}
    if not found:
        raise DataError("no .pkl file in it: nn-Meter keeps one forest per kernel, such as conv-bn-relu.pkl")
    for kernel, file in found.items():
        if kernel not in KERNELS:
            raise DataError(
                f"{file.source}: nn-Meter has no kernel {kernel!r}; leave it out; {did_you_mean(kernel, KERNELS)}"
            )
    return found


def _verify(found: Published, forests: Mapping[str, Member], name: str) -> None:
    if missing := set(found.files) - set(forests) - set(found.optional):
        raise DataError(f"the archive of {name} lacks {', '.join(sorted(missing))}: nothing of it was used")
    for kernel, file in forests.items():
        pinned = found.files.get(kernel)
        if pinned is None:
            raise DataError(f"{file.source} is not pinned for {name}: nothing of it was used")
        digest = file.sha256() if file.size == pinned.bytes else f"of a file of {file.size} bytes"
        if digest != pinned.sha256:
            raise DataError(
                f"{file.source} has sha256 {digest}, pinned is {pinned.sha256} ({pinned.bytes} bytes): it was "
                "damaged or exchanged, and nothing of the archive was used; fetch it again"
            )


def _recognised(forests: Mapping[str, Member]) -> DeviceFacts | None:
    """What is known of the published predictor that all files belong to, if there is one."""
    digests: dict[str, str] = {}
    for found in published().values():
        for kernel, file in forests.items():
            pinned = found.files.get(kernel)
            if pinned is None or pinned.bytes != file.size:
                break
            if digests.setdefault(kernel, file.sha256()) != pinned.sha256:
                break
        else:
            return found.facts
    return None


def _own_facts(path: Path, files: Mapping[str, Member]) -> DeviceFacts:
    if RULES not in files:
        raise ConfigError(
            f"{path}: these are not nn-Meter's published files, and there is no {RULES} beside them, which says "
            "what the device fuses; add the one of your predictor"
        )
    source = f"of the user's from {path.resolve().name}, unverified; quadnas predictors evaluate checks them"
    facts = {
        "format": "quadnas-device/1",
        "device": "own",
        "description": "the user's own nn-Meter predictor",
        "runtime": "not stated",
        "precision": "not stated",
        "bytes_per_element": 4,
        "batch": 1,
        "batches": (1, 1),
        "measured_batch": 1,
        "source": "fitted",
        "provenance": f"random forests {source}; a forest is not monotone",
        "licence": "not stated",
        "back_end": "forest",
        "measured_column": "own",
        "launch_us": 1e-3,
        "peak_gmacs_per_second": _UNKNOWN_PEAK,
        "peak_gbytes_per_second": _UNKNOWN_PEAK,
        "extrapolation_error": 0.5,
        "fusion": fusion_pairs(files[RULES]),
        "folded": (),
        "terms": {},
        "surrogates": {},
    }
    return validated(facts, DeviceFacts, str(path))


def _write_device(folder: Path, facts: DeviceFacts, forests: Mapping[str, Member]) -> None:
    arrays: dict[str, str] = {}
    for kernel, file in sorted(forests.items()):
        with reading(file), file.open() as stream:
            forest = read_forest(stream, file.size, KERNELS[kernel].columns, file.source)
        tensors = {name: torch.from_numpy(array) for name, array in forest.arrays(kernel).items()}
        arrays[f"{kernel}.safetensors"] = save_tensors(folder / f"{kernel}.safetensors", tensors)["sha256"]
    card = DeviceCard(
        **dict(facts),
        families_left_out=(),
        sampled={k: (_sampled(k),) for k in sorted(forests)},
        arrays=arrays,
    )
    commit_bytes(folder / "card.yaml", write_card(card))


def _sampled(kernel: str) -> Sampled:
    """nn-Meter's published ranges of one kernel, as a card states them."""
    found = KERNELS[kernel]
    return Sampled(
        h=(found.sides[0], found.sides[-1]),
        cin=found.cin,
        cout=found.cout,
        kernels=found.kernels,
        strides=found.strides,
    )


class _HttpsOnly(HTTPRedirectHandler):
    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme != "https":
            raise DataError(f"{req.full_url} redirects to {newurl[:200]!r}, which is not https: not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, limit: int) -> Iterator[bytes]:
    """The bytes behind ``url`` in pieces, at most ``limit`` and no fewer than announced."""
    received, announced = 0, None
    try:
        with build_opener(_HttpsOnly).open(url, timeout=TIMEOUT_SECONDS) as answer:
            announced = answer.headers.get("Content-Length")
            while piece := answer.read(_CHUNK):
                received += len(piece)
                if received > limit:
                    raise DataError(
                        f"{url} sends more than {limit} bytes, the pinned files together: refused"
                    )
                yield piece
    except (OSError, HTTPException) as error:
        reason = (
            f"HTTP {error.code}" if isinstance(error, HTTPError) else getattr(error, "reason", None) or error
        )
        raise MachineError(
            f"cannot download {url}: {reason}; check the network, or get the file with another machine and "
            "use: quadnas predictors import FILE --as NAME"
        ) from None
    if announced is not None and announced != str(received):
        raise MachineError(f"{url} ended after {received} of {announced} bytes; fetch it again")

"""JSON that is read back exactly as it was written, or refused."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NoReturn

_PREFIX = b'{"sha256": "'
_SUFFIX = b'", '
_BODY = len(_PREFIX) + 64 + len(_SUFFIX)


def encode(value: Mapping[str, Any]) -> bytes:
    """``value`` as one line of JSON without the newline; floats keep every bit, tuples become lists.

    Raises ValueError for NaN and infinities, TypeError for other types and for keys that are not strings,
    which JSON would silently turn into strings.
    """
    _refuse_other_keys(value)
    return json.dumps(dict(value), allow_nan=False).encode()


def decode(line: bytes) -> dict[str, Any]:
    """The object that ``encode`` wrote; raises ValueError for anything that is not a strict JSON object."""
    try:
        value = json.loads(line.decode(), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def seal(value: Mapping[str, Any]) -> bytes:
    """``value`` as a JSON file that carries the sha256 of all its other bytes; raises as ``encode`` does."""
    body = encode(value)[1:] + b"\n"
    return _PREFIX + hashlib.sha256(body).hexdigest().encode() + _SUFFIX + body


def unseal(data: bytes) -> dict[str, Any]:
    """The value that ``seal`` was given; raises ValueError if a single bit of the file differs."""
    body = data[_BODY:]
    if data[:_BODY] != _PREFIX + hashlib.sha256(body).hexdigest().encode() + _SUFFIX:
        raise ValueError("its content does not match its checksum")
    return decode(b"{" + body)


def _refuse_other_keys(value: Any) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key in JSON is a string, not {key!r}")
            _refuse_other_keys(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_other_keys(item)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")

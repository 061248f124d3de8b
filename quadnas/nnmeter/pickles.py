"""Pickles read without executing them: opcodes in, plain records out; nothing is imported or called.

The standard library's disassembler names the opcodes; the few that a pickled random forest consists of are
carried out on plain values, and whatever a pickle would import or call becomes a ``Record`` that says so.
"""

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from quadnas.errors import DataError

MAX_OPCODES = 1_000_000
"""Ten times what nn-Meter's largest forest, 690 trees, has."""
MAX_ITEM_BYTES = 256 << 20
MAX_LINE_BYTES = 256
MAX_MEMO = 1 << 24

FOREST = "sklearn.ensemble._forest.RandomForestRegressor"
MEMBER = "sklearn.tree._classes.DecisionTreeRegressor"
TREE = "sklearn.tree._tree.Tree"
DTYPE = "numpy.dtype"
ARRAYS = ("numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct")
BUFFERS = ("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer")
LATIN1 = "_codecs.encode"
ALLOWED = frozenset(
    {
        FOREST, MEMBER, TREE, DTYPE, *ARRAYS, *BUFFERS, LATIN1, "numpy.ndarray",
        "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    }
)  # fmt: skip
_SCALARS = frozenset({"i8", "i4", "f8", "f4", "u1", "b1"})


class UnreadableError(ValueError):
    """The bytes are not a pickle that this reader takes; the text says what it met."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name that a pickle refers to; it is never looked up."""

    name: str


@dataclass(slots=True, eq=False, repr=False)
class Record:
    """An object that a pickle would make: the class or function, its arguments, and its state."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


class _Source:
    """A stream that hands out no more than it has, whatever length an opcode claims."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, count: int) -> bytes:
        if count > min(self._left, MAX_ITEM_BYTES):
            raise UnreadableError(f"an item of {count} bytes where {self._left} are left")
        data = self._stream.read(count)
        self._left -= len(data)
        return data

    def readline(self) -> bytes:
        line = self._stream.readline(MAX_LINE_BYTES)
        self._left -= len(line)
        if b"\\" in line:
            raise UnreadableError("an escape in a name")
        return line


_MARK = object()


@dataclass(slots=True)
class _Machine:
    """The stack and the memo of a pickle that is being read."""

    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def pop(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise UnreadableError("an opcode that takes a value where there is none")
        return self.stack.pop()

    def pop_to_mark(self) -> list[Any]:
        for start in range(len(self.stack) - 1, -1, -1):
            if self.stack[start] is _MARK:
                items = self.stack[start + 1 :]
                del self.stack[start:]
                return items
        raise UnreadableError("an opcode that ends a group where none was begun")

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise UnreadableError(f"an opcode that changes a {kind.__name__} where there is none")
        return self.stack[-1]


def read_pickle(stream: IO[bytes], size: int, source: str) -> Record:
    """The object of a pickle (protocol 2 to 5) of ``size`` bytes, as records; ``source`` names it in errors.

    Memory stays within a small multiple of ``size``. Raises DataError for an opcode or a name that no random
    forest needs, for anything malformed, and for bytes behind the end.
    """
    try:
        found = _run(_Source(stream, size))
        if stream.read(1):
            raise UnreadableError("bytes behind the end of the pickle")
    except (ValueError, OverflowError, MemoryError) as error:
        raise DataError(
            f"{source} is not a scikit-learn random forest that can be read without executing it: "
            f"{str(error)[:200] or type(error).__name__}; nothing of it was run"
        ) from None
    return found


def _run(source: _Source) -> Record:
    machine = _Machine()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], source))):
        if count == 0 and not (opcode.name == "PROTO" and argument in range(2, 6)):
            raise UnreadableError("it does not begin as a pickle of protocol 2 to 5")
        if count > MAX_OPCODES:
            raise UnreadableError(f"more than {MAX_OPCODES} opcodes")
        if opcode.name == "STOP":
            break
        if opcode.name in _VALUES:
            machine.stack.append(argument)
        elif action := _ACTIONS.get(opcode.name):
            action(machine, argument)
        else:
            raise UnreadableError(f"the opcode {opcode.name}")
    if len(machine.stack) != 1 or not isinstance(machine.stack[0], Record):
        raise UnreadableError("it does not end in one object")
    return machine.stack[0]


def _global(machine: _Machine, name: str) -> None:
    if name not in ALLOWED:
        raise UnreadableError(f"it refers to {name!r}, which no random forest needs")
    machine.stack.append(Global(name))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.pop(), machine.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise UnreadableError("a reference whose name is no text")
    _global(machine, f"{module[:MAX_LINE_BYTES]}.{name[:MAX_LINE_BYTES]}")


def _call(machine: _Machine, _: Any) -> None:
    """REDUCE and NEWOBJ alike: what would be called, with its arguments, becomes a record."""
    arguments, called = machine.pop(), machine.pop()
    if not (isinstance(called, Global) and type(arguments) is tuple):
        raise UnreadableError("a call of something that is no name")
    machine.stack.append(Record(called.name, arguments))


def _build(machine: _Machine, _: Any) -> None:
    state = machine.pop()
    record = machine.top(Record)
    if record.state is not None or state is None:
        raise UnreadableError("an object whose state is set twice")
    record.state = state


def _set_items(machine: _Machine, items: list[Any]) -> None:
    target = machine.top(dict)
    if len(items) % 2 or not all(isinstance(key, str) for key in items[::2]):
        raise UnreadableError("a key that is no text")
    target.update(zip(items[::2], items[1::2], strict=True))


def _put(machine: _Machine, index: int) -> None:
    if not machine.stack or machine.stack[-1] is _MARK or index > MAX_MEMO:
        raise UnreadableError("a note of nothing")
    machine.memo[index] = machine.stack[-1]


def _get(machine: _Machine, index: int) -> None:
    if index not in machine.memo:
        raise UnreadableError("a reference to a value that was never noted")
    machine.stack.append(machine.memo[index])


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, _: Any) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.stack.append(tuple(reversed(items)))

    return make


def _pushed(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make())


_VALUES = frozenset(
    {
        "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
        "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
    }
)  # fmt: skip
_ACTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": _pushed(lambda: _MARK),
    "NONE": _pushed(lambda: None),
    "NEWTRUE": _pushed(lambda: True),
    "NEWFALSE": _pushed(lambda: False),
    "EMPTY_DICT": _pushed(dict),
    "EMPTY_LIST": _pushed(list),
    "EMPTY_TUPLE": _tuple(0),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_to_mark())),
    "APPEND": lambda machine, _: _append(machine, [machine.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.pop_to_mark()),
    "SETITEM": lambda machine, _: _set_items(machine, [machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.pop_to_mark()),
    "GLOBAL": lambda machine, argument: _global(machine, argument.replace(" ", ".", 1)),
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "BUILD": _build,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "BINGET": _get,
    "LONG_BINGET": _get,
}


def _append(machine: _Machine, items: list[Any]) -> None:
    machine.top(list).extend(items)


def as_array(value: Any) -> NDArray[Any]:
    """The array that a record of NumPy's describes; raises UnreadableError if it is not a plain numeric one."""
    if not isinstance(value, Record):
        raise UnreadableError("a value where an array belongs")
    if value.name in ARRAYS:
        state = _sized(value.state, 5)
        _, shape, described, by_columns, data = state
    elif value.name in BUFFERS:
        data, described, shape, order = _sized(value.arguments, 4)
        by_columns = order == "F"
    else:
        raise UnreadableError(f"{value.name!r} where an array belongs")
    dtype = _dtype(described)
    content = _content(data)
    if not (isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 2**40 for n in shape)):
        raise UnreadableError("an array whose shape is no tuple of sizes")
    if len(shape) > 3 or len(content) != int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise UnreadableError(f"an array of shape {shape[:4]} in {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if by_columns else "C")


def _content(data: Any) -> bytes | bytearray:
    if isinstance(data, Record) and data.name == LATIN1:
        text, coding = _sized(data.arguments, 2)
        if not isinstance(text, str) or coding != "latin1":
            raise UnreadableError("bytes in a coding other than latin1")
        return text.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise UnreadableError("an array without bytes")
    return data


def _dtype(value: Any) -> np.dtype[Any]:
    """The dtype of a record: a little-endian number, or a structure of such numbers."""
    code = _code(value)
    if type(value.state) is not tuple or len(value.state) < 7 or value.state[1] not in ("<", "|", "="):
        raise UnreadableError("a dtype that is not little-endian")
    if code in _SCALARS:
        return np.dtype(f"<{code}")
    names, fields, size = value.state[3], value.state[4], value.state[5]
    if type(names) is not tuple or type(fields) is not dict or type(size) is not int or code != f"V{size}":
        raise UnreadableError(f"the dtype {code[:20]!r}")
    found = [_sized(fields.get(name) if isinstance(name, str) else None, 2) for name in names]
    if not all(_code(kind) in _SCALARS and type(offset) is int for kind, offset in found):
        raise UnreadableError("a structure of structures")
    return np.dtype(
        {
            "names": list(names),
            "formats": [_dtype(kind) for kind, _ in found],
            "offsets": [offset for _, offset in found],
            "itemsize": size,
        }
    )


def _code(value: Any) -> str:
    code = (
        value.arguments[0] if isinstance(value, Record) and value.name == DTYPE and value.arguments else None
    )
    if not isinstance(code, str):
        raise UnreadableError("an array without a dtype")
    return code


def _sized(value: Any, count: int) -> tuple[Any, ...]:
    if type(value) is not tuple or len(value) != count:
        raise UnreadableError("a tuple of another length than its place asks for")
    return value

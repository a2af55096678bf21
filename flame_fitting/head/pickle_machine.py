"""The machine that a pickle's instructions drive: it makes arrays and plain containers, and calls nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from flame_fitting.head.pickle_opcodes import instructions
from flame_fitting.head.pickle_values import NUMBER_TYPE, PickleName, RefusedError, SparseColumns, role_of, size_of

MAX_OPCODES = 200_000
"""A head model needs some hundreds."""
MAX_DEPTH = 24
"""Containers within containers."""
MAX_ITEMS = 1_000_000
"""Items of all containers, counted as often as they are referred to."""

_MARK = object()


@dataclass(eq=False)
class _Object:
    """An array, dtype, matrix or chumpy array before and after its state is known."""

    role: str
    value: Any = None
    built: bool = False


class PickleMachine:
    """The stack, the memo and what may be done with them; other formats that hold pickles build on it."""

    def __init__(self, data: bytes, object_arrays: bool) -> None:
        self.data, self.object_arrays = data, object_arrays
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        # Every array's bytes stand in the file once; more can only come of using them again and again.
        self.bytes_left = 2 * len(data) + 2**16
        self.items = 0

    def run(self) -> Any:
        for count, (name, argument) in enumerate(instructions(self.data)):
            if count >= MAX_OPCODES:
                raise RefusedError(f"it has more than {MAX_OPCODES} instructions")
            if name == "STOP":
                break
            handler = HANDLERS.get(name)
            if handler is None:
                raise RefusedError(f"it has the instruction {name}")
            handler(self, argument)
        if len(self.stack) != 1:
            raise ValueError("it ends with more or less than one object")
        return self.resolve(self.stack.pop(), 0)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("an instruction lacks its operands")
        return value

    def pop_marked(self) -> list[Any]:
        for start in range(len(self.stack) - 1, -1, -1):
            if self.stack[start] is _MARK:
                values = self.stack[start + 1 :]
                del self.stack[start:]
                return values
        raise ValueError("an instruction lacks its mark")

    def top(self, kind: type) -> Any:
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise ValueError(f"{kind.__name__} expected on the stack")
        return value

    # Containers

    def set_items(self, pairs: list[Any]) -> None:
        target = self.top(dict)
        if len(pairs) % 2:
            raise ValueError("a dictionary with a key too many")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, (str, bytes, int)):
                raise RefusedError(f"a dictionary has a key of the kind {type(key).__name__}")
            target[key] = value

    def tuple_of(self, count: int) -> None:
        if count > len(self.stack):
            raise ValueError("an instruction lacks its operands")
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    # Names and what may be done with them

    def name(self, module: Any, name: Any) -> None:
        text = f"{module}.{name}"
        role = role_of(text)
        if role is None:
            raise RefusedError(f"it names {text[:80]!r}")
        self.stack.append(PickleName(role, text))

    def reduce(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, PickleName) or not isinstance(arguments, tuple):
            raise RefusedError("it calls something that is no name")
        call = _CALLS.get(function.role)
        if call is None:
            raise RefusedError(f"it calls {function.text}")
        self.stack.append(call(self, *arguments))

    def new_object(self) -> None:
        arguments, kind = self.pop(), self.pop()
        if not isinstance(kind, PickleName) or kind.role not in ("chumpy", "sparse") or arguments != ():
            raise RefusedError("it makes an object of a kind that head models do not have")
        self.stack.append(_Object(kind.text if kind.role == "chumpy" else kind.role))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if not isinstance(target, _Object) or target.built:
            raise RefusedError("it changes an object that is none of its own")
        if target.role == "dtype":
            target.value = self.ordered_dtype(target.value, state)
        elif target.role == "array":
            target.value = self.array_of_state(state)
        elif isinstance(state, dict):
            target.value = state
        else:
            raise RefusedError(f"the state of {target.role} is no dictionary")
        target.built = True

    # What the names stand for

    def call_reconstruct(self, kind: Any, shape: Any, code: Any) -> _Object:
        if not isinstance(kind, PickleName) or kind.role != "ndarray":
            raise RefusedError("it makes an array of a kind of its own")
        return _Object("array")

    def call_dtype(self, code: Any, align: Any = False, copy: Any = False) -> _Object:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if isinstance(code, str) and code in ("O", "O8", "|O") and self.object_arrays:
            return _Object("dtype", np.dtype(object))
        if not isinstance(code, str) or not NUMBER_TYPE.fullmatch(code):
            raise RefusedError(f"it has an array of the type {str(code)[:20]!r}, not of numbers")
        return _Object("dtype", np.dtype(code))

    def ordered_dtype(self, dtype: np.dtype, state: Any) -> np.dtype:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise RefusedError("it has an array of records, not of numbers")
        order: Any = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "=", "|"):
            raise ValueError("an array of unknown byte order")
        return dtype if order == "|" else dtype.newbyteorder(order)

    def array_of_state(self, state: Any) -> Any:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("an array without its state")
        _, shape, dtype, fortran, raw = state
        if isinstance(dtype, _Object) and dtype.value == np.dtype(object):
            return self.objects(shape, raw)
        return self.array(shape, dtype, fortran, raw)

    def array(self, shape: Any, dtype: Any, fortran: Any, raw: Any) -> np.ndarray:
        kind = self.numbers(dtype)
        size = size_of(shape) * kind.itemsize
        # Python 2 writes an array's bytes as text.
        if not isinstance(raw, (str, bytes, bytearray)) or len(raw) != size:
            raise RefusedError(f"an array of shape {str(shape)[:60]} does not have the bytes for it")
        self.spend(size)
        content = raw.encode("latin-1") if isinstance(raw, str) else bytes(raw)
        array = np.frombuffer(content, dtype=kind).reshape(shape, order="F" if fortran else "C")
        return array.astype(kind.newbyteorder("="), copy=True)

    def objects(self, shape: Any, items: Any) -> Any:
        if not isinstance(items, list) or len(items) != size_of(shape):
            raise ValueError("an array of objects that are not there")
        return items[0] if shape == () else items

    def numbers(self, dtype: Any) -> np.dtype:
        if not isinstance(dtype, _Object) or dtype.role != "dtype" or dtype.value == np.dtype(object):
            raise RefusedError("it has an array that is not of numbers")
        return dtype.value

    def call_scalar(self, dtype: Any, raw: Any = b"") -> Any:
        return self.array((), dtype, False, raw)[()]

    def call_frombuffer(self, raw: Any, dtype: Any, shape: Any, order: Any) -> Any:
        return self.array(shape, dtype, order == "F", raw)

    def call_encode(self, text: Any, encoding: Any = "latin1") -> bytes:
        # Python 3 writes bytes this way where the protocol has none.
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise RefusedError("it encodes what is no text of bytes")
        self.spend(len(text))
        return text.encode("latin-1")

    def call_set(self, items: Any = ()) -> set:
        if not isinstance(items, (list, tuple)) or not all(isinstance(i, (str, int, float)) for i in items):
            raise RefusedError("a set of objects")
        self.count_items(len(items))
        return set(items)

    def call_reconstructor(self, kind: Any, base: Any, state: Any) -> _Object:
        plain = isinstance(base, PickleName) and base.role == "object" and state is None
        if not plain or not isinstance(kind, PickleName) or kind.role not in ("chumpy", "sparse"):
            raise RefusedError("it makes an object of a kind that head models do not have")
        return _Object(kind.text if kind.role == "chumpy" else kind.role)

    # The result

    def resolve(self, value: Any, depth: int) -> Any:
        """The value with arrays in place of what stood for them."""
        if depth > MAX_DEPTH:
            raise RefusedError(f"its containers are nested more than {MAX_DEPTH} deep")
        self.count_items(1)
        if isinstance(value, dict):
            return {key: self.resolve(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list):
            return [self.resolve(item, depth + 1) for item in value]
        if isinstance(value, tuple):
            return tuple(self.resolve(item, depth + 1) for item in value)
        if isinstance(value, PickleName) or value is _MARK:
            raise RefusedError("it has a name as a value")
        if isinstance(value, _Object):
            return self.resolve_object(value, depth)
        return value

    def resolve_object(self, target: _Object, depth: int) -> Any:
        if not target.built:
            raise ValueError(f"{target.role} without a state")
        if target.role == "array":
            return target.value if isinstance(target.value, np.ndarray) else self.resolve(target.value, depth + 1)
        if target.role == "sparse":
            return self.sparse(target.value, depth)
        if target.role == "dtype":
            raise RefusedError("it has a type as a value")
        return self.chumpy(target.role, target.value, depth)

    def sparse(self, state: dict, depth: int) -> SparseColumns:
        parts = {key: self.resolve(state.get(key), depth + 1) for key in ("data", "indices", "indptr")}
        shape: Any = state.get("_shape", state.get("shape"))
        if size_of(shape) < 0 or len(shape) != 2 or not all(isinstance(part, np.ndarray) for part in parts.values()):
            raise ValueError("a sparse matrix that lacks a part")
        return SparseColumns(shape=(int(shape[0]), int(shape[1])), **parts)

    def chumpy(self, name: str, state: dict, depth: int) -> np.ndarray:
        """chumpy.Ch holds its array as `x`, a slice of one (Select) holds the whole `a` and flat indices `idxs`."""
        if not name.endswith(".Select"):
            value = self.resolve(state.get("x"), depth + 1)
            if not isinstance(value, (np.ndarray, np.generic, int, float)):
                raise ValueError("a chumpy array without its numbers")
            return np.asarray(value)
        whole, index = self.resolve(state.get("a"), depth + 1), self.resolve(state.get("idxs"), depth + 1)
        shape = state.get("preferred_shape")
        if not isinstance(whole, np.ndarray) or not isinstance(index, np.ndarray) or index.dtype.kind not in "iu":
            raise ValueError("a slice of a chumpy array without its numbers")
        self.spend(index.size * whole.itemsize)
        part = whole.ravel()[index.ravel()]
        return part if shape is None or size_of(shape) != part.size else part.reshape(shape)

    # Limits

    def spend(self, size: int) -> None:
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise RefusedError("its arrays add up to more than the file holds")

    def count_items(self, count: int) -> None:
        self.items += count
        if self.items > MAX_ITEMS:
            raise RefusedError(f"its containers hold more than {MAX_ITEMS} items")


def _push(machine: PickleMachine, value: Any) -> None:
    machine.stack.append(value)


def _append(machine: PickleMachine, values: list[Any]) -> None:
    machine.top(list).extend(values)


def _put(machine: PickleMachine, index: int | None) -> None:
    value = machine.stack[-1]
    if value is _MARK:
        raise ValueError("an instruction lacks its operands")
    machine.memo[len(machine.memo) if index is None else index] = value


def _stack_name(machine: PickleMachine) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise ValueError("a name that is no text")
    machine.name(module, name)


def _pair(machine: PickleMachine) -> list[Any]:
    value, key = machine.pop(), machine.pop()
    return [key, value]


def _dict_of(machine: PickleMachine) -> None:
    pairs = machine.pop_marked()
    machine.stack.append({})
    machine.set_items(pairs)


def _add_items(machine: PickleMachine) -> None:
    items = machine.pop_marked()
    machine.top(set).update(machine.call_set(items))


_CALLS: dict[str, Callable[..., Any]] = {
    "_reconstruct": PickleMachine.call_reconstruct,
    "scalar": PickleMachine.call_scalar,
    "_frombuffer": PickleMachine.call_frombuffer,
    "dtype": PickleMachine.call_dtype,
    "encode": PickleMachine.call_encode,
    # Python 3 writes empty bytes as a call without arguments.
    "bytes": lambda machine: b"",
    "set": PickleMachine.call_set,
    "_reconstructor": PickleMachine.call_reconstructor,
}
_VALUES = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"
)
HANDLERS: dict[str, Callable[[PickleMachine, Any], Any]] = {
    **dict.fromkeys(_VALUES.split(), _push),
    "PROTO": lambda m, a: None,
    "FRAME": lambda m, a: None,
    "MARK": lambda m, a: _push(m, _MARK),
    "NONE": lambda m, a: _push(m, None),
    "NEWTRUE": lambda m, a: _push(m, True),
    "NEWFALSE": lambda m, a: _push(m, False),
    "EMPTY_DICT": lambda m, a: _push(m, {}),
    "EMPTY_LIST": lambda m, a: _push(m, []),
    "EMPTY_TUPLE": lambda m, a: _push(m, ()),
    "EMPTY_SET": lambda m, a: _push(m, set()),
    "ADDITEMS": lambda m, a: _add_items(m),
    "LIST": lambda m, a: _push(m, m.pop_marked()),
    "TUPLE": lambda m, a: _push(m, tuple(m.pop_marked())),
    "TUPLE1": lambda m, a: m.tuple_of(1),
    "TUPLE2": lambda m, a: m.tuple_of(2),
    "TUPLE3": lambda m, a: m.tuple_of(3),
    "DICT": lambda m, a: _dict_of(m),
    "APPEND": lambda m, a: _append(m, [m.pop()]),
    "APPENDS": lambda m, a: _append(m, m.pop_marked()),
    "SETITEM": lambda m, a: m.set_items(_pair(m)),
    "SETITEMS": lambda m, a: m.set_items(m.pop_marked()),
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _put,
    "GET": lambda m, a: _push(m, m.memo[a]),
    "BINGET": lambda m, a: _push(m, m.memo[a]),
    "LONG_BINGET": lambda m, a: _push(m, m.memo[a]),
    "GLOBAL": lambda m, a: m.name(*a.split(" ", 1)),
    "STACK_GLOBAL": lambda m, a: _stack_name(m),
    "REDUCE": lambda m, a: m.reduce(),
    "NEWOBJ": lambda m, a: m.new_object(),
    "BUILD": lambda m, a: m.build(),
}

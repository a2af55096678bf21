"""Reads what `torch.save` and `np.save` pickled, with the machine of `head/pickles.py`: nothing in a file is run.

torch writes a zip archive with a pickle (data.pkl) and the tensors' numbers beside it, before version 1.6 several
pickles one after the other with the numbers at the end. Tensors come as NumPy arrays.
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy import ndarray

from flame_fitting.errors import InputError
from flame_fitting.head.pickle_machine import HANDLERS, MAX_OPCODES, PickleMachine
from flame_fitting.head.pickle_values import PickleName, RefusedError
from flame_fitting.head.pickles import MAX_FILE_BYTES

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    **{"FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "LongStorage": "i8", "IntStorage": "i4"},
    **{"ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?"},
}
_TORCH_NAMES = {
    "torch._utils._rebuild_tensor_v2": "tensor",
    "torch._utils._rebuild_parameter": "parameter",
    "torch.storage._load_from_bytes": "torch_bytes",
    "collections.OrderedDict": "ordered",
    **{f"torch.{name}": f"storage:{code}" for name, code in _STORAGES.items()},
}


def read_torch_file(path: Path) -> Any:
    """The content of a file of `torch.save`: containers, text, numbers; arrays and tensors as NumPy arrays."""
    data = _bytes_of(path)
    with _Refusing(path):
        if not zipfile.is_zipfile(io.BytesIO(data)):
            return _read_legacy(data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inside = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(inside) != 1:
                raise RefusedError("it is a zip archive without data.pkl")
            root = inside[0].removesuffix("data.pkl")
            return _TorchMachine(_record(archive, inside[0]), lambda key: _record(archive, f"{root}data/{key}")).run()


def read_object_npy(path: Path) -> Any:
    """The single object (such as a dict of arrays) of an `.npy` file that `np.save` pickled."""
    stream = io.BytesIO(_bytes_of(path))
    with _Refusing(path):
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        if dtype != np.dtype(object) or shape != ():
            raise RefusedError(f"it holds an array of shape {shape}, a single object is expected")
        return _TorchMachine(stream.read()).run()


class _Refusing:
    """Turns all that a hostile or damaged file can cause into one InputError."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        wrong = (RefusedError, ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, MemoryError)
        if isinstance(error, (*wrong, AttributeError, EOFError, NotImplementedError, zipfile.BadZipFile, OSError)):
            text = (str(error).splitlines() or [type(error).__name__])[0][:120]
            raise InputError(f"{self.path}: refused, nothing in it was run: {text}. Take the original file.") from error


@dataclass(eq=False)
class _Storage:
    """The numbers of tensors; in legacy files they come after the tensors."""

    dtype: np.dtype
    data: bytes | None = None


@dataclass(eq=False)
class _Tensor:
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> ndarray:
        """The tensor; raises where it reaches beyond its storage."""
        whole = np.frombuffer(self.storage.data or b"", dtype=self.storage.dtype)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))
        if 0 in self.size:
            return np.zeros(self.size, dtype=whole.dtype)
        if not 0 <= last < len(whole) or math.prod(self.size) > len(whole):
            raise RefusedError("a tensor reaches beyond its numbers")
        steps = [s * whole.itemsize for s in self.stride]
        return np.lib.stride_tricks.as_strided(whole[self.offset :], self.size, steps, writeable=False).copy()


class _TorchMachine(PickleMachine):
    """Knows tensors besides arrays."""

    def __init__(self, data: bytes, record: Callable[[str], bytes] | None = None) -> None:
        super().__init__(data, object_arrays=True)
        self.record = record
        self.storages: dict[str, _Storage] = {}

    def run(self) -> Any:
        self.execute()
        return self.resolve(self.stack.pop(), 0)

    def execute(self) -> None:
        """Leaves the object on the stack: legacy files bring its numbers later."""
        for count, (opcode, argument, _) in enumerate(pickletools.genops(self.data)):
            if count >= MAX_OPCODES:
                raise RefusedError(f"it has more than {MAX_OPCODES} instructions")
            if opcode.name == "STOP":
                break
            if opcode.name == "BINPERSID":
                self.persistent()
            elif opcode.name in HANDLERS:
                HANDLERS[opcode.name](self, argument)
            else:
                raise RefusedError(f"it has the instruction {opcode.name}")
        if len(self.stack) != 1:
            raise ValueError("it ends with more or less than one object")

    def name(self, module: Any, name: Any) -> None:
        role = _TORCH_NAMES.get(f"{module}.{name}")
        if role is None:
            super().name(module, name)
        else:
            self.stack.append(PickleName(role, f"{module}.{name}"))

    def reduce(self) -> None:
        function = self.stack[-2] if len(self.stack) > 1 else None
        role = function.role if isinstance(function, PickleName) else ""
        if role not in ("tensor", "parameter", "torch_bytes", "ordered"):
            super().reduce()
            return
        arguments = self.pop()
        self.pop()
        if not isinstance(arguments, tuple):
            raise RefusedError("it calls something without arguments")
        if role == "tensor":
            storage, offset, size, stride = arguments[:4]
            numbers = (offset, *size, *stride)
            if not isinstance(storage, _Storage) or not all(isinstance(n, int) and n >= 0 for n in numbers):
                raise RefusedError("it has a tensor without numbers")
            self.stack.append(_Tensor(storage, offset, tuple(size), tuple(stride)))
        elif role == "parameter":
            self.stack.append(arguments[0])
        elif role == "torch_bytes":
            self.stack.append(_read_legacy(self.resolve(arguments[0], 0)))
        else:
            if arguments not in ((), ([],)):
                raise RefusedError("it fills a dictionary in an unusual way")
            self.stack.append({})

    def persistent(self) -> None:
        """torch's reference to a storage: ("storage", type, key, location, count ...)."""
        identifier = self.pop()
        if not isinstance(identifier, tuple) or len(identifier) < 3 or not isinstance(identifier[1], PickleName):
            raise RefusedError("it refers to something outside of it")
        role, key = identifier[1].role, str(identifier[2])
        if identifier[0] != "storage" or not role.startswith("storage:"):
            raise RefusedError("it refers to something outside of it")
        if key not in self.storages:
            self.storages[key] = _Storage(np.dtype(role.removeprefix("storage:")).newbyteorder("<"))
            if self.record is not None:
                self.storages[key].data = self.record(key)
        self.stack.append(self.storages[key])

    def resolve(self, value: Any, depth: int) -> Any:
        return value.array() if isinstance(value, _Tensor) else super().resolve(value, depth)


def _read_legacy(data: Any) -> Any:
    """torch's format before 1.6: magic number, protocol, machine, object, keys of the storages, their numbers."""
    if not isinstance(data, bytes):
        raise RefusedError("a tensor without numbers")
    parts, position = [], 0
    for _ in range(5):
        end = position + _length(data[position:])
        parts.append(data[position:end])
        position = end
    if _TorchMachine(parts[0]).run() != _LEGACY_MAGIC:
        raise RefusedError("torch's magic number is missing")
    machine = _TorchMachine(parts[3])
    machine.execute()
    for key in _TorchMachine(parts[4]).run():
        storage = machine.storages[str(key)]
        count = int.from_bytes(data[position : position + 8], "little") * storage.dtype.itemsize
        storage.data = data[position + 8 : position + 8 + count]
        position += 8 + count
    content = machine.stack.pop()
    return content if isinstance(content, _Storage) else machine.resolve(content, 0)


def _length(data: bytes) -> int:
    """Bytes of the first pickle."""
    return next(position for opcode, _, position in pickletools.genops(data) if opcode.name == "STOP") + 1  # type: ignore[operator]


def _record(archive: zipfile.ZipFile, name: str) -> bytes:
    information = archive.getinfo(name)
    if information.file_size > MAX_FILE_BYTES:
        raise RefusedError(f"{name} claims {information.file_size} bytes")
    return archive.read(information)


def _bytes_of(path: Path) -> bytes:
    if not path.is_file():
        raise InputError(f"{path}: no such file. Check the path.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path}: {path.stat().st_size / 2**20:.0f} MB are too much for parameters of a head.")
    return path.read_bytes()

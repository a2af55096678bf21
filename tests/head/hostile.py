"""Pickles that a downloaded file may hold: written opcode by opcode, or by objects that say what to call."""

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path


class Calls:
    """Pickles to a call of `function`."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def text(value: str) -> bytes:
    """BINUNICODE."""
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def array(
    shape: bytes, dtype: bytes, raw: bytes, state: bytes = b"K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
) -> bytes:
    """An ndarray as NumPy pickles it; `shape`, `raw` are opcodes, `dtype` is its code, `state` the dtype's state."""
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01"
        + shape
        + b"cnumpy\ndtype\nU"
        + bytes([len(dtype)])
        + dtype
        + b"K\x00K\x01\x87R("
        + state
        + b"b\x89"
        + raw
        + b"tb"
    )


def hostile(mark: Path) -> dict[str, bytes]:
    """Pickles by name. Those that run a command would leave the file `mark`."""
    command = f"touch {mark}"
    touch = text(command)
    evaluated = text(f"__import__('os').system({command!r})")
    large = b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft"
    bomb = b"]q\x00" + b"".join(
        b"](" + b"h" + bytes([i]) + (b"h" + bytes([i])) * 9 + b"eq" + bytes([i + 1]) for i in range(12)
    )
    return {
        "os.system": pickle.dumps({"f": Calls(os.system, command)}, 2),
        "builtins.eval": b"\x80\x02cbuiltins\neval\n" + evaluated + b"\x85R.",
        "__builtin__.eval": b"\x80\x02c__builtin__\neval\n" + evaluated + b"\x85R.",
        "posix.system, protocol 0": f"cposix\nsystem\n(S'{command}'\ntR.".encode(),
        "system by INST": f"(S'{command}'\niposix\nsystem\n.".encode(),
        "system by OBJ": b"\x80\x02(cposix\nsystem\n" + touch + b"o.",
        "system by STACK_GLOBAL": b"\x80\x04" + text("posix") + text("system") + b"\x93" + touch + b"\x85R.",
        "chain of reduces": (
            b"\x80\x02c__builtin__\ngetattr\nc__builtin__\n__import__\n"
            + text("os")
            + b"\x85R"
            + text("system")
            + b"\x86R"
            + touch
            + b"\x85R."
        ),
        "dotted attribute": b"\x80\x04" + text("numpy") + text("ndarray.tofile") + b"\x93.",
        "numpy's own import": b"\x80\x02cnumpy\nf2py.os.system\n" + touch + b"\x85R.",
        "call of a type": b"\x80\x02cnumpy\nndarray\nK\x05\x85\x85R.",
        "a name of chumpy that runs": b"\x80\x02cchumpy.utils\neval\n" + evaluated + b"\x85R.",
        "object made by a name": b"\x80\x02ccopy_reg\n_reconstructor\ncposix\nsystem\nc__builtin__\nobject\nN\x87R.",
        "reconstructed as another type": (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncbuiltins\nset\nK\x00\x85U\x01b\x87R."
        ),
        "state of a type": b"\x80\x02cchumpy.ch\nCh\n}" + text("x") + b"K\x01sb.",
        "state of a container": b"\x80\x02}}" + text("__class__") + b"K\x01sb.",
        "state with code": b"\x80\x02cchumpy.ch\nCh\n)\x81}" + text("x") + b"cposix\nsystem\nsb.",
        "state given twice": b"\x80\x02" + array(b"K\x00\x85", b"f8", b"U\x00") + b"(K\x01K\x00\x85NNNtb.",
        "persistent id": b"\x80\x02U\x01aQ.",
        "persistent id as text": b"Pa\n.",
        "extension": b"\x80\x02\x82\x01.",
        "bytes encoded by a codec": b"\x80\x02c_codecs\nencode\n" + text("a") + text("bz2") + b"\x86R.",
        "array of objects": b"\x80\x02"
        + array(b"K\x01\x85", b"O8", b"]" + touch + b"a", b"K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?t")
        + b".",
        "array of records": b"\x80\x02" + array(b"K\x01\x85", b"V8", b"U\x08" + bytes(8)) + b".",
        "array of records by its state": b"\x80\x02"
        + array(b"K\x01\x85", b"f8", b"U\x08" + bytes(8), b"K\x03U\x01<NU\x01a\x85}K\x08K\x01K\x00t")
        + b".",
        "gigantic array": b"\x80\x02" + array(large, b"f8", b"U\x00") + b".",
        "array of negative size": b"\x80\x02" + array(b"J\xff\xff\xff\xff\x85", b"f8", b"U\x00") + b".",
        "array shorter than its shape": b"\x80\x02" + array(b"K\x02\x85", b"f8", b"U\x08" + bytes(8)) + b".",
        "many arrays of one text": (
            b"\x80\x02T"
            + struct.pack("<I", 80000)
            + bytes(80000)
            + b"q\x00]("
            + array(b"M\x10\x27\x85", b"f8", b"h\x00") * 9
            + b"e."
        ),
        "many bytes of one text": b"\x80\x02"
        + text("a" * 80000)
        + b"q\x00]("
        + b"c_codecs\nencode\nh\x00U\x06latin1\x86R" * 9
        + b"e.",
        "nested lists": b"\x80\x02" + b"](" * 50000 + b"e" * 50000 + b".",
        "nested tuples as a key": b"\x80\x02})" + b"\x85" * 100000 + b"K\x01s.",
        "lists of lists of lists": b"\x80\x02" + bomb + b".",
        "list in itself": b"\x80\x02]q\x00h\x00a.",
        "too many instructions": b"\x80\x02" + b"]" * 300000 + b".",
        "number of many digits": b"L" + b"9" * 100000 + b"L\n.",
        "nothing": b"",
        "garbage": bytes(range(256)),
        "no pickle": b"<!DOCTYPE html><html>Sign in to download</html>",
        "two results": b"\x80\x02K\x01K\x02.",
        "no result": b"\x80\x02.",
        "operands missing": b"\x80\x02R.",
        "mark missing": b"\x80\x02K\x01t.",
        "memo missing": b"\x80\x02h\x05.",
        "a length beyond the end": b"\x80\x02T\xff\xff\xff\x7fabc",
        "a negative length": b"\x80\x02T\xff\xff\xff\xffabc.",
    }

"""The instructions of a pickle, one after the other, with their arguments."""

import codecs
import io
import pickletools
from collections.abc import Iterator
from typing import Any

_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}


def instructions(data: bytes) -> Iterator[tuple[str, Any]]:
    """Names of the opcodes with their arguments; no opcode takes more than the file has."""
    file = io.BytesIO(data)
    while code := file.read(1):
        opcode = _OPCODES.get(code)
        if opcode is None:
            raise ValueError(f"byte {code.hex()} at {file.tell() - 1} is no instruction")
        if opcode.name == "STRING":
            yield opcode.name, _quoted(file.readline())
        else:
            yield opcode.name, None if opcode.arg is None else opcode.arg.reader(file)
    raise ValueError("it ends early" if data else "the file is empty")


def _quoted(line: bytes) -> str:
    """Text in protocol 0: quoted and escaped, any byte in it."""
    text = line.rstrip(b"\n")
    if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
        raise ValueError("text without its quotes")
    return codecs.escape_decode(text[1:-1])[0].decode("latin-1")  # type: ignore[attr-defined]

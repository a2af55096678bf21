"""Reads the pickles that head models come in without running anything that they say.

FLAME files are Python 2 pickles of NumPy arrays, a SciPy matrix and chumpy arrays. A pickle is a program: unpickling
one calls what it names. Here its opcodes (`pickle_opcodes`) drive a small machine (`pickle_machine`) that knows arrays
and plain containers only (`pickle_values`). It imports nothing and calls nothing: a name in the file is looked up in a
table, and one that is not there ends the reading.
"""

from pathlib import Path
from typing import Any

from flame_fitting.errors import InputError
from flame_fitting.head.pickle_machine import PickleMachine
from flame_fitting.head.pickle_values import RefusedError

MAX_FILE_BYTES = 2**29
_HOME = "A head-model file holds arrays only: use the original download."


def read_pickle(path: Path | str) -> Any:
    """The content of a pickle of arrays: dicts, lists, tuples, sets, text, bytes, numbers, NumPy arrays and scalars.

    SciPy's csc_matrix comes as `SparseColumns`, a chumpy array as a plain array. Text of Python 2 is read as latin-1.
    Raises InputError where the file is damaged, too large for what it says, or names anything else.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(f"{path}: {path.stat().st_size / 2**20:.0f} MB are too much for a head model. {_HOME}")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Check the path and its rights.") from error
    return decode_pickle(data, str(path))


def decode_pickle(data: bytes, source: str, object_arrays: bool = False) -> Any:
    """Like `read_pickle`, from bytes; `source` is named in errors.

    With `object_arrays`, an array of objects comes as a list of its items in order, a 0-d one as its single item.
    """
    try:
        return PickleMachine(data, object_arrays).run()
    except RefusedError as error:
        raise InputError(f"{source}: refused, nothing in it was run: {error}. {_HOME}") from error
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, MemoryError) as error:
        text = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        if isinstance(error, (KeyError, IndexError)):
            text = "it refers to something that it does not hold"
        raise InputError(f"{source}: not a readable pickle ({text}). {_HOME}") from error

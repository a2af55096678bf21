"""What a dialect is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from flame_fitting.export.dialects.npz import Arrays, open_npz
from flame_fitting.export.dialects.parameters import FlameParams
from flame_fitting.export.dialects.vocabulary import DialectName

OPTIONAL = (
    *("rotation", "world_rotation", "translation", "neck_pose", "scale", "static_offset", "dynamic_offset", "eyelids"),
)
"""Parameters that not every dialect has a place for."""


@dataclass(frozen=True)
class Dialect:
    """How one program names and means FLAME's parameters, and its files."""

    name: DialectName
    read: Callable[[Path], FlameParams]
    write: Callable[[FlameParams, Path], None]
    holds: frozenset[str]
    """Of `OPTIONAL`, what it has a place for."""
    recognises: Callable[[frozenset[str]], bool]
    """Whether a file with arrays of these names is its own."""
    suffix: str = ".npz"
    n_shape: int | None = None
    """Length of shape in its files; None where any will do."""
    n_expr: int | None = None
    frame_per_file: bool = False
    """Whether a file holds one timestep, and a sequence is a folder."""
    flame: str | None = None
    """The FLAME that its program uses, where it says so: flame2020 or flame2023."""


def npz_dialect(
    name: DialectName,
    read: Callable[[Arrays], FlameParams],
    write: Callable[[FlameParams, Path], None],
    holds: Iterable[str],
    recognises: Callable[[frozenset[str]], bool],
    *,
    n_shape: int | None = None,
    n_expr: int | None = None,
    frame_per_file: bool = False,
    flame: str | None = None,
) -> Dialect:
    """A dialect whose files are .npz."""

    def read_path(path: Path) -> FlameParams:
        with open_npz(path) as arrays:
            return read(arrays)

    return Dialect(
        name=name,
        read=read_path,
        write=write,
        holds=frozenset(holds),
        recognises=recognises,
        n_shape=n_shape,
        n_expr=n_expr,
        frame_per_file=frame_per_file,
        flame=flame,
    )

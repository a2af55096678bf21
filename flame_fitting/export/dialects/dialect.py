"""What a dialect is."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from flame_fitting.export.dialects.containers import open_arrays
from flame_fitting.export.dialects.npz import Arrays
from flame_fitting.export.dialects.parameters import FlameParams
from flame_fitting.export.dialects.vocabulary import DialectName

OPTIONAL = (
    *("rotation", "world_rotation", "translation", "neck_pose", "scale"),
    *("static_offset", "dynamic_offset", "eyelids", "template"),
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
    needs: tuple[frozenset[str], ...]
    """Names of arrays by which a file is its own: all of one of these sets."""
    excludes: frozenset[str] = frozenset()
    """Names by which a file that has all of them is another program's nevertheless."""
    knows: frozenset[str] = frozenset()
    """Names beside those that `read` asks for which say nothing about the head; `img*` stands for all that begin so."""
    suffix: str = ".npz"
    n_shape: int | None = None
    """Length of shape in its files; None where any will do."""
    n_expr: int | None = None
    frame_per_file: bool = False
    """Whether a file holds one timestep, and a sequence is a folder."""
    flame: str | None = None
    """The FLAME that its program uses, where it says so: flame2020 or flame2023."""

    def lacks(self, names: frozenset[str]) -> frozenset[str]:
        """What a file with arrays of these names lacks to be its own: nothing where it has all that is needed."""
        return min((wanted - names for wanted in self.needs), key=len)

    def matches(self, names: frozenset[str]) -> int:
        """How many of the names that it needs a file has, for saying which dialect is the nearest."""
        return max(len(wanted & names) for wanted in self.needs)

    def recognises(self, names: frozenset[str]) -> bool:
        """Whether a file with arrays of these names is its own."""
        return not self.lacks(names) and not self.excludes & names


def npz_dialect(
    name: DialectName,
    read: Callable[[Arrays], FlameParams],
    write: Callable[[FlameParams, Path], None],
    holds: Iterable[str],
    needs: Iterable[Iterable[str]],
    *,
    excludes: Iterable[str] = (),
    knows: Iterable[str] = (),
    n_shape: int | None = None,
    n_expr: int | None = None,
    frame_per_file: bool = False,
    flame: str | None = None,
) -> Dialect:
    """A dialect whose files are .npz, or the same arrays as lists in a .json."""

    known = frozenset(knows)
    prefixes = tuple(entry[:-1] for entry in known if entry.endswith("*"))

    def read_path(path: Path) -> FlameParams:
        with open_arrays(path) as arrays:
            params = read(arrays)
            params.notes += arrays.notes
            foreign = [name for name in arrays.unread() if name not in known and not name.startswith(prefixes)]
            if foreign:
                params.notes.append(f"{name} has no {', '.join(foreign)}: left out, whatever they mean")
            return params

    return Dialect(
        name=name,
        read=read_path,
        write=write,
        holds=frozenset(holds),
        needs=tuple(frozenset(names) for names in needs),
        excludes=frozenset(excludes),
        knows=known,
        n_shape=n_shape,
        n_expr=n_expr,
        frame_per_file=frame_per_file,
        flame=flame,
    )

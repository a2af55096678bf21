"""Which formats `export` writes. A new one is a module with a writer, a row of `FORMATS` and a name in `FormatName`.

A writer takes an `ExportJob` and gives an `ExportSummary`: it writes within `with job.folder() as folder`, tells
`job.bar` how far it is, and reads `job.options`. Options of a format are fields of `FormatOptions`; one that no row
names belongs to all formats. No heavy import here: writers are imported when they are called.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flame_fitting.export.options import FormatName
from flame_fitting.options import options_of, value_of

if TYPE_CHECKING:
    from flame_fitting.export.job import ExportJob, ExportSummary


@dataclass(frozen=True)
class Format:
    """One format."""

    write: "Callable[[ExportJob], ExportSummary]"
    options: frozenset[str]
    """Names of the options that mean something to it."""
    unit: str = "view"
    """What the progress bar counts."""


def _vhap(job: "ExportJob") -> "ExportSummary":
    from flame_fitting.export.nerf_dataset import write_vhap

    return write_vhap(job)


_PICTURES = frozenset(
    ("background_color", "subset", "scale_factor", "mask_below_line", "create_mask_from_mesh", "landmark_views")
)

FORMATS: dict[FormatName, Format] = {
    "vhap": Format(_vhap, _PICTURES | {"flame_mode", "train_ratio", "val_camera", "recenter"}),
}


def options_without_meaning(config: Any) -> list[str]:
    """One sentence for each option of an export that was given and that its format does nothing with."""
    of_formats = frozenset[str]().union(*(one.options for one in FORMATS.values()))
    lines = []
    for one in options_of(type(config)):
        if one.name not in of_formats - FORMATS[config.format].options:
            continue
        if value_of(config, one.name) != one.field.default:
            users = ", ".join(name for name, other in FORMATS.items() if one.name in other.options)
            lines.append(f"{one.flag} does nothing with --format {config.format}: it is an option of {users}.")
    return lines

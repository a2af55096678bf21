"""Which formats `export` writes. A new one is a module with a writer, a row of `FORMATS` and a name in `FormatName`.

A writer takes an `ExportJob` and gives an `ExportSummary`: it writes within `with job.folder() as folder`, tells
`job.bar` how far it is, and reads `job.options`. Options of a format are fields of `FormatOptions`; one that no row
names belongs to all formats. No heavy import here: writers are imported when they are called.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_fitting.errors import InputError
from flame_fitting.export.options import FormatName, FormatOptions
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
    check: "Callable[[FormatOptions, Path], None]" = lambda options, target: None
    """Raises InputError for what it cannot write, before anything is read."""


def _vhap(job: "ExportJob") -> "ExportSummary":
    from flame_fitting.export.nerf_dataset import write_vhap

    return write_vhap(job)


def _colmap(job: "ExportJob") -> "ExportSummary":
    from flame_fitting.export.colmap import write_colmap

    return write_colmap(job)


def _check_colmap(options: FormatOptions, target: Path) -> None:
    from flame_fitting.export.colmap import check_colmap_target

    check_colmap_target(target)


def _obj(job: "ExportJob") -> "ExportSummary":
    from flame_fitting.export.meshes import write_obj_format

    return write_obj_format(job)


def _ply(job: "ExportJob") -> "ExportSummary":
    from flame_fitting.export.meshes import write_ply_format

    return write_ply_format(job)


def _check_mesh(options: FormatOptions, target: Path) -> None:
    from flame_fitting.export.meshes import check_space

    check_space(options.space, options.pose)


def _glb(job: "ExportJob") -> "ExportSummary":
    from flame_fitting.export.glb import write_glb

    return write_glb(job)


def _rigged_avatar(job: "ExportJob") -> "ExportSummary":
    from flame_fitting.export.rigged_avatar import write_rigged_avatar

    return write_rigged_avatar(job)


def _rigged_splats(job: "ExportJob") -> "ExportSummary":
    from flame_fitting.export.rigged_splats import write_rigged_splats

    return write_rigged_splats(job)


def _check_splats(options: FormatOptions, target: Path) -> None:
    _check_mesh(options, target)
    if options.parameters is not None and options.pose != "fit":
        raise InputError(
            f"--pose {options.pose} and --parameters {options.parameters}: both say how splats are posed. Give one."
        )


def _gaussian_avatars(job: "ExportJob") -> "ExportSummary":
    from flame_fitting.export.gaussian_avatars import write_gaussian_avatars

    return write_gaussian_avatars(job)


_PICTURES = frozenset(
    (
        "background_color",
        "subset",
        "scale_factor",
        "mask_below_line",
        "create_mask_from_mesh",
        "landmark_views",
        "recenter",
    )
)
_MESHES = frozenset(("space", "pose", "subset", "bake"))

FORMATS: dict[FormatName, Format] = {
    "vhap": Format(_vhap, _PICTURES | {"flame_mode", "train_ratio", "val_camera"}),
    "colmap": Format(_colmap, _PICTURES, check=_check_colmap),
    "obj": Format(_obj, _MESHES | {"texture_size"}, "mesh", _check_mesh),
    "ply": Format(_ply, _MESHES, "mesh", _check_mesh),
    "glb": Format(_glb, frozenset(("bake", "texture_size", "n_expr")), "file"),
    "rigged-avatar": Format(_rigged_avatar, frozenset(("n_expr", "replace_rig", "avatar")), "picture"),
    "rigged-splats": Format(
        _rigged_splats, frozenset(("pose", "space", "parameters", "avatar")), "picture", _check_splats
    ),
    "gaussian-avatars": Format(_gaussian_avatars, frozenset(("avatar",)), "file"),
}


def options_without_meaning(config: Any) -> list[str]:
    """One sentence for each option of an export that was given and that its format does nothing with."""
    of_formats = frozenset[str]().union(*(one.options for one in FORMATS.values()))
    lines = []
    config_type: type = type(config)
    for one in options_of(config_type):
        if one.name not in of_formats - FORMATS[config.format].options:
            continue
        if value_of(config, one.name) != one.field.default:
            users = ", ".join(name for name, other in FORMATS.items() if one.name in other.options)
            lines.append(f"{one.flag} does nothing with --format {config.format}: it is an option of {users}.")
    return lines

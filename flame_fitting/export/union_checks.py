"""Whether datasets belong together: one place, one subject, one head model, the same cameras."""

import os
from pathlib import Path

import numpy as np

from flame_fitting.errors import InputError
from flame_fitting.export.union_sources import Source, canonical_name
from flame_fitting.files import read_npz

_SAME_SHAPE = 1e-4
"""Standard deviations; what is closer is one person's shape, rounded."""
_SAME_FOCAL = 1e-3
"""Relative."""


def check_placement(sources: list[Source], target: Path) -> None:
    """Raises InputError unless all sources lie beside the target: their files are read by relative paths."""
    parent = _parent(target)
    strangers = [str(source.folder) for source in sources if _parent(source.folder) != parent]
    if strangers:
        raise InputError(
            f"{', '.join(strangers)}: not beside {target}. Pictures of a union are read as ../<source>/images/..., so "
            f"sources and target must share one parent folder ({parent}). Put them there, or give --copy-images."
        )


def subject_of(sources: list[Source]) -> str:
    """What all names begin with, up to the first _; InputError where they differ."""
    subjects = {source.name.split("_")[0]: source.name for source in sources}
    if len(subjects) > 1:
        raise InputError(
            f"{', '.join(sorted(subjects.values()))}: the names begin with different subjects "
            f"({', '.join(sorted(subjects))}). A union is of one subject, whose name stands before the first _ of "
            "every folder. Rename the folders, or give --subject NAME where they are of one person nevertheless."
        )
    return next(iter(subjects))


def differences(sources: list[Source]) -> list[str]:
    """Warnings of what differs between sources and may do so; InputError for what may not (head model, kind)."""
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise InputError(f"{', '.join(names)}: a folder is given twice, or two have one name. Give each once.")
    if len({source.is_mesh for source in sources}) > 1:
        raise InputError(f"{', '.join(names)}: some hold meshes, others parameters. Export all in one --flame-mode.")
    first, warnings = sources[0], []
    models = {s.name: s.provenance.get("head_model") for s in sources if isinstance(s.provenance, dict)}
    known = {name: model for name, model in models.items() if isinstance(model, dict)}
    for name, model in known.items():
        reference = next(iter(known.values()))
        if any(model.get(key) != reference.get(key) for key in ("sha256", "teeth")):
            shown = ", ".join(f"{n}: {m.get('name')}" for n, m in known.items())
            raise InputError(f"{name}: was made with another head model than {next(iter(known))} ({shown}). Fit again.")
    if not first.is_mesh:
        shape = _canonical(first)
        for source in sources[1:]:
            warnings += _shape_differences(first, source, shape, _canonical(source))
    return warnings


def _canonical(source: Source) -> dict[str, np.ndarray]:
    return read_npz(source.folder / canonical_name(source), "Export it again.", ("shape",), ("static_offset",))


def _shape_differences(
    first: Source, source: Source, reference: dict[str, np.ndarray], found: dict[str, np.ndarray]
) -> list[str]:
    both = "static_offset" in reference and "static_offset" in found
    sizes_differ = found["shape"].shape != reference["shape"].shape
    if sizes_differ or (both and found["static_offset"].shape[-2] != reference["static_offset"].shape[-2]):
        raise InputError(
            f"{source.folder}: its head has other numbers of vertices or components than {first.folder}: another head "
            "model. Fit again with the same --head."
        )
    apart = float(np.sqrt(np.mean((found["shape"] - reference["shape"]) ** 2)))
    if apart <= _SAME_SHAPE:
        return []
    return [
        f"{source.name}: the shape of the head differs from that of {first.name} by {apart:.2g} standard deviations "
        f"(root mean square); the union's canonical head is that of the first source that trains."
    ]


def consistent_cameras(sources: list[Source]) -> tuple[dict[str, dict[int, int]], list[str]]:
    """New index of every camera index, by source, and warnings: a camera has one index in the whole union.

    Indices stay where sources agree on them. Cameras are the same where their names are.
    """
    index_of: dict[str, set[int]] = {}
    name_of: dict[int, set[str]] = {}
    for source in sources:
        for index, name in source.camera_ids.items():
            index_of.setdefault(name, set()).add(index)
            name_of.setdefault(index, set()).add(name)
    warnings = _focal_differences(sources)
    if all(len(found) == 1 for found in index_of.values()) and all(len(found) == 1 for found in name_of.values()):
        return {s.name: {index: index for index in s.camera_ids} for s in sources}, warnings
    ordered = sorted(index_of, key=lambda name: (min(index_of[name]), name))
    new = {name: number for number, name in enumerate(ordered)}
    warnings.append("Sources number their cameras differently; the union numbers them anew, by their names.")
    return {s.name: {index: new[name] for index, name in s.camera_ids.items()} for s in sources}, warnings


def _focal_differences(sources: list[Source]) -> list[str]:
    """One warning where a camera has other intrinsics in another source; every picture keeps its own."""
    seen: dict[str, tuple[str, tuple[float, ...]]] = {}
    for source in sources:
        for entry in source.entries:
            values = tuple(float(entry.get(key, 0.0)) for key in ("fl_x", "w", "h"))
            name = source.camera_ids[entry["camera_index"]]
            where, first = seen.setdefault(name, (source.name, values))
            if any(abs(a - b) > _SAME_FOCAL * max(abs(a), abs(b)) for a, b in zip(values, first, strict=True)):
                shown = [f"{v[0]:.1f} px at {v[1]:.0f} x {v[2]:.0f}" for v in (first, values)]
                return [
                    f"Camera {name} has a focal length of {shown[0]} in {where} and of {shown[1]} in {source.name}; "
                    "others may differ too. Every picture keeps its own."
                ]
    return []


def _parent(folder: Path) -> Path:
    return Path(os.path.abspath(folder)).parent.resolve()

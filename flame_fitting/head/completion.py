"""What a FLAME file leaves out: regions, texture coordinates and teeth, in this order."""

from dataclasses import replace
from pathlib import Path

from numpy import ndarray

from flame_fitting.head.model import HeadData
from flame_fitting.head.regions import flame_regions
from flame_fitting.head.teeth import add_teeth as with_teeth
from flame_fitting.head.unwrapping import flame_uv


def complete_flame(
    data: HeadData,
    *,
    masks: dict[str, ndarray] | None = None,
    template_obj: Path | None = None,
    texture_npz: Path | None = None,
    add_teeth: bool = False,
) -> HeadData:
    """A FLAME head with regions, UV and, on request, teeth; the given data is not changed.

    masks: vertex ids by name, as FLAME_masks.pkl has them. template_obj, texture_npz: where UV comes from; None makes
    it. Regions that the file names itself stay. A mesh without FLAME's topology gets UV, no teeth, and empty regions
    where it lacks the part.
    """
    regions = flame_regions(data.v_template, data.faces, masks) | data.regions
    uv, uv_faces = flame_uv(data, template_obj, texture_npz)
    complete = replace(data, regions=regions, uv=uv, uv_faces=uv_faces)
    return with_teeth(complete) if add_teeth else complete

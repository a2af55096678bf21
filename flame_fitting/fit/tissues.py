"""What the parts of a head are made of, as far as colours go."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from flame_fitting.head.model import HeadModel


@dataclass(frozen=True)
class Tissue:
    """One kind of surface, and how it is filled where no picture shows it."""

    regions: tuple[str, ...]
    """Names of regions whose triangles it has; of several tissues the later one does."""
    reach: float
    """Metres along the surface within which colours nearby count for more than those of the tissue as a whole."""


TISSUES: dict[str, Tissue] = {
    "skin": Tissue((), 0.020),
    "hair": Tissue(("hair",), 0.030),
    "mouth": Tissue(("lip_inside",), 0.002),
    "teeth": Tissue(("teeth",), 0.002),
    "sclera": Tissue(("eyeballs",), 0.002),
    "iris": Tissue(("irises",), 0.001),
}
"""In the order of their numbers. Skin is what nothing else is."""
NUMBER = {name: number for number, name in enumerate(TISSUES)}


def tissue_of_faces(head: HeadModel) -> Int[ndarray, " F"]:
    """The number of the tissue of every triangle."""
    out = np.zeros(len(head.faces), dtype=np.int64)
    for number, tissue in enumerate(TISSUES.values()):
        out[head.face_mask(*tissue.regions).cpu().numpy()] = number
    return out

"""How far the geometry of a capture may be trusted, beside landmarks and pictures."""

from dataclasses import dataclass
from typing import Literal

GeometryKind = Literal["splats", "scan", "mesh"]
"""Where depth and normals come from: Gaussian splats, a scanner, or the avatar's own triangles."""


@dataclass(frozen=True)
class Trust:
    """What a surface of one kind counts for."""

    share: float = 1.0
    """Of what a mesh's surface counts for."""
    noise: float = 0.0
    """Standard deviation of the surface itself, m: on top of what the head model leaves over."""


TRUST: dict[GeometryKind, Trust] = {
    "mesh": Trust(),
    # structured light and photogrammetry repeat to a few tenths of a millimetre
    "scan": Trust(noise=0.0003),
    # splats are trained to look right: their surface is what light leaves over, and it wavers by millimetres; this is
    # for captures that do not say by how much
    "splats": Trust(share=0.3, noise=0.002),
}


def trust_of(chosen: GeometryKind | None, said: str | None, measured: bool = False) -> Trust:
    """By what a user has chosen, else by what the capture says of its avatar, else as a mesh.

    Where the noise of every point was `measured`, that tells what it counts for, and the kind adds nothing.
    """
    kind = chosen or (None if measured else said)
    return next((trust for name, trust in TRUST.items() if name == kind), TRUST["mesh"])

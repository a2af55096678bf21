"""How much each part of the head is pulled toward the avatar's surface, and how far its offsets may go.

Names are the regions of the head model; those a model lacks count as empty. Later names overwrite earlier ones.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flame_fitting.fit.trust import TRUST, Trust
from flame_fitting.head.model import HeadModel

SURFACE_WEIGHT = {
    "neck": 0.3,
    "scalp": 0.3,
    "hair": 0.3,
    "ears": 0.5,
    "face": 1.0,
    "nose": 1.0,
    "lips": 1.0,
    "eyelids": 1.0,
    "boundary": 0.1,
    "bottomline": 0.0,
    "eyeballs": 0.2,
    "lip_inside": 0.0,
    "nostrils": 0.0,
    "teeth": 0.0,
}
"""Weight of the distance between model and avatar, per unit of area."""

OUTSIDE_CUT = {"neck": 0.5, "scalp": 0.5, "hair": 0.5, "ears": 0.7, "face": 1.0, "boundary": 0.3, "eyeballs": 0.3}
"""Robust scale, relative, where the avatar lies outside the model: hair, clothes and lids do, and what is
under them must not follow."""

CAP = {
    "neck": 0.02,
    "scalp": 0.02,
    "ears": 0.012,
    "face": 0.012,
    "eyeballs": 0.006,
    "lip_inside": 0.008,
    "teeth": 0.006,
}
"""Largest offset by region, m."""
DEFAULT_CAP = 0.02
"""Largest offset, m, of vertices in no region of the table."""


@dataclass(eq=False)
class SurfaceWeights:
    """Weights of the dense terms."""

    vertex: Tensor
    """(V,) region weight times area (mean area 1)."""
    face: Tensor
    """(F,) region weight."""
    outside_cut: Tensor
    """(V,) relative robust scale where the avatar lies outside the model."""
    back_weight: bool = True
    """Whether avatar-to-model distances are used as well."""
    trust: Trust = TRUST["mesh"]
    """How far the surface itself may be trusted."""

    def to(self, device: torch.device) -> "SurfaceWeights":
        """On another device."""
        moved = {name: getattr(self, name).to(device) for name in ("vertex", "face", "outside_cut")}
        return replace(self, **moved)

    @property
    def active(self) -> Tensor:
        """Ids of vertices with a weight."""
        return torch.nonzero(self.vertex > 0)[:, 0]

    @property
    def active_faces(self) -> Tensor:
        """Ids of triangles with a weight."""
        return torch.nonzero(self.face > 0)[:, 0]


def by_region(head: HeadModel, table: dict[str, float], default: float = 0.0) -> Tensor:
    """(V,) value of each vertex by region; later entries of the table win."""
    out = torch.full_like(head.v_template[:, 0], default)
    regions = head.regions
    for name, value in table.items():
        if name in regions:
            out[regions[name]] = value
    return out


def vertex_areas(vertices: Tensor, faces: Tensor) -> Tensor:
    """(V,) a third of the area of the triangles around each vertex, m^2."""
    a, b, c = vertices[faces].unbind(1)
    area = torch.linalg.cross(b - a, c - a).norm(dim=-1) / 6
    out = torch.zeros_like(vertices[:, 0])
    for k in range(3):
        out.index_add_(0, faces[:, k], area)
    return out


def surface_weights(head: HeadModel, table: dict[str, float] | None = None) -> SurfaceWeights:
    """Weights from the region tables."""
    vertex = by_region(head, SURFACE_WEIGHT | (table or {}))
    areas = vertex_areas(head.v_template, head.faces)
    return SurfaceWeights(
        vertex=vertex * areas / areas.mean(),
        face=vertex[head.faces].amin(dim=1),
        outside_cut=by_region(head, OUTSIDE_CUT, 0.5),
    )

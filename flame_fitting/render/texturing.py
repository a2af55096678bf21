"""Between the texture coordinates of meshes and the texels of pictures."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from flame_fitting.render.gutter import gutter_sources
from flame_fitting.render.interface import Rasterizer


def uv_to_texture(uv: Float[Tensor, "... 2"]) -> Float[Tensor, "... 2"]:
    """Mesh uv, v = 0 at the picture's bottom, to `Rasterizer.texture` coordinates, v = 0 at row 0. Its own inverse."""
    return torch.stack([uv[..., 0], 1.0 - uv[..., 1]], dim=-1)


@dataclass(frozen=True, eq=False)
class TexelMap:
    """Which point of the mesh each texel centre shows."""

    face: Int[Tensor, "Ht Wt"]
    """Face index, -1 where no face is."""
    barycentric: Float[Tensor, "Ht Wt 3"]
    """Weights of the face's corners, 0 where no face is."""

    @property
    def covered(self) -> Bool[Tensor, "Ht Wt"]:
        """Where a face is."""
        return self.face >= 0

    @cached_property
    def nearest_covered(self) -> Int[Tensor, "Ht Wt"]:
        """Flat index of the nearest covered texel, for `fill_gutter`."""
        return gutter_sources(self.covered)

    def interpolate(self, attributes: Float[Tensor, "V A"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "Ht Wt A"]:
        """Vertex attributes at the texels; `faces` has the rows of the `uv_faces` that made this map."""
        corners = attributes[faces.long()[self.face.clamp(min=0)]]
        return (corners * self.barycentric[..., None]).sum(dim=-2)


def rasterize_uv(
    rasterizer: Rasterizer, uv: Float[Tensor, "VT 2"], uv_faces: Int[Tensor, "F 3"], resolution: tuple[int, int]
) -> TexelMap:
    """The texel map of a mesh for textures of `resolution` (Ht, Wt). Where islands overlap, the later face shows."""
    xy = 2.0 * uv_to_texture(uv) - 1.0
    pos = torch.cat([xy, torch.zeros_like(xy[:, :1]), torch.ones_like(xy[:, :1])], dim=1)
    rast, _ = rasterizer.rasterize(pos.detach().float()[None], uv_faces.int(), resolution)
    u, v = rast[0, ..., 0], rast[0, ..., 1]
    face = rast[0, ..., 3].long() - 1
    barycentric = torch.stack([u, v, 1.0 - u - v], dim=-1) * (face >= 0)[..., None]
    return TexelMap(face, barycentric)

"""Draws the fitted head into all views of a step, from one rasterization, with constants kept on the device."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from flame_fitting.fit.losses.light import LightingType, lighting
from flame_fitting.fit.losses.photometric import ColorPools, paint
from flame_fitting.head.model import HeadModel
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.shading import safe_normalize
from flame_fitting.render.texturing import uv_to_texture
from flame_fitting.render.winding import front_faces


@dataclass(eq=False)
class Drawing:
    """What `HeadRenderer.draw` gives."""

    painted: Float[Tensor, "B H W 4"]
    """Antialiased sRGB and alpha."""
    triangle: Float[Tensor, "B H W"]
    """Triangle at the pixel's centre, from 1; 0 where nothing is drawn."""
    normal: Float[Tensor, "B H W 3"] | None = None
    """Unit normals, where the drawing is lit."""


@dataclass(eq=False)
class Lit:
    """Light on a drawing."""

    kind: LightingType
    normals: Float[Tensor, "B_or_1 V 3"]
    """Vertex normals in the lights' frame."""
    lights: Float[Tensor, "9 3"]
    """Spherical-harmonic coefficients, for the kind SH."""
    keep: Float[Tensor, " F_and_1"] | None = None
    """0 on triangles (from 1) whose normals get no gradient."""


class HeadRenderer:
    """One head model on one rasterizer; back faces are culled."""

    def __init__(self, rasterizer: Rasterizer, head: HeadModel, cluster_of_face: Tensor | None = None) -> None:
        """`cluster_of_face` (F,) is from 1; 0 stands for the background, the number after the last for none."""
        device = rasterizer.device
        self.rasterizer = rasterizer
        self.faces, self.uv_faces = head.faces.int().to(device), head.uv_faces.int().to(device)
        self.uv = uv_to_texture(head.uv.float())[None].contiguous().to(device)
        self.topology = rasterizer.topology(self.faces)
        self.clusters: Tensor | None = None
        """(F + 1,) cluster of each triangle counted from 1, the background first."""
        if cluster_of_face is not None:
            table = torch.cat([torch.zeros_like(cluster_of_face[:1]), cluster_of_face])
            self.clusters = table.int().to(device)

    def draw(
        self,
        pos: Float[Tensor, "B V 4"],
        resolution: tuple[int, int],
        texture: Float[Tensor, "1 R R 3"],
        background: Shaped[Tensor, "B H W C"],
        antialias: bool = True,
        lit: Lit | None = None,
    ) -> Drawing:
        """Clip-space vertices to pictures over `background` (see `paint`). The texture is shared by all views."""
        rast, rast_db = self.rasterizer.rasterize(pos, self.faces, resolution, front_faces(pos, self.faces))
        return self.shade(rast, rast_db, pos, texture, background, antialias=antialias, lit=lit)

    def shade(
        self,
        rast: Float[Tensor, "B H W 4"],
        rast_db: Float[Tensor, "B H W 4"],
        pos: Float[Tensor, "B V 4"],
        texture: Float[Tensor, "1 R R 3"],
        background: Shaped[Tensor, "B H W C"],
        pools: ColorPools | None = None,
        seed: Int[Tensor, ""] | None = None,
        antialias: bool = True,
        lit: Lit | None = None,
    ) -> Drawing:
        """What is left of drawing once it is known which triangle is where; waits for nothing."""
        rasterizer = self.rasterizer
        at, at_da = rasterizer.interpolate(self.uv, rast, self.uv_faces, rast_db, "all")
        # levels down to 4 x 4 texels: below that islands of the UV layout run together
        levels = max(int(math.log2(texture.shape[1])) - 2, 0)
        color = rasterizer.texture(texture, at, at_da, max_mip_level=levels)
        triangle, normal = rast[..., 3].detach(), None
        if lit is not None:
            normal = safe_normalize(rasterizer.interpolate(lit.normals.contiguous(), rast, self.faces)[0])
            if lit.keep is not None:
                keep = lit.keep.index_select(0, triangle.int().reshape(-1)).reshape(*triangle.shape, 1) > 0
                normal = torch.where(keep, normal, normal.detach())
            color = color * lighting(lit.kind, normal, lit.lights)
        painted = paint(color, background, triangle, self.clusters, pools, seed)
        if antialias:
            painted = rasterizer.antialias(painted, rast, pos, self.faces, self.topology)
        return Drawing(painted, triangle, normal)

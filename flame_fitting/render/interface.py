"""What a rasterizer can do. The semantics are nvdiffrast's (Laine et al. 2020, "Modular Primitives for High-Performance
Differentiable Rendering"), so that nvdiffrast itself can stand behind this interface.

Shapes: B views, V vertices, F triangles, H x W pixels, A attributes, C channels. Images are channels last. Row 0 is at
ndc y = -1, which `capture.camera.clip_from_camera` maps to the top of the picture; pixel (column i, row j) is sampled
at its centre, ndc x = 2 (i + 0.5) / W - 1, ndc y = 2 (j + 0.5) / H - 1.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

FilterMode = Literal["auto", "nearest", "linear", "linear-mipmap-linear"]
BoundaryMode = Literal["clamp", "wrap", "zero"]


class Rasterizer(ABC):
    """Differentiable rasterization, interpolation, texturing and antialiasing on one device."""

    device: torch.device

    @abstractmethod
    def rasterize(
        self,
        pos: Float[Tensor, "B V 4"],
        tri: Int[Tensor, "F 3"],
        resolution: tuple[int, int],
        face_mask: Bool[Tensor, "B F"] | None = None,
    ) -> tuple[Float[Tensor, "B H W 4"], Float[Tensor, "B H W 4"]]:
        """Finds the triangle at each pixel centre.

        Args:
            pos: clip-space vertices (x, y, z, w). Triangles are clipped at the near plane z = -w.
            tri: vertex indices, int32.
            resolution: (H, W).
            face_mask: False drops a face in that view (back-face culling). None draws all faces, both sides.

        Returns:
            rast: (u, v, z/w, triangle index + 1); u and v are the perspective-correct barycentric coordinates of the
                triangle's vertices 0 and 1. All 0 where nothing is drawn. The nearest triangle within -1 <= z/w <= 1
                is drawn. Gradients flow from u and v to x, y and w of `pos`; z/w and the index have none.
            rast_db: (du/dX, du/dY, dv/dX, dv/dY) per pixel, differentiable too.
        """

    @abstractmethod
    def interpolate(
        self,
        attr: Float[Tensor, "B_or_1 V A"],
        rast: Float[Tensor, "B H W 4"],
        tri: Int[Tensor, "F 3"],
        rast_db: Float[Tensor, "B H W 4"] | None = None,
        diff_attrs: Literal["all"] | Sequence[int] | None = None,
    ) -> tuple[Float[Tensor, "B H W A"], Float[Tensor, "B H W D"]]:
        """Vertex attributes at the pixels, 0 where nothing is drawn.

        `tri` may be another index list than the one rasterized (texture coordinates have their own), row for row.

        Returns:
            out: interpolated attributes. Gradients flow to `attr` and to u, v of `rast`.
            out_da: for each attribute in `diff_attrs` (dA/dX, dA/dY) per pixel, D = 2 len(diff_attrs); gradients flow
                to `attr` and `rast_db`. D = 0 without `diff_attrs`.
        """

    @abstractmethod
    def texture(
        self,
        tex: Float[Tensor, "B_or_1 Ht Wt C"],
        uv: Float[Tensor, "B H W 2"],
        uv_da: Float[Tensor, "B H W 4"] | None = None,
        filter_mode: FilterMode = "auto",
        boundary_mode: BoundaryMode = "clamp",
        max_mip_level: int | None = None,
    ) -> Float[Tensor, "B H W C"]:
        """Texture colours at the pixels.

        uv (0, 0) is the outer corner of texel [0, 0], u runs along columns and v along rows. "auto" is
        "linear-mipmap-linear" with `uv_da` and "linear" without. A texture with batch 1 is shared by all views, not
        copied for each. Mip levels are 2x2 box filters; the level is log2 of the footprint's major axis in texels,
        from `uv_da` = (du/dX, du/dY, dv/dX, dv/dY). An extent that is odd and larger than 1 cannot be halved: limit
        `max_mip_level` or pad.

        Gradients flow to `tex` (through the mip levels), `uv` and `uv_da`.
        """

    @abstractmethod
    def topology(self, tri: Int[Tensor, "F 3"]) -> Any:
        """Edge adjacency of a mesh for `antialias`, to be computed once and reused. Opaque."""

    @abstractmethod
    def antialias(
        self,
        color: Float[Tensor, "B H W C"],
        rast: Float[Tensor, "B H W 4"],
        pos: Float[Tensor, "B V 4"],
        tri: Int[Tensor, "F 3"],
        topology: Any | None = None,
    ) -> Float[Tensor, "B H W C"]:
        """Blends neighbouring pixels where a silhouette edge passes between their centres.

        An edge is a silhouette where one triangle meets it, or where both of its triangles lie on the same side of it
        in the picture. `tri` is the full mesh also where `rasterize` was given a face mask: an edge between a drawn
        and a culled face is then found by the second rule. Vertices that several faces share must have one index.

        Gradients flow to `color` and `pos`; this is where visibility becomes differentiable.
        """

"""The rasterizer on an NVIDIA GPU: stock nvdiffrast behind the project's interface, with back faces dropped by us.

Laine et al. 2020, "Modular Primitives for High-Performance Differentiable Rendering". nvdiffrast is an optional package
under its own licence; this module is imported only where it is installed.
"""

import importlib.metadata
from typing import Any

import nvdiffrast.torch as dr
import torch
from torch import Tensor

from flame_fitting.errors import InputError
from flame_fitting.render.culling import (
    MAX_INSTANCED_FACES,
    instanced_faces,
    local_triangle_ids,
    shared_triangle_ids,
    view_ranges,
)
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.nvdiffrast_check import nvdiffrast_problem


class CudaRasterizer(Rasterizer):
    """nvdiffrast's CUDA rasterizer on one device; no OpenGL.

    Faces are culled without a host synchronisation: all views share one index list of constant length in which a culled
    face is a degenerate triple, so ranges and topology stay constant. `antialias` sees the full mesh.
    """

    def __init__(self, device: torch.device | str = "cuda") -> None:
        device = torch.device(device)
        index = torch.cuda.current_device() if device.index is None else device.index
        self.device = torch.device("cuda", index)
        self._context = dr.RasterizeCudaContext(device=self.device)
        problem = nvdiffrast_problem(importlib.metadata.version("nvdiffrast"), self._culls())
        if problem is not None:
            raise InputError(problem)

    def rasterize(self, pos, tri, resolution, face_mask=None):
        pos, tri = pos.float().contiguous(), _int32(tri)
        if face_mask is None:
            return dr.rasterize(self._context, pos, tri, resolution)
        rast, rast_db = self.rasterize_shared(pos, tri, resolution, face_mask)
        return _LocalIds.apply(rast, len(tri)), rast_db

    def rasterize_shared(
        self, pos: Tensor, tri: Tensor, resolution: tuple[int, int], face_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`rasterize` with triangle numbers that count through all views; `culling.local_triangle_ids` mends them."""
        views, vertices = pos.shape[:2]
        if views * len(tri) > MAX_INSTANCED_FACES:
            raise ValueError(f"{views} views of {len(tri)} faces are too many at once; draw the views in chunks")
        faces = instanced_faces(tri, face_mask, vertices)
        return dr.rasterize(self._context, pos.view(-1, 4), faces, resolution, ranges=view_ranges(views, len(tri)))

    def interpolate(self, attr, rast, tri, rast_db=None, diff_attrs=None):
        attr = attr.float().contiguous()
        if diff_attrs is None:
            return dr.interpolate(attr, rast.contiguous(), _int32(tri))
        if rast_db is None:
            raise ValueError("diff_attrs needs rast_db")
        if diff_attrs != "all":
            diff_attrs = list(diff_attrs)
        return dr.interpolate(attr, rast.contiguous(), _int32(tri), rast_db.contiguous(), diff_attrs)

    def texture(self, tex, uv, uv_da=None, filter_mode="auto", boundary_mode="clamp", max_mip_level=None):
        mipmapped = filter_mode == "linear-mipmap-linear" or (filter_mode == "auto" and uv_da is not None)
        return dr.texture(
            tex.float().contiguous(),
            uv.contiguous(),
            uv_da.contiguous() if mipmapped and uv_da is not None else None,
            filter_mode=filter_mode,
            boundary_mode=boundary_mode,
            max_mip_level=max_mip_level if mipmapped else None,
        )

    def topology(self, tri):
        return _Topology(_int32(tri))

    def antialias(self, color, rast, pos, tri, topology=None):
        topology = self.topology(tri) if topology is None else topology
        color, rast, pos = color.float().contiguous(), rast.detach(), pos.float().contiguous()
        views, vertices = pos.shape[:2]
        most = max(1, MAX_INSTANCED_FACES // len(tri))
        blended = []
        for start in range(0, views, most):
            part = slice(start, start + most)
            faces, adjacency = topology.of(min(most, views - start), vertices)
            ids = shared_triangle_ids(rast[part], len(tri))
            of_part = pos[part].reshape(-1, 4)
            blended.append(dr.antialias(color[part], ids, of_part, faces, topology_hash=adjacency))
        return blended[0] if len(blended) == 1 else torch.cat(blended)

    def _culls(self) -> bool:
        """Whether a triangle vanishes in one of its two windings, as in the fork that VHAP installs."""
        corners = torch.tensor(
            [[-0.9, -0.9, 0, 1], [0.9, -0.9, 0, 1], [-0.9, 0.9, 0, 1]], dtype=torch.float32, device=self.device
        )
        both = torch.stack([corners, corners[[0, 2, 1]]])
        triangle = torch.tensor([[0, 1, 2]], dtype=torch.int32, device=self.device)
        rast, _ = dr.rasterize(self._context, both, triangle, (16, 16))
        return not bool((rast[..., 3] > 0).flatten(1).any(1).all())


class _Topology:
    """Edge adjacency of a mesh for any number of views, which are antialiased as one mesh.

    Given a batch, nvdiffrast (0.4) adds up the gradients of a triangle within a warp before it writes them, also where
    two views show that triangle: part of one view's gradient lands in the other's.
    """

    def __init__(self, tri: Tensor) -> None:
        self.tri = tri
        self._of: dict[tuple[int, int], tuple[Tensor, Any]] = {}

    def of(self, views: int, vertices: int) -> tuple[Tensor, Any]:
        """Faces of `views` meshes of so many vertices each, one after the other, and their adjacency."""
        if (views, vertices) not in self._of:
            every = torch.ones(views, len(self.tri), dtype=torch.bool, device=self.tri.device)
            faces = instanced_faces(self.tri, every, vertices)
            self._of[views, vertices] = faces, dr.antialias_construct_topology_hash(faces)
        return self._of[views, vertices]


class _LocalIds(torch.autograd.Function):
    """Triangle numbers of the shared index list back to the mesh's own; gradients of (u, v) pass unchanged."""

    @staticmethod
    def forward(ctx: Any, rast: Tensor, n_faces: int) -> Tensor:
        return local_triangle_ids(rast, n_faces)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None


def _int32(tri: Tensor) -> Tensor:
    if tri.dtype == torch.int32 and tri.is_contiguous():
        return tri
    return tri.detach().to(torch.int32).contiguous()

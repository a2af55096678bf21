"""A step of Adam as CUDA graphs: hundreds of small kernels in a few launches."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from flame_fitting.fit.losses.photometric import root_with_slopes
from flame_fitting.fit.solvers.geometry_step import Projected
from flame_fitting.fit.solvers.view_levels import ViewLevels
from flame_fitting.render.culling import local_triangle_ids


@runtime_checkable
class Graphable(Protocol):
    """A step in three parts of which none waits for the device."""

    rasterizer: Any
    """A CudaRasterizer; its module needs nvdiffrast."""
    views: ViewLevels
    triangles: Tensor
    """(F, 3) int32."""

    def project(self) -> Projected:
        """The head in clip space of all views, and the loss without pictures."""

    def normals(self, now: Projected) -> Tensor | None:
        """Vertex normals, where the head is lit."""

    def look(
        self, rast: Tensor, rast_db: Tensor, pos: Tensor, normals: Tensor | None, target: Tensor, group: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss of a chunk of pictures and its slopes."""

    def update(self, now: Projected, normals: Tensor | None, slope: Tensor, normals_slope: Tensor | None) -> Tensor:
        """Back through the head model, then Adam; returns the loss of the texture."""


class GraphedStep:
    """A step of all views with its three parts as CUDA graphs."""

    def __init__(self, step: Graphable, level: int | None) -> None:
        self._targets = step.views.wanted[level] if level is not None else None
        self._parts = [] if level is None else step.views.parts(level)
        kinds = {(part.stop - part.start, group) for part, group in self._parts}
        # graphs are captured on the current device's streams
        with torch.cuda.device(step.rasterizer.device), _no_garbage_collection():
            self._pool = torch.cuda.graph_pool_handle()
            torch.cuda.synchronize()
            self._project, self._update = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._project, pool=self._pool):
                self._now = step.project()
                self._normals = step.normals(self._now) if level is not None else None
            self._slope = torch.zeros_like(self._now.pos)
            self._normals_slope = None if self._normals is None else torch.zeros_like(self._normals)
            self._looks = {kind: _GraphedLook(self, step, *kind) for kind in kinds}
            with torch.cuda.graph(self._update, pool=self._pool):
                self._texture_loss = step.update(self._now, self._normals, self._slope, self._normals_slope)

    def __call__(self) -> Tensor:
        """One step; returns the loss, on the device."""
        self._project.replay()
        now, total = self._now, self._now.loss.detach().clone()
        if self._normals_slope is not None:
            self._normals_slope.zero_()
        for part, group in self._parts:
            assert self._targets is not None
            look = self._looks[part.stop - part.start, group]
            total += look(now.pos[part], now.front[part], self._targets[part], self._slope[part], part)
        self._update.replay()
        return total + self._texture_loss


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """An older graph that is freed while another one is captured would spoil that."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class _GraphedLook:
    """`Graphable.look` for a number of views of one group."""

    def __init__(self, owner: GraphedStep, step: Graphable, count: int, group: int) -> None:
        assert owner._targets is not None
        self._owner, self._rasterizer, self._faces = owner, step.rasterizer, step.triangles
        device, (height, width) = step.rasterizer.device, owner._targets.shape[1:3]
        self._rast = torch.zeros(count, height, width, 4, device=device)
        self._rast_db = torch.zeros_like(self._rast)
        self._pos = torch.zeros_like(owner._now.pos[:count])
        self._target = torch.zeros_like(owner._targets[:count])
        self._normals: Tensor | None = None
        if owner._normals is not None:
            self._normals = torch.zeros_like(owner._normals if len(owner._normals) == 1 else owner._normals[:count])
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=owner._pool):
            self._value, self._slopes = step.look(
                self._rast, self._rast_db, self._pos, self._normals, self._target, group
            )

    def __call__(self, pos: Tensor, front: Tensor, target: Tensor, slope: Tensor, part: slice) -> Tensor:
        """Draws a chunk of views; writes the slope of `pos` and returns the loss."""
        faces, owner = self._faces, self._owner
        self._pos.copy_(pos.detach())
        self._target.copy_(target)
        if self._normals is not None and owner._normals is not None:
            self._normals.copy_((owner._normals if len(owner._normals) == 1 else owner._normals[part]).detach())
        leaf = pos.detach().requires_grad_()
        # from here to the replay the device waits for the host: nothing that can be done before or after it
        rast, rast_db = self._rasterizer.rasterize_shared(leaf, faces, tuple(self._rast.shape[1:3]), front)
        local_triangle_ids(rast, len(faces), out=self._rast)
        self._rast_db.copy_(rast_db.detach())
        self._graph.replay()
        root_with_slopes([rast, rast_db], self._slopes[:2]).backward()
        assert leaf.grad is not None
        torch.add(leaf.grad, self._slopes[2], out=slope)
        if owner._normals_slope is not None:
            if len(owner._normals_slope) == 1:
                owner._normals_slope += self._slopes[3]
            else:
                owner._normals_slope[part] = self._slopes[3]
        return self._value

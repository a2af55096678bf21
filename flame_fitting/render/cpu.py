"""The rasterizer on a CPU: Numba kernels behind torch autograd functions.

Gradients are summed in an order that depends on the shapes alone, so results are bit-equal for any number of threads.
"""

import os
from typing import Any, Literal, cast

import numba
import numpy as np
import torch
from torch import Tensor

from flame_fitting.render import kernels_interpolate, kernels_rasterize
from flame_fitting.render.interface import Rasterizer


def set_threads(n: int) -> None:
    """How many threads the kernels use, at most the number numba started with (NUMBA_NUM_THREADS, else all cores)."""
    numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))


def bands_per_view(n_views: int) -> int:
    """Row bands per view. Sums of gradients follow it, so it may depend on the number of views only."""
    return max(1, 32 // max(n_views, 1))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _tri_array(tri: Tensor) -> np.ndarray:
    return tri.detach().to(torch.int32).contiguous().numpy()


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pos: Tensor, tri: Tensor, height: int, width: int, face_mask: Tensor | None) -> Any:
        ctx.set_materialize_grads(False)
        bands = bands_per_view(pos.shape[0])
        pos_, tri_ = _array(pos), _tri_array(tri)
        mask = np.zeros((0, 0), np.bool_) if face_mask is None else _array(face_mask)
        snapped, depth, outcode = kernels_rasterize.project_vertices(pos_, height, width, bands)
        rast_, rast_db_ = kernels_rasterize.rasterize_forward(
            pos_, tri_, mask, snapped, depth, outcode, height, width, bands
        )
        rast, rast_db = torch.from_numpy(rast_), torch.from_numpy(rast_db_)
        ctx.save_for_backward(pos, tri, rast)
        return rast, rast_db

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        pos, tri, rast = ctx.saved_tensors
        grad_rast, grad_db = grads
        if grad_rast is None and grad_db is None:
            return None, None, None, None, None
        empty = np.zeros((0, 0, 0, 4), np.float32)
        parts = kernels_rasterize.rasterize_backward(
            _array(pos),
            _tri_array(tri),
            _array(rast),
            empty if grad_rast is None else _array(grad_rast),
            empty if grad_db is None else _array(grad_db),
            bands_per_view(pos.shape[0]),
        )
        return torch.from_numpy(kernels_interpolate.sum_parts(parts, pos.shape[0])), None, None, None, None


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attr: Tensor, rast: Tensor, tri: Tensor) -> Tensor:
        ctx.save_for_backward(attr, rast, tri)
        return torch.from_numpy(kernels_interpolate.interpolate_forward(_array(attr), _array(rast), _tri_array(tri)))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        attr, rast, tri = ctx.saved_tensors
        need_attr, need_rast = ctx.needs_input_grad[:2]
        parts, grad_rast = kernels_interpolate.interpolate_backward(
            _array(attr),
            _array(rast),
            _tri_array(tri),
            _array(grads[0]),
            bands_per_view(rast.shape[0]),
            need_attr,
            need_rast,
        )
        grad_attr = kernels_interpolate.sum_parts(parts, attr.shape[0]) if need_attr else None
        return _maybe(grad_attr), torch.from_numpy(grad_rast) if need_rast else None, None


class _InterpolateDerivatives(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attr: Tensor, rast: Tensor, rast_db: Tensor, tri: Tensor, diff: Tensor) -> Tensor:
        ctx.save_for_backward(attr, rast, rast_db, tri, diff)
        return torch.from_numpy(
            kernels_interpolate.interpolate_forward_da(
                _array(attr), _array(rast), _array(rast_db), _tri_array(tri), _array(diff)
            )
        )

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        attr, rast, rast_db, tri, diff = ctx.saved_tensors
        need_attr, need_db = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        parts, grad_db = kernels_interpolate.interpolate_backward_da(
            _array(attr),
            _array(rast),
            _array(rast_db),
            _tri_array(tri),
            _array(diff),
            _array(grads[0]),
            bands_per_view(rast.shape[0]),
            need_attr,
            need_db,
        )
        grad_attr = kernels_interpolate.sum_parts(parts, attr.shape[0]) if need_attr else None
        return _maybe(grad_attr), None, torch.from_numpy(grad_db) if need_db else None, None, None


def _maybe(array: np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(array)


class CpuRasterizer(Rasterizer):
    """Numba kernels, parallel over views and rows; forward and backward."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def rasterize(self, pos, tri, resolution, face_mask=None):
        _check_mesh(pos, tri)
        if face_mask is not None and tuple(face_mask.shape) != (pos.shape[0], tri.shape[0]):
            raise ValueError(f"face_mask is {tuple(face_mask.shape)}, expected {(pos.shape[0], tri.shape[0])}")
        return _Rasterize.apply(pos.float(), tri, int(resolution[0]), int(resolution[1]), face_mask)

    def interpolate(self, attr, rast, tri, rast_db=None, diff_attrs=None):
        _check_batch("attr", attr, rast)
        _check_indices(tri, attr.shape[1])
        out = _Interpolate.apply(attr.float(), rast, tri)
        if diff_attrs is None:
            return out, out.new_zeros((*rast.shape[:3], 0))
        if rast_db is None:
            raise ValueError("diff_attrs needs rast_db")
        indices = range(attr.shape[2]) if diff_attrs == "all" else [int(k) % attr.shape[2] for k in diff_attrs]
        diff = torch.tensor(list(indices), dtype=torch.int64)
        return out, _InterpolateDerivatives.apply(attr.float(), rast, rast_db, tri, diff)

    def texture(self, tex, uv, uv_da=None, filter_mode="auto", boundary_mode="clamp", max_mip_level=None):
        raise NotImplementedError

    def topology(self, tri):
        raise NotImplementedError

    def antialias(self, color, rast, pos, tri, topology=None):
        raise NotImplementedError


def _check_mesh(pos: Tensor, tri: Tensor) -> None:
    if pos.ndim != 3 or pos.shape[2] != 4:
        raise ValueError(f"pos is {tuple(pos.shape)}, expected (B, V, 4)")
    _check_indices(tri, pos.shape[1])


def _check_indices(tri: Tensor, n_vertices: int) -> None:
    if tri.ndim != 2 or tri.shape[1] != 3:
        raise ValueError(f"tri is {tuple(tri.shape)}, expected (F, 3)")
    # The kernels do no bounds checks.
    if tri.numel() and (int(tri.min()) < 0 or int(tri.max()) >= n_vertices):
        raise ValueError(f"tri has indices outside 0..{n_vertices - 1}")


def _check_batch(name: str, tensor: Tensor, rast: Tensor) -> None:
    if tensor.shape[0] not in (1, rast.shape[0]):
        raise ValueError(f"{name} has batch {tensor.shape[0]}, expected 1 or {rast.shape[0]}")

"""The rasterizer on a CPU: Numba kernels behind torch autograd functions.

Gradients are summed in an order that depends on the shapes alone, so results are bit-equal for any number of threads.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flame_fitting.render import kernels_antialias, kernels_interpolate, kernels_rasterize, kernels_texture
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.jit import run
from flame_fitting.render.topology import opposite_vertices

_BOUNDARY = {"clamp": kernels_texture.CLAMP, "wrap": kernels_texture.WRAP, "zero": kernels_texture.ZERO}
_FILTER = {
    "nearest": kernels_texture.NEAREST,
    "linear": kernels_texture.LINEAR,
    "linear-mipmap-linear": kernels_texture.MIPMAP,
}


def bands_per_view(n_views: int) -> int:
    """Row bands per view. Sums of gradients follow it, so it may depend on the number of views only."""
    return max(1, 32 // max(n_views, 1))


class CpuRasterizer(Rasterizer):
    """Numba kernels, parallel over views and rows, forward and backward.

    Where two triangles have the same depth at a pixel the later one is drawn. As in nvdiffrast, `rast` is computed from
    the unsnapped vertices and clamped into the triangle, and gradients of triangles of a pixel's size or smaller are
    damped slightly.
    """

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def rasterize(self, pos, tri, resolution, face_mask=None):
        if pos.ndim != 3 or pos.shape[2] != 4:
            raise ValueError(f"pos is {tuple(pos.shape)}, expected (B, V, 4)")
        _check_indices(tri, pos.shape[1])
        if face_mask is not None and tuple(face_mask.shape) != (pos.shape[0], tri.shape[0]):
            raise ValueError(f"face_mask is {tuple(face_mask.shape)}, expected {(pos.shape[0], tri.shape[0])}")
        return _Rasterize.apply(pos.float(), _int32(tri), int(resolution[0]), int(resolution[1]), face_mask)

    def interpolate(self, attr, rast, tri, rast_db=None, diff_attrs=None):
        _check_batch("attr", attr, rast.shape[0])
        _check_indices(tri, attr.shape[1])
        attr, tri = attr.float(), _int32(tri)
        out = _Interpolate.apply(attr, rast, tri)
        if diff_attrs is None:
            return out, out.new_zeros((*rast.shape[:3], 0))
        if rast_db is None:
            raise ValueError("diff_attrs needs rast_db")
        indices = range(attr.shape[2]) if diff_attrs == "all" else [range(attr.shape[2])[k] for k in diff_attrs]
        diff = torch.tensor(list(indices), dtype=torch.int64)
        return out, _InterpolateDerivatives.apply(attr, rast, rast_db, tri, diff)

    def texture(self, tex, uv, uv_da=None, filter_mode="auto", boundary_mode="clamp", max_mip_level=None):
        _check_batch("tex", tex, uv.shape[0])
        if filter_mode == "auto":
            filter_mode = "linear" if uv_da is None else "linear-mipmap-linear"
        mode, boundary = _FILTER[filter_mode], _BOUNDARY[boundary_mode]
        if mode == kernels_texture.MIPMAP and uv_da is None:
            raise ValueError("filter_mode 'linear-mipmap-linear' needs uv_da")
        pyramid = _mip_shapes(tex.shape, max_mip_level if mode == kernels_texture.MIPMAP else 0)
        return _Texture.apply(tex.float(), uv.float(), uv_da, mode, boundary, pyramid)

    def topology(self, tri):
        return torch.from_numpy(opposite_vertices(tri.detach().numpy()))

    def antialias(self, color, rast, pos, tri, topology=None):
        _check_indices(tri, pos.shape[1])
        opposite = self.topology(tri) if topology is None else topology
        return _Antialias.apply(color.float(), rast, pos.float(), _int32(tri), opposite)


class _Rasterize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pos: Tensor, tri: Tensor, height: int, width: int, face_mask: Tensor | None) -> Any:
        ctx.set_materialize_grads(False)
        n_views = pos.shape[0]
        bands = bands_per_view(n_views)
        pos_, tri_ = _array(pos), _array(tri)
        mask = np.zeros((0, 0), np.bool_) if face_mask is None else _array(face_mask.bool())
        vertices = pos_.shape[:2]
        projected = (np.empty((*vertices, 2), np.int32), np.empty(vertices, np.float64), np.empty(vertices, np.uint8))
        run(kernels_rasterize.project_vertices, pos_.shape[0] * pos_.shape[1], pos_, height, width, *projected)
        rows = np.empty((n_views, len(tri_), 2), np.int32)
        run(
            kernels_rasterize.face_rows, n_views * len(tri_),
            tri_, mask, projected[0], projected[2], height, rows,
        )  # fmt: skip
        rast_, rast_db_ = _empty(n_views, height, width, 4), _empty(n_views, height, width, 4)
        run(
            kernels_rasterize.rasterize_forward, n_views * bands,
            pos_, tri_, rows, *projected, bands, rast_, rast_db_,
        )  # fmt: skip
        rast, rast_db = torch.from_numpy(rast_), torch.from_numpy(rast_db_)
        ctx.save_for_backward(pos, tri, rast)
        return rast, rast_db

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        pos, tri, rast = ctx.saved_tensors
        grad_rast, grad_db = grads
        if grad_rast is None and grad_db is None:
            return None, None, None, None, None
        n_views, bands = pos.shape[0], bands_per_view(pos.shape[0])
        parts = _zeros(n_views * bands, pos.shape[1], 4)
        run(
            kernels_rasterize.rasterize_backward,
            n_views * bands,
            _array(pos),
            _array(tri),
            _array(rast),
            _empty(0, 0, 0, 4) if grad_rast is None else _array(grad_rast),
            _empty(0, 0, 0, 4) if grad_db is None else _array(grad_db),
            bands,
            parts,
        )
        return _sum_parts(parts, n_views), None, None, None, None


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attr: Tensor, rast: Tensor, tri: Tensor) -> Tensor:
        ctx.save_for_backward(attr, rast, tri)
        out = _empty(*rast.shape[:3], attr.shape[2])
        run(
            kernels_interpolate.interpolate_forward, out.shape[0] * out.shape[1],
            _array(attr), _array(rast), _array(tri), out,
        )  # fmt: skip
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        attr, rast, tri = ctx.saved_tensors
        need_attr, need_rast, _ = ctx.needs_input_grad
        bands = bands_per_view(rast.shape[0])
        parts = _zeros(rast.shape[0] * bands if need_attr else 0, *attr.shape[1:])
        grad_rast = _zeros(rast.shape[0] if need_rast else 0, *rast.shape[1:])
        run(
            kernels_interpolate.interpolate_backward, rast.shape[0] * bands,
            _array(attr), _array(rast), _array(tri), _array(grads[0]), bands, parts, grad_rast,
        )  # fmt: skip
        return (
            _sum_parts(parts, attr.shape[0]) if need_attr else None,
            torch.from_numpy(grad_rast) if need_rast else None,
            None,
        )


class _InterpolateDerivatives(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attr: Tensor, rast: Tensor, rast_db: Tensor, tri: Tensor, diff: Tensor) -> Tensor:
        ctx.save_for_backward(attr, rast, rast_db, tri, diff)
        out = _empty(*rast.shape[:3], 2 * diff.shape[0])
        run(
            kernels_interpolate.interpolate_forward_da, out.shape[0] * out.shape[1],
            _array(attr), _array(rast), _array(rast_db), _array(tri), _array(diff), out,
        )  # fmt: skip
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        attr, rast, rast_db, tri, diff = ctx.saved_tensors
        need_attr, need_db = ctx.needs_input_grad[0], ctx.needs_input_grad[2]
        bands = bands_per_view(rast.shape[0])
        parts = _zeros(rast.shape[0] * bands if need_attr else 0, *attr.shape[1:])
        grad_db = _zeros(rast.shape[0] if need_db else 0, *rast.shape[1:])
        run(
            kernels_interpolate.interpolate_backward_da, rast.shape[0] * bands,
            _array(attr), _array(rast), _array(rast_db), _array(tri), _array(diff), _array(grads[0]), bands,
            parts, grad_db,
        )  # fmt: skip
        return (
            _sum_parts(parts, attr.shape[0]) if need_attr else None,
            None,
            torch.from_numpy(grad_db) if need_db else None,
            None,
            None,
        )


class _Pyramid(NamedTuple):
    """Sizes of mip levels, and where each starts in one flat array of all levels."""

    heights: NDArray[np.int64]
    widths: NDArray[np.int64]
    offsets: NDArray[np.int64]
    size: int


def _mip_shapes(shape: torch.Size, max_level: int | None) -> _Pyramid:
    n_textures, height, width, n_channels = shape
    heights, widths, offsets, size = [height], [width], [0], n_textures * height * width * n_channels
    while max(height, width) > 1 and (max_level is None or len(heights) <= max_level):
        if (height > 1 and height % 2) or (width > 1 and width % 2):
            raise ValueError(
                f"a texture of {shape[1]}x{shape[2]} cannot be halved {len(heights)} times; "
                f"set max_mip_level to {len(heights) - 1} or less, or use powers of two"
            )
        height, width = max(height // 2, 1), max(width // 2, 1)
        heights.append(height)
        widths.append(width)
        offsets.append(size)
        size += n_textures * height * width * n_channels
    return _Pyramid(np.array(heights), np.array(widths), np.array(offsets), size)


def _small_levels(tex: NDArray, pyramid: _Pyramid) -> NDArray[np.float32]:
    """The mip levels from 1 on, flat."""
    n_textures, _, _, n_channels = tex.shape
    mips = _empty(pyramid.size - tex.size)
    heights, widths, offsets, _ = pyramid
    if len(heights) > 1:
        flat = tex.reshape(-1)
        run(kernels_texture.build_first_mip, n_textures * int(heights[1]), flat, mips, heights, widths, n_channels)
        run(kernels_texture.build_small_mips, n_textures, mips, heights, widths, offsets, n_channels)
    return mips


class _Texture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tex: Tensor, uv: Tensor, uv_da: Tensor | None, mode: int, boundary: int, pyramid: _Pyramid
    ) -> Tensor:
        n_views, height, width = uv.shape[:3]
        tex_ = _array(tex)
        mips = _small_levels(tex_, pyramid)
        mipmapped = mode == kernels_texture.MIPMAP
        uv_da_ = _array(uv_da) if uv_da is not None and mipmapped else _empty(0, 0, 0, 4)
        level = _empty(n_views, height, width) if mipmapped else _empty(0, 0, 0)
        out = _empty(n_views, height, width, tex.shape[3])
        run(
            kernels_texture.texture_forward, n_views * height,
            tex_.reshape(-1), mips, *pyramid[:3], tex.shape[0], _array(uv), uv_da_, mode, boundary, out, level,
        )  # fmt: skip
        ctx.save_for_backward(tex, uv, uv_da)
        ctx.saved = (mips, level, mode, boundary, pyramid)
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        tex, uv, uv_da = ctx.saved_tensors
        mips, level, mode, boundary, pyramid = ctx.saved
        need_tex, need_uv, need_da = ctx.needs_input_grad[:3]
        need_da = need_da and mode == kernels_texture.MIPMAP
        grad = _array(grads[0])
        grad_tex = grad_uv = grad_da = None
        if need_uv or need_da:
            grad_uv, grad_da = _empty(*uv.shape), _empty(*(uv_da.shape if need_da else (0, 0, 0, 4)))
            run(
                kernels_texture.coordinate_gradients, uv.shape[0] * uv.shape[1],
                _array(tex).reshape(-1), mips, *pyramid[:3], tex.shape[0],
                _array(uv), _array(uv_da) if need_da else grad_da, level, mode, boundary, grad, grad_uv, grad_da,
            )  # fmt: skip
        if need_tex:
            grad_tex = torch.from_numpy(_texel_gradients(tex.shape, _array(uv), level, mode, boundary, pyramid, grad))
        return (
            grad_tex,
            torch.from_numpy(grad_uv) if need_uv else None,
            torch.from_numpy(grad_da) if need_da else None,
            None,
            None,
            None,
        )


def _texel_gradients(
    shape: torch.Size, uv: NDArray, level: NDArray, mode: int, boundary: int, pyramid: _Pyramid, grad: NDArray
) -> NDArray[np.float32]:
    n_textures, _, _, n_channels = shape
    heights, widths, offsets, size = pyramid
    # Bands of texel rows: a power of two rows each, at most 64 bands a level.
    shifts = np.array([max(int(np.ceil(np.log2(h / 64))), 0) for h in heights])
    bins_per_level = -(-heights // (1 << shifts))
    first_bin = np.concatenate([[0], np.cumsum(bins_per_level)[:-1]])
    n_bins = int(bins_per_level.sum())
    n_views, bands = grad.shape[0], bands_per_view(grad.shape[0])

    counts = np.zeros((n_views * bands, n_textures * n_bins), np.int64)
    sort = (heights, n_textures, uv, level, mode, boundary, grad, shifts, first_bin, n_bins, bands)
    run(kernels_texture.bin_pixels, n_views * bands, *sort, counts, np.empty(0, np.int32))
    ends = np.cumsum(counts.T.ravel())
    cursor = np.ascontiguousarray((ends - counts.T.ravel()).reshape(counts.shape[1], counts.shape[0]).T)
    starts = np.concatenate([[0], ends[counts.shape[0] - 1 :: counts.shape[0]]])
    items = np.empty(int(ends[-1]), np.int32)
    if len(items):
        run(kernels_texture.bin_pixels, n_views * bands, *sort, cursor, items)

    # All levels and then the halo rows in one array.
    halo_sizes = np.tile(np.repeat(widths * n_channels, bins_per_level), n_textures)
    halo_offsets = size + np.cumsum(halo_sizes) - halo_sizes
    data = _zeros(size + int(halo_sizes.sum()))
    target = (data, heights, widths, offsets, halo_offsets, n_channels, shifts, first_bin, n_bins)
    pixels = (uv.reshape(-1, 2), level.reshape(-1), grad.reshape(-1, n_channels))
    tasks = kernels_texture.ACCUMULATE_TASKS
    run(kernels_texture.accumulate_texels, tasks, *target, mode, boundary, *pixels, items, starts)
    run(kernels_texture.add_halos, len(starts) - 1, *target, starts)
    if len(heights) > 1:
        levels = (data, heights, widths, offsets, n_channels)
        run(kernels_texture.pull_small_gradients, n_textures, *levels)
        run(kernels_texture.pull_first_gradient, n_textures * int(heights[0]), *levels)
    return data[: int(np.prod(shape))].reshape(tuple(shape))


class _Antialias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, color: Tensor, rast: Tensor, pos: Tensor, tri: Tensor, opposite: Tensor) -> Tensor:
        n_views, height, width, n_channels = color.shape
        bands = bands_per_view(n_views)
        rast_, pos_, tri_ = _array(rast), _array(pos), _array(tri)
        screen = np.empty((*pos.shape[:2], 2), np.float64)
        run(kernels_antialias.screen_positions, pos.shape[0] * pos.shape[1], pos_, height, width, screen)
        flags = np.empty((n_views, tri.shape[0]), np.uint8)
        run(kernels_antialias.silhouette_edges, flags.size, screen, tri_, _array(opposite), flags)
        counts = np.empty(n_views * bands, np.int64)
        candidate = np.empty((n_views, height, width), np.uint8)
        run(kernels_antialias.find_candidates, n_views * bands, rast_, flags, bands, candidate, counts)
        start = np.concatenate([[0], np.cumsum(counts)])
        n_items = int(start[-1])
        items = (np.empty(n_items, np.int32), np.empty(n_items, np.uint8), np.empty(n_items, np.float32))
        run(
            kernels_antialias.find_crossings, n_views * bands,
            rast_, screen, tri_, flags, candidate, bands, start, *items,
        )  # fmt: skip
        out = _copy(color)
        flat = (n_views, height * width, n_channels)
        start = np.ascontiguousarray(start[::bands])
        run(
            kernels_antialias.blend, n_views,
            _array(color).reshape(flat), start, *items, width, out.numpy().reshape(flat),
        )  # fmt: skip
        ctx.save_for_backward(color, rast, pos, tri)
        ctx.saved = (screen, start, items)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        color, rast, pos, tri = ctx.saved_tensors
        screen, start, items = ctx.saved
        need_color, _, need_pos = ctx.needs_input_grad[:3]
        flat = (color.shape[0], color.shape[1] * color.shape[2], color.shape[3])
        grad_color = _copy(grads[0])
        grad_pos = _zeros(*(pos.shape if need_pos else (0, 0, 4)))
        run(
            kernels_antialias.blend_backward, color.shape[0],
            _array(color).reshape(flat), _array(rast), _array(pos), screen, _array(tri), start, *items,
            _array(grads[0]).reshape(flat), grad_color.numpy().reshape(flat), grad_pos, need_pos,
        )  # fmt: skip
        return (
            grad_color if need_color else None,
            None,
            torch.from_numpy(grad_pos) if need_pos else None,
            None,
            None,
        )


def _array(tensor: Tensor) -> NDArray:
    return tensor.detach().contiguous().numpy()


def _int32(tri: Tensor) -> Tensor:
    return tri.detach().to(torch.int32)


def _empty(*shape: int) -> NDArray[np.float32]:
    # Allocated by numpy, not in the kernels: it asks the system for huge pages.
    return np.empty(shape, np.float32)


def _copy(tensor: Tensor) -> Tensor:
    return torch.from_numpy(_empty(*tensor.shape)).copy_(tensor.detach())


def _zeros(*shape: int) -> NDArray[np.float32]:
    return np.zeros(shape, np.float32)


def _sum_parts(parts: NDArray, n_groups: int) -> Tensor:
    out = _empty(n_groups, *parts.shape[1:])
    run(kernels_interpolate.sum_parts, n_groups * parts.shape[1], parts, out)
    return torch.from_numpy(out)


def _check_indices(tri: Tensor, n_vertices: int) -> None:
    if tri.ndim != 2 or tri.shape[1] != 3:
        raise ValueError(f"tri is {tuple(tri.shape)}, expected (F, 3)")
    # The kernels do no bounds checks.
    if tri.numel() and (int(tri.min()) < 0 or int(tri.max()) >= n_vertices):
        raise ValueError(f"tri has indices outside 0..{n_vertices - 1}")


def _check_batch(name: str, tensor: Tensor, n_views: int) -> None:
    if tensor.shape[0] not in (1, n_views):
        raise ValueError(f"{name} has batch {tensor.shape[0]}, expected 1 or {n_views}")

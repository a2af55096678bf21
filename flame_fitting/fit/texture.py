"""Textures in closed form: every texel is the weighted mean of the pixels that see it.

Cameras and geometry are known exactly, so nothing has to be optimised. Weights favour views that see the surface
squarely; texels that no view sees are filled from the model's neutral texture, shifted to the colours around.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d

from flame_fitting.fit.views import ViewSet
from flame_fitting.head.model import HeadModel
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.mesh import clip_positions
from flame_fitting.render.shading import vertex_normals
from flame_fitting.render.texturing import TexelMap, rasterize_uv

_OCCLUSION_TOLERANCE = 0.003
"""Metres that a texel may lie behind the drawn surface and still count as seen."""


def texel_map(rasterizer: Rasterizer, head: HeadModel, resolution: int) -> TexelMap:
    """Where each texel of a square texture lies on the head."""
    return rasterize_uv(rasterizer, head.uv, head.uv_faces, (resolution, resolution))


@dataclass(eq=False)
class Bake:
    """A baked texture."""

    color: Tensor
    """(R, R, 3) sRGB; undefined where `weight` is 0."""
    weight: Tensor
    """(R, R) sum of view weights."""


def bake(
    rasterizer: Rasterizer,
    head: HeadModel,
    vertices: Tensor,
    views: ViewSet,
    texels: TexelMap,
    sharpness: float = 4.0,
) -> Bake:
    """Projects the pictures onto the head posed at `vertices` (V, 3), reference frame.

    `sharpness` is the power of the cosine between normal and view direction that weighs a view.
    """
    rows, cols = torch.nonzero(texels.covered, as_tuple=True)
    corners = head.faces[texels.face[rows, cols]]
    weights = texels.barycentric[rows, cols].to(vertices)
    normals = vertex_normals(vertices[None], head.faces)[0]
    points = (vertices[corners] * weights[..., None]).sum(1).float()
    normal = torch.nn.functional.normalize((normals[corners] * weights[..., None]).sum(1), dim=-1).float()
    total = torch.zeros(len(rows), 1)
    color = torch.zeros(len(rows), 3)
    depth = fitted_depth(rasterizer, head, vertices, views)
    # one pixel from the outline in, so that no background bleeds onto the texture
    inner = 1 - max_pool2d(1 - views.alphas[:, None], 3, stride=1, padding=1)
    for i in range(len(views.views)):
        camera = torch.as_tensor(views.camera[i], dtype=torch.float32)
        local = points @ camera[:3, :3].T + camera[:3, 3]
        toward = torch.nn.functional.normalize(torch.as_tensor(views.eyes[i], dtype=torch.float32) - points, dim=-1)
        cosine = (normal * toward).sum(-1)
        K = torch.as_tensor(views.K[i], dtype=torch.float32)
        pixels = local @ K.T
        height, width = views.resolution
        grid = 2 * pixels[:, :2] / pixels[:, 2:] / torch.tensor([width, height]) - 1
        stacked = torch.cat([views.images[i], inner[i], depth[i][None]])[None]
        sampled = grid_sample(stacked, grid[None, None], mode="bilinear", align_corners=False)[0, :, 0].T
        seen = (cosine > 0.1) & (sampled[:, 3] > 0.99) & (local[:, 2] < sampled[:, 4] + _OCCLUSION_TOLERANCE)
        weight = torch.where(seen, cosine.clamp_min(0) ** sharpness, torch.zeros_like(cosine))[:, None]
        color += weight * sampled[:, :3]
        total += weight
    out = torch.zeros(*texels.face.shape, 3)
    out[rows, cols] = color / total.clamp_min(1e-8)
    weight_map = torch.zeros(texels.face.shape)
    weight_map[rows, cols] = total[:, 0]
    return Bake(out, weight_map)


def fitted_depth(rasterizer: Rasterizer, head: HeadModel, vertices: Tensor, views: ViewSet) -> Tensor:
    """(B, H, W) depth (m) of the posed head along each camera's z; large where nothing is drawn."""
    pos = clip_positions(vertices.float()[None], views.clip)
    rast, _ = rasterizer.rasterize(pos, head.faces.int(), views.resolution)
    # w of clip space is the depth
    depth, _ = rasterizer.interpolate(pos[..., 3:].contiguous(), rast, head.faces.int())
    return torch.where(rast[..., 3] > 0, depth[..., 0], torch.full_like(depth[..., 0], 1e6))


def complete(baked: Bake, head: HeadModel, texels: TexelMap, threshold: float = 1e-3) -> Tensor:
    """Fills the texels that no view saw, and a gutter around the islands; (R, R, 3)."""
    seen = (baked.weight > threshold).numpy() & texels.covered.numpy()
    color = baked.color.numpy().copy()
    resolution = color.shape[0]
    if not seen.any():
        color[:] = 0.7
        return torch.as_tensor(color)
    if head.texture is not None:
        base = _resized(head.texture, resolution)
        # the neutral texture, moved to the tone of the seen texels nearby
        sigma = resolution / 32
        known = gaussian_filter(seen.astype(np.float32), sigma)[..., None]
        difference = gaussian_filter(np.where(seen[..., None], color - base, 0), (sigma, sigma, 0))
        mean = (color[seen] - base[seen]).mean(axis=0)
        shift = (difference + 1e-3 * mean) / (known + 1e-3)
        filler = np.clip(base + shift, 0, 1)
    else:
        filler = np.broadcast_to(np.median(color[seen], axis=0), color.shape)
    color = np.where(seen[..., None], color, filler)
    nearest = distance_transform_edt(~texels.covered.numpy(), return_distances=False, return_indices=True)
    return torch.as_tensor(np.ascontiguousarray(color[tuple(nearest)], dtype=np.float32))


def region_smoothed(color: Tensor, weight: Tensor, labels: Tensor, sigma: float) -> Tensor:
    """Blurs a texture inside each labelled region, never across borders: appearance by region, without detail.

    `labels` (R, R) int; texels of label -1 are left as they are. `sigma` in texels.
    """
    out = color.numpy().copy()
    source, trust = color.numpy(), (weight > 1e-3).float().numpy()
    for label in labels.unique().tolist():
        if label < 0:
            continue
        inside = (labels == label).numpy()
        mask = inside * trust
        if mask.sum() < 16:
            continue
        near = gaussian_filter(mask, sigma)[..., None]
        mean = (source * mask[..., None]).sum((0, 1)) / mask.sum()
        blurred = (gaussian_filter(source * mask[..., None], (sigma, sigma, 0)) + 1e-3 * mean) / (near + 1e-3)
        out[inside] = blurred[inside]
    return torch.as_tensor(out)


def _resized(picture: np.ndarray, resolution: int) -> np.ndarray:
    import cv2

    shrink = picture.shape[0] >= resolution
    resized = cv2.resize(
        picture, (resolution, resolution), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    )
    return resized.astype(np.float32) / 255.0

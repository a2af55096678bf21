"""Textures in closed form: every texel is the weighted mean of the pixels that see it.

Cameras and geometry are known exactly, so nothing has to be optimised. Weights favour views that see the surface
squarely; texels that no view sees are filled from the model's neutral texture, shifted to the colours around.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d

from flame_fitting.fit.views import ViewSet
from flame_fitting.head.model import HeadModel
from flame_fitting.render.gutter import fill_gutter
from flame_fitting.render.interface import Rasterizer
from flame_fitting.render.mesh import clip_positions
from flame_fitting.render.shading import vertex_normals
from flame_fitting.render.texturing import TexelMap, rasterize_uv

_OCCLUSION_TOLERANCE = 0.003
"""Metres that a texel may lie behind the drawn surface and still count as seen."""


def texel_map(rasterizer: Rasterizer, head: HeadModel, resolution: int) -> TexelMap:
    """Where each texel of a square texture lies on the head."""
    uv, uv_faces = head.uv.to(rasterizer.device), head.uv_faces.to(rasterizer.device)
    return rasterize_uv(rasterizer, uv, uv_faces, (resolution, resolution))


class TexelMaps:
    """The texel maps of one head by size, each made once."""

    def __init__(self, rasterizer: Rasterizer, head: HeadModel) -> None:
        self._rasterizer, self._head = rasterizer, head
        self._maps: dict[int, TexelMap] = {}

    def __call__(self, resolution: int) -> TexelMap:
        """The map of a square texture."""
        if resolution not in self._maps:
            self._maps[resolution] = texel_map(self._rasterizer, self._head, resolution)
        return self._maps[resolution]


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
    vertices: Float[Tensor, "T V 3"],
    views: ViewSet,
    texels: TexelMap,
    sharpness: float = 4.0,
) -> Bake:
    """Projects the pictures onto the head, posed for each as at its timestep; reference frame.

    `sharpness` is the power of the cosine between normal and view direction that weighs a view.
    """
    device = vertices.device
    rows, cols = torch.nonzero(texels.covered, as_tuple=True)
    total = torch.zeros(len(rows), 1, device=device)
    color = torch.zeros(len(rows), 3, device=device)
    for posed, some in zip(vertices, _by_timestep(views, len(vertices)), strict=True):
        if some.views:
            added, weight = _projected(rasterizer, head, posed, some, texels, (rows, cols), sharpness)
            color += added
            total += weight
    out = torch.zeros(*texels.face.shape, 3, device=device)
    out[rows, cols] = color / total.clamp_min(1e-8)
    weight_map = torch.zeros(texels.face.shape, device=device)
    weight_map[rows, cols] = total[:, 0]
    return Bake(out, weight_map)


def _by_timestep(views: ViewSet, timesteps: int) -> list[ViewSet]:
    """The views of each timestep."""
    if timesteps == 1:
        return [views]
    numbers = views.timestep.cpu().numpy()
    return [views.subset(np.flatnonzero(numbers == timestep)) for timestep in range(timesteps)]


def _projected(
    rasterizer: Rasterizer,
    head: HeadModel,
    vertices: Float[Tensor, "V 3"],
    views: ViewSet,
    texels: TexelMap,
    places: tuple[Tensor, Tensor],
    sharpness: float,
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 1"]]:
    """Weighted colours and weights of the texels at `places` (rows, columns), summed over the views."""
    device = vertices.device
    rows, cols = places
    corners = head.faces[texels.face[rows, cols]]
    weights = texels.barycentric[rows, cols].to(vertices)
    normals = vertex_normals(vertices[None], head.faces)[0]
    points = (vertices[corners] * weights[..., None]).sum(1).float()
    normal = torch.nn.functional.normalize((normals[corners] * weights[..., None]).sum(1), dim=-1).float()
    total = torch.zeros(len(rows), 1, device=device)
    color = torch.zeros(len(rows), 3, device=device)
    depth = fitted_depth(rasterizer, head, vertices, views)
    cameras = torch.as_tensor(views.camera, dtype=torch.float32, device=device)
    intrinsics = torch.as_tensor(views.K, dtype=torch.float32, device=device)
    eyes = torch.as_tensor(views.eyes, dtype=torch.float32, device=device)
    height, width = views.resolution
    extent = torch.tensor([width, height], device=device)
    # as many views at once as keep the sampled values below a quarter of a gigabyte
    size = max(1, 2**23 // max(len(rows), 1)) if device.type == "cuda" else 1
    for start in range(0, len(views.views), size):
        part = slice(start, start + size)
        local = points @ cameras[part, :3, :3].transpose(1, 2) + cameras[part, None, :3, 3]
        toward = torch.nn.functional.normalize(eyes[part, None] - points, dim=-1)
        cosine = (normal * toward).sum(-1, keepdim=True)
        pixels = local @ intrinsics[part].transpose(1, 2)
        grid = 2 * pixels[..., :2] / pixels[..., 2:] / extent - 1
        pictures = views.pictures(part).permute(0, 3, 1, 2)
        # one pixel from the outline in, so that no background bleeds onto the texture
        inner = 1 - max_pool2d(1 - pictures[:, 3:], 3, stride=1, padding=1)
        stacked = torch.cat([pictures[:, :3], inner, depth[part, None]], dim=1)
        sampled = grid_sample(stacked, grid[:, None], mode="bilinear", align_corners=False)[:, :, 0].transpose(1, 2)
        behind = local[..., 2:] >= sampled[..., 4:] + _OCCLUSION_TOLERANCE
        seen = (cosine > 0.1) & (sampled[..., 3:4] > 0.99) & ~behind
        weight = torch.where(seen, cosine.clamp_min(0) ** sharpness, 0.0)
        color += (weight * sampled[..., :3]).sum(0)
        total += weight.sum(0)
    return color, total


def fitted_depth(rasterizer: Rasterizer, head: HeadModel, vertices: Tensor, views: ViewSet) -> Tensor:
    """(B, H, W) depth (m) of the posed head along each camera's z; large where nothing is drawn."""
    pos = clip_positions(vertices.float()[None], views.clip)
    rast, _ = rasterizer.rasterize(pos, head.faces.int(), views.resolution)
    # w of clip space is the depth
    depth, _ = rasterizer.interpolate(pos[..., 3:].contiguous(), rast, head.faces.int())
    return torch.where(rast[..., 3] > 0, depth[..., 0], 1e6)


def complete(baked: Bake, head: HeadModel, texels: TexelMap, threshold: float = 1e-3) -> Tensor:
    """Fills the texels that no view saw, and a gutter around the islands; (R, R, 3)."""
    seen = (baked.weight > threshold) & texels.covered
    if not seen.any():
        return torch.full_like(baked.color, 0.7)
    if head.texture is not None:
        base = _shrunk(head.texture, baked.color.shape[0]).to(baked.color)
        # the neutral texture, moved to the tone of the seen texels nearby
        sigma = baked.color.shape[0] / 32
        known = seen.float()[..., None]
        difference = (baked.color - base) * known
        blurred = gaussian_blur(torch.cat([difference, known], dim=-1), sigma)
        mean = difference.sum((0, 1)) / known.sum()
        shift = (blurred[..., :3] + 1e-3 * mean) / (blurred[..., 3:] + 1e-3)
        filler = (base + shift).clamp(0, 1)
    else:
        filler = baked.color[seen].median(dim=0).values.expand(baked.color.shape)
    color = torch.where(seen[..., None], baked.color, filler)
    return fill_gutter(color, texels.nearest_covered)


def region_smoothed(color: Tensor, weight: Tensor, labels: Tensor, sigma: float) -> Tensor:
    """Blurs a texture inside each labelled region, never across borders: appearance by region, without detail.

    `labels` (R, R) int; texels of label -1 are left as they are. `sigma` in texels.
    """
    count = int(labels.max()) + 1
    if count <= 0:
        return color.clone()
    inside = torch.nn.functional.one_hot(labels.clamp_min(0), count).float() * (labels >= 0)[..., None]
    mask = inside * (weight > 1e-3)[..., None]  # (R, R, K)
    number = mask.sum((0, 1))
    mean = torch.einsum("rck,rcn->kn", mask, color) / number.clamp_min(1.0)[:, None]
    near = gaussian_blur(mask, sigma)
    own = labels.clamp_min(0)[..., None]
    # colours are blurred region by region: all at once would take ten times the memory
    total = torch.zeros_like(color)
    for label in range(count):
        blurred = gaussian_blur(color * mask[..., label : label + 1], sigma)
        total = torch.where(own == label, blurred, total)
    smooth = (total + 1e-3 * mean[own[..., 0]]) / (near.gather(-1, own) + 1e-3)
    enough = (number >= 16)[own[..., 0]] & (labels >= 0)
    return torch.where(enough[..., None], smooth, color)


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """(H, W, C) blurred by a Gaussian of `sigma` pixels, cut at 4 sigma; edges repeat their last pixel."""
    radius = max(int(4 * sigma + 0.5), 1)
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(image)
    planes = image.permute(2, 0, 1)[:, None]
    conv, pad = torch.nn.functional.conv2d, torch.nn.functional.pad
    planes = conv(pad(planes, (radius, radius, 0, 0), mode="replicate"), kernel[None, None, None])
    planes = conv(pad(planes, (0, 0, radius, radius), mode="replicate"), kernel[None, None, :, None])
    return planes[:, 0].permute(1, 2, 0)


REGION_COLORS = {
    "skin": (0.82, 0.64, 0.54),
    "hair": (0.45, 0.35, 0.28),
    "lips_tight": (0.68, 0.38, 0.36),
    "teeth": (0.90, 0.87, 0.82),
    "sclerae": (0.88, 0.86, 0.84),
    "irises": (0.30, 0.24, 0.20),
}
"""sRGB of the regions of a head without a texture of its own; later ones win."""


def painted(head: HeadModel, texels: TexelMap) -> Tensor:
    """(R, R, 3) the head model's neutral texture, or one colour by region where it has none."""
    resolution = texels.face.shape[0]
    if head.texture is not None:
        return _shrunk(head.texture, resolution).to(texels.barycentric)
    color = torch.tensor(REGION_COLORS["skin"]).expand(len(head.faces), 3).clone()
    for name, value in REGION_COLORS.items():
        color[head.face_mask(name).cpu()] = torch.tensor(value)
    out = color.to(texels.barycentric)[texels.face.clamp_min(0)]
    return fill_gutter(out, texels.nearest_covered)


def resized(texture: Tensor, resolution: int) -> Tensor:
    """A square texture (R, R, 3) at another size."""
    if texture.shape[0] == resolution:
        return texture.clone()
    planes = texture.permute(2, 0, 1)[None]
    shrink = resolution < texture.shape[0]
    out = torch.nn.functional.interpolate(planes, (resolution, resolution), mode="bilinear", antialias=shrink)
    return out[0].permute(1, 2, 0).contiguous()


def _shrunk(picture: np.ndarray, resolution: int) -> Tensor:
    import cv2

    shrink = picture.shape[0] >= resolution
    resized = cv2.resize(
        picture, (resolution, resolution), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    )
    return torch.as_tensor(resized.astype(np.float32) / 255.0)
